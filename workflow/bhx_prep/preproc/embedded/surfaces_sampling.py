"""Values of a series of volumes at the vertices of a surface. Needs neither ANTs nor nipype."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from scipy import ndimage

#: Places between white (0) and pial (1) surface that a vertex is the mean of, as fMRIPrep samples.
DEPTHS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def between(white: np.ndarray, pial: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Places of a hemisphere's vertices at all `DEPTHS`, moved by `matrix`: homogeneous (4, depths x V)."""
    points = np.concatenate([(1 - depth) * white + depth * pial for depth in DEPTHS])
    return matrix @ np.column_stack([points, np.ones(len(points))]).T


def sample(
    frames: Iterable[np.ndarray],
    affine: np.ndarray,
    matrices: np.ndarray,
    points: np.ndarray,
    displacement: np.ndarray | None = None,
    axis: int = 0,
) -> np.ndarray:
    """Mean over the depths in every frame, (V, T) float32; NaN if none is in the measured volume.

    Parameters
    ----------
    frames : iterable of array, (X, Y, Z)
        As measured.
    affine : array, (4, 4)
        Voxel to mm.
    matrices : array, (T, 4, 4)
        Places in the reference to places in each frame, mm.
    points : array, (4, depths x V)
        From `between`, in the reference, which has no distortion.
    displacement : array, (X, Y, Z), optional
        By distortion, voxels along `axis`, on the grid of the reference; none where the reference is distorted, too.
    axis : int
        Along which phase was encoded.
    """
    to_voxel, n_depths = np.linalg.inv(affine), len(DEPTHS)
    shift: np.ndarray | float = 0.0
    if displacement is not None:
        shift = np.asarray(
            ndimage.map_coordinates(displacement, (to_voxel @ points)[:3], order=1, mode="nearest")
        )
    series = np.full((points.shape[1] // n_depths, len(matrices)), np.nan, np.float32)
    for t, frame in enumerate(frames):
        where = (to_voxel @ matrices[t] @ points)[:3]
        where[axis] += shift
        limit = np.asarray(frame.shape)[:, None] - 1
        seen = np.all((where >= -0.5) & (where <= limit + 0.5), axis=0).reshape(n_depths, -1)
        values = np.asarray(ndimage.map_coordinates(frame, where, order=1, mode="nearest"))
        count = seen.sum(axis=0)
        total = np.where(seen, values.reshape(n_depths, -1), 0).sum(axis=0)
        series[:, t] = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return series
