"""Grids of images: headers that ITK accepts, the standard grid at any spacing, reproducible files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from scipy import ndimage

from bhx_model.errors import DataError
from bhx_prep.io.nifti_header import rigid_affine

#: ITK's world runs to the left and to the back; times this, RAS becomes LPS and LPS RAS.
LPS = np.array([-1.0, -1.0, 1.0, 1.0])


def clean(image: Any, zooms: tuple[float, float, float]) -> nib.Nifti1Image:
    """The image as float32 with finite values, true voxel sizes and a header without shear.

    Parameters
    ----------
    image : nibabel image, (X, Y, Z) or (X, Y, Z, T)
    zooms : tuple of three floats
        Voxel sizes to trust, mm.
    """
    affine = clean_affine(image, zooms)
    values = clean_values(np.asarray(image.dataobj, np.float32))
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return _image(values, affine)


def clean_affine(image: Any, zooms: tuple[float, float, float]) -> np.ndarray:
    """Affine of an image with voxel sizes to trust (mm) and without shear, (4, 4).

    Raises
    ------
    DataError
        If the header's has no extent.
    """
    if not np.isfinite(image.affine).all() or not np.linalg.norm(image.affine[:3, :3], axis=0).all():
        msg = "the header's affine is not finite or has no extent: fix its sform or qform"
        raise DataError(msg)
    return rigid_affine(image.affine, image.shape, zooms)


def clean_values(values: np.ndarray) -> np.ndarray:
    """Values as float32, zeros for what is not finite."""
    return np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def thin_out(image: nib.Nifti1Image, least_mm: float) -> nib.Nifti1Image:
    """The image on a grid no finer than `least_mm` along any axis, low-passed to it first.

    Parameters
    ----------
    image : Nifti1Image, (X, Y, Z)
        With an affine without shear.
    least_mm : float
        Axes with smaller voxels get voxels of this size; the others stay. The field of view keeps its lower corner.
    """
    old = np.asarray(image.header.get_zooms()[:3], float)
    new = np.maximum(old, least_mm)
    if np.allclose(old, new, rtol=0.01):
        return image
    # a voxel averages over its width: add what the coarser ones average over more
    sd = np.sqrt(new**2 - old**2) / np.sqrt(12) / old
    smooth = ndimage.gaussian_filter(np.asarray(image.dataobj, np.float32), sd)
    given = np.asarray(image.affine, float)
    affine = given.copy()
    affine[:3, :3] *= new / old
    affine[:3, 3] = (given @ [*((new / old - 1) / 2), 1])[:3]  # the first voxels share a corner
    shape = np.maximum(np.round(np.asarray(image.shape) * old / new), 1).astype(int)
    source = nib.Nifti1Image(smooth, given)
    thinner = resample_from_to(source, (tuple(shape.tolist()), affine), order=3, mode="nearest")
    return _image(np.asarray(thinner.dataobj, np.float32), affine)


def save(values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write an image, (X, Y, Z) or (X, Y, Z, T), with its affine (4, 4), to mm; equal values give equal bytes."""
    _image(values, affine).to_filename(path)


def open_grid(template: Path, spacing_mm: float, path: Path) -> Any:
    """Empty ANTs image on the template's field of view with another spacing, written to `path`.

    Voxel (0, 0, 0) lies where the template's does, as in TemplateFlow's ``res-2`` of a ``res-1`` template.
    """
    image: Any = nib.load(template)
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    shape = np.ceil(np.asarray(image.shape[:3]) * spacing / spacing_mm - 1e-6).astype(int)
    affine = image.affine.copy()
    affine[:3, :3] *= spacing_mm / spacing
    save(np.zeros(tuple(shape), np.float32), affine, path)
    return ants.image_read(str(path))


def _image(values: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    # both forms: programs differ in which they believe
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image
