"""Resample images of one space to one grid, to compare them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bhx_model.data.t1w import voxel_sizes


def on_grid(values: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target: np.ndarray) -> np.ndarray:
    """Sample a volume on another grid: smoothed where the new voxels are larger, then linearly; 0 outside.

    Parameters
    ----------
    values : array, (I, J, K)
    affine : array, (4, 4)
        Voxel to world, mm.
    shape : tuple of int
        (X, Y, Z) of the new grid.
    target : array, (4, 4)
        Its voxel to world, mm.

    Returns
    -------
    array of float32, (X, Y, Z)
    """
    to_voxel = np.linalg.inv(affine) @ target
    ratio = voxel_sizes(target) / voxel_sizes(affine)
    # the width by which a Gaussian kernel of one source voxel grows to one of the grid's voxels
    sigma = np.sqrt(np.maximum(ratio**2 - 1, 0)) / 2.355
    smooth = np.nan_to_num(np.asarray(values, np.float32))
    if (sigma > 0.05).any():
        smooth = ndimage.gaussian_filter(smooth, sigma, mode="constant")
    return np.asarray(
        ndimage.affine_transform(smooth, to_voxel, output_shape=shape, order=1, mode="constant")
    )
