"""Resample an atlas to the grid of an image: the nearest label of each voxel, and the fraction of each parcel in view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def nearest_labels(labels: np.ndarray, to_atlas: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Label of the atlas voxel nearest to each voxel of an image.

    Parameters
    ----------
    labels : (X, Y, Z) int16
        The atlas.
    to_atlas : (4, 4)
        Voxels of the image to those of the atlas.
    shape : tuple of three int
        Of the image.

    Returns
    -------
    numpy.ndarray of int16, flat in Fortran order
        Halves go up, outside of the atlas is 0.
    """
    index, inside = _voxels(to_atlas, np.ogrid[tuple(map(slice, shape))], labels.shape)
    return np.where(inside, labels[tuple(index)], 0).astype(np.int16).ravel(order="F")


def share_in_view(atlas: np.ndarray, to_image: np.ndarray, shape: tuple[int, ...], n_rois: int) -> np.ndarray:
    """Share of each parcel inside the grid of an image, (R,).

    Parameters
    ----------
    atlas : (X, Y, Z) int16
    to_image : (4, 4)
        Voxels of the atlas to those of the image.
    shape : tuple of three int
        Of the image.
    n_rois : int
    """
    labelled = atlas > 0
    ends = [np.flatnonzero(labelled.any(axis=others))[[0, -1]] for others in ((1, 2), (0, 2), (0, 1))]
    if _voxels(to_image, np.ix_(*ends), shape)[
        1
    ].all():  # the grid is convex: what lies between is in it, too
        return np.ones(n_rois)
    index = np.nonzero(labelled)
    labels = atlas[index]
    _, inside = _voxels(to_image, index, shape)
    return (
        np.bincount(labels[inside], minlength=n_rois + 1)[1:] / np.bincount(labels, minlength=n_rois + 1)[1:]
    )


def _voxels(
    matrix: np.ndarray, index: Sequence[np.ndarray], shape: tuple[int, ...]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Voxel indices on another grid, clipped to it, and which of them exist there.

    Three indices that broadcast against each other; grids whose axes are parallel are compared axis by axis.
    """
    out, inside = [], np.array(True)
    for row, n in zip(matrix, shape, strict=False):
        terms = [weight * i for weight, i in zip(row, index, strict=False) if abs(weight) * i.max() > 1e-6]
        # rounded first: a 2 mm voxel often lies exactly between two of 1 mm, and then the last bit would decide
        place = np.floor(np.round(sum(terms, start=row[3]), 4) + 0.5)
        inside = inside & (place >= 0) & (place < n)
        out.append(np.clip(place, 0, n - 1).astype(np.intp))
    return out, np.broadcast_to(inside, np.broadcast_shapes(*(i.shape for i in index)))
