"""Read a T1-weighted image in MNI space and bring it to the model's grid; see `bhx_model.data.t1w`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bhx_model.data import t1w
from bhx_model.data.t1w import ModelGrid, model_grid
from bhx_model.errors import DataError
from bhx_prep.io.images import read_image
from bhx_prep.io.notes import short

__all__ = ["ModelGrid", "conform", "model_grid", "read_pair"]


def conform(path: Path, grid: ModelGrid, mask: Path | None = None) -> np.ndarray:
    """Read a T1 and its mask and bring them to the model's grid: `bhx_model.data.t1w.conform`.

    Parameters
    ----------
    path : Path
        Preprocessed T1w in MNI space, any resolution.
    grid : ModelGrid
    mask : Path, optional
        Brain mask on the grid of `path`; without it the volume must be skull-stripped with 0 as background.

    Returns
    -------
    (X, Y, Z) float32

    Raises
    ------
    DataError
        If the volume is unreadable, empty, or does not lie in MNI space.
    """
    data, affine, values = read_pair(path, mask)
    return t1w.conform(data, affine, grid, short(path.name), values)


def read_pair(path: Path, mask: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Voxels (X, Y, Z) and affine (4, 4), to mm, of a T1, and voxels (X, Y, Z) of its brain mask.

    Raises
    ------
    DataError
        If one is unreadable, or the mask is empty or on another grid.
    """
    data, affine = _read(path)
    if mask is None:
        return data, affine, None
    values, mask_affine = _read(mask)
    if values.shape != data.shape or not np.allclose(mask_affine, affine, atol=1e-2):
        msg = f"{short(mask.name)} (brain mask) has another grid than {short(path.name)}"
        raise DataError(msg)
    if not (np.nan_to_num(values) > 0.5).any():
        msg = f"{short(mask.name)} (brain mask) is empty"
        raise DataError(msg)
    return data, affine, values


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    data, affine = read_image(path, np.float32)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3 or min(data.shape) < 2:
        msg = f"{short(path.name)} has shape {' x '.join(map(str, data.shape))}: one volume is expected"
        raise DataError(msg)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        msg = f"{short(path.name)}: the affine of its header cannot be inverted, so its place in MNI space is unknown"
        raise DataError(msg)
    return data, affine
