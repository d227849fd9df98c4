"""Deface anatomical images: cut off everything in front of and below a plane that keeps the brain whole.

The plane looks forwards and downwards at 45 degrees, and lies `MARGIN_MM` in front of the outermost voxel of the brain's
mask in that direction, as Quickshear's (Schimke and Hale 2011) lies in front of its hull: eyes, nose, mouth and chin are
set to zero, and no voxel of the mask is. The forehead and the ears stay. The mask is deepbet's, in the environment of the
embedded preprocessing, which runs this module as a command.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from bhx_model.command_line import run_command
from bhx_model.errors import DataError, SiteError
from bhx_prep import installation

#: Forwards and downwards, in the scanner's millimetres (right, anterior, superior).
NORMAL: Final = np.array([0.0, 1.0, -1.0]) / np.sqrt(2)
#: Between the brain's mask and what is cut off.
MARGIN_MM: Final = 5.0
#: Begins what is said of an image without a brain, here and where brain masks are made.
_NO_BRAIN: Final = "no brain was found"


def plane_of(mask: np.ndarray, affine: np.ndarray) -> float:
    """How far along `NORMAL` (mm) a brain reaches, with the margin.

    Parameters
    ----------
    mask : bool array, (X, Y, Z)
    affine : array, (4, 4)
        Voxels to the scanner's millimetres.

    Raises
    ------
    DataError
        If the mask is empty.
    """
    if not mask.any():
        raise DataError(f"{_NO_BRAIN}, so that the face cannot be cut off: use a command of your own")
    return float((np.argwhere(mask) @ (NORMAL @ affine[:3, :3])).max() + NORMAL @ affine[:3, 3] + MARGIN_MM)


def cut(image: Path, plane_mm: float) -> float:
    """Set everything beyond a plane to zero, in place.

    Parameters
    ----------
    image : Path
        Uncompressed NIfTI, 3D.
    plane_mm : float
        Of `plane_of`.

    Returns
    -------
    float
        Share of the image's voxels that were cut off.

    Raises
    ------
    DataError
        If the image states no place in space.
    """
    with image.open("rb") as file:
        header = nib.Nifti1Header.from_fileobj(file)
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise DataError(
            "the image states no place in space, so that the face cannot be found: check the export"
        )
    affine = np.asarray(header.get_best_affine())
    along = NORMAL @ affine[:3, :3]
    grids = np.ogrid[tuple(slice(0, n) for n in header.get_data_shape()[:3])]
    beyond = (
        sum(step * grid for step, grid in zip(along, grids, strict=True)) + NORMAL @ affine[:3, 3] > plane_mm
    )
    values = np.memmap(
        image,
        header.get_data_dtype(),
        "r+",
        int(header["vox_offset"]),
        header.get_data_shape()[:3],
        order="F",
    )
    values[np.asarray(beyond)] = 0
    values.flush()
    return float(np.mean(beyond))


def find_plane(image: Path) -> float:
    """Plane of a T1w head, by the other environment.

    Raises
    ------
    DataError
        If no brain is found.
    SiteError
        If that environment is not there, lacks deepbet, or ends by anything else.
    """
    study = Path.cwd()
    python = installation.ants_python(study)
    how = f"to cut off faces, {installation.how_to_get_ants()}; or give a command of your own as `deface`"
    if not python.is_file():
        raise SiteError(f"there is no {python}: {how}")
    installation.link_code(study)
    places = os.pathsep.join(map(str, installation.python_path(study)))
    environment = {**os.environ, "PYTHONPATH": places, "NO_ET": "1", "OMP_NUM_THREADS": "1"}
    words = [str(python), "-m", "bhx_prep.dicom.deface", str(image)]
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", env=environment, check=False
    )
    if done.returncode == 0:
        return float(json.loads(done.stdout)["plane_mm"])
    if "ModuleNotFoundError" in done.stderr:
        raise SiteError(f"{python} lacks deepbet: {how}")
    if _NO_BRAIN in done.stderr:
        raise DataError(f"{_NO_BRAIN}, so that the face cannot be cut off: use a command of your own")
    last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
    raise SiteError(
        f"looking for the brain ended with exit code {done.returncode} ({last[-80:]}): give it more memory, or name a "
        "command of your own as `deface`"
    )


def call(words: Sequence[str], image: Path, work: Path) -> None:
    """Let a command of the user's take off the face, in place.

    Parameters
    ----------
    words : sequence of str
        With ``{in}`` and ``{out}`` among them, which become paths of `.nii.gz` files.
    image : Path
        Uncompressed NIfTI.
    work : Path
        An empty folder.

    Raises
    ------
    DataError
        If it fails, or what it writes is no image on the same grid.
    SiteError
        If there is no such command.
    """
    given, made = work / "in.nii.gz", work / "out.nii.gz"
    before: Any = nib.load(image)
    nib.save(before, given)
    filled = [word.replace("{in}", str(given)).replace("{out}", str(made)) for word in words]
    try:
        done = subprocess.run(filled, capture_output=True, check=False)
    except OSError as error:
        raise SiteError(
            f"deface: {words[0]} cannot be started ({error.strerror}): install it, or name its path"
        ) from None
    if done.returncode or not made.is_file():
        raise DataError(
            f"deface: {words[0]} ended with exit code {done.returncode} and has left no image that counts"
        )
    try:
        after: Any = nib.load(made)
        same = after.shape == before.shape and np.allclose(after.affine, before.affine, atol=1e-3)
    except (ImageFileError, OSError, ValueError):
        same = False
    if not same:
        raise DataError(f"deface: {words[0]} has written no image on the grid of the one it was given")
    plain = nib.Nifti1Image(after.dataobj, after.affine)
    plain.header.set_xyzt_units("mm", "sec")
    nib.save(plain, image)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plane of a T1w head; this runs where deepbet is."""
    parser = argparse.ArgumentParser(description="Plane that cuts off the face of a T1w head.")
    parser.add_argument("image", type=Path)
    return run_command(lambda: _print_plane(parser.parse_args(argv).image))


def _print_plane(path: Path) -> int:
    brain_mask: Any = importlib.import_module("bhx_prep.preproc.embedded.brain_mask")  # brings nipype

    head: Any = nib.as_closest_canonical(nib.load(path))  # type: ignore[arg-type]
    print(json.dumps({"plane_mm": plane_of(brain_mask.find_brain(head), head.affine)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
