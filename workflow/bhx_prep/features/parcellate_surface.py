"""Mean series per parcel of a pair of surface files: GIfTI, or FreeSurfer's MGH."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.features.parcel_means import Parcellated, mean_rows
from bhx_prep.io import bids_names
from bhx_prep.io.hemispheres import check_side
from bhx_prep.io.images import load_image, read_image
from bhx_prep.io.meshes import MESHES
from bhx_prep.io.notes import short


def parcellate_surface(left: Path, right: Path, atlas: Atlas) -> Parcellated:
    """Mean series per parcel of a pair of surface files (GIfTI, or FreeSurfer's MGH).

    Raises
    ------
    DataError
        If the meshes are unknown or not that of the name, a file is of the other hemisphere or a copy of the other, or the
        two have different numbers of frames.
    """
    hemispheres = [_read_surface(left, "left"), _read_surface(right, "right")]
    (n_left, frames_left), (n_right, frames_right) = (h.shape for h in hemispheres)
    if n_left != n_right or n_left not in MESHES:
        meshes = " or ".join(f"{n} ({mesh})" for n, mesh in MESHES.items())
        msg = f"{short(left.name)}: {n_left} and {n_right} vertices left and right, the atlas is known on {meshes}"
        raise DataError(msg)
    if frames_left != frames_right:
        msg = f"{short(left.name)}: {frames_left} frames left, {frames_right} right: one file is truncated"
        raise DataError(msg)
    if frames_left < 2:
        msg = f"{short(left.name)} has {frames_left} frame: a series is expected"
        raise DataError(msg)
    named = bids_names.parse(left.name).get("space")
    if named in MESHES.values() and named != MESHES[n_left]:
        msg = f"{short(left.name)} is named {named}, but its {n_left} vertices are those of {MESHES[n_left]}: which is it?"
        raise DataError(msg)
    if np.array_equal(hemispheres[0], hemispheres[1]):
        msg = f"{short(left.name)} and the right hemisphere's file hold the same series: one is a copy"
        raise DataError(msg)
    series = np.full((atlas.n_rois, frames_left), np.nan, np.float32)
    coverage = np.zeros(atlas.n_rois, np.float32)
    for values, labels in zip(hemispheres, atlas.surface(MESHES[n_left]), strict=True):
        mean_rows(values, labels, series, coverage)
    return Parcellated(series, coverage)


def _read_surface(path: Path, side: str) -> np.ndarray:
    """Series on one hemisphere, (V, T)."""
    image = load_image(path)
    check_side(path, side, image)
    if isinstance(image, nib.GiftiImage):
        arrays = [np.asarray(a.data) for a in image.darrays]
        if not arrays or len({a.shape for a in arrays}) != 1 or arrays[0].ndim not in (1, 2):
            msg = f"{short(path.name)} holds no series: its data arrays are missing or of different shapes"
            raise DataError(msg)
        values = arrays[0] if arrays[0].ndim == 2 else np.stack(arrays, axis=1)
    else:
        values, _ = read_image(path)
        values = values.reshape(int(np.prod(values.shape[:3])), -1, order="F")
    if values.dtype.kind not in "iuf":
        msg = f"{short(path.name)} holds {values.dtype} values, real numbers are expected"
        raise DataError(msg)
    return values
