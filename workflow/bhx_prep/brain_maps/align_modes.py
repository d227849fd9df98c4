"""Align the modes of a subject's surface with the template's in order, signs and mixture.

Mode 37 of one subject need not be mode 37 of another: solvers choose signs, close eigenvalues change places, and within a
(nearly) repeated eigenvalue any rotation solves the equation as well. On meshes whose vertices correspond (fsLR-32k)
modes can be compared. Neighbours whose eigenvalues differ by less than 2 % in either surface form a group; within each
group the subject's modes are rotated onto the template's by the orthogonal matrix that brings them closest (Procrustes:
Schönemann 1966). A group of one is a choice of sign.

Eigenvalues of a surface grow evenly (Weyl), so their relative distance shrinks with their number: beyond some fifty
modes most fall into one group. Its columns are then not single modes of the subject but combinations that resemble the
template's, orthonormal as before; their eigenvalue is the Rayleigh quotient. The correlation of each
with the template's is written beside the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bhx_model.errors import DataError

#: Relative distance of neighbouring eigenvalues below which their modes may mix from subject to subject.
NEAR = 0.02


def groups(values: np.ndarray, reference_values: np.ndarray, near: float = NEAR) -> list[slice]:
    """Modes that are rotated together: neighbours that are close in either surface.

    Parameters
    ----------
    values, reference_values : ndarray, (k,)
        Ascending from 0 (mm^-2).
    near : float

    Returns
    -------
    list of slice
        Consecutive, without gaps, the constant mode alone.
    """
    n = len(values)
    close = np.zeros(n - 1, bool)
    for spectrum in (values, reference_values):
        gap = np.diff(spectrum)
        close[1:] |= gap[1:] < near * spectrum[1:-1]
    starts = [0, *(np.flatnonzero(~close) + 1).tolist()]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True)]


def align(
    values: np.ndarray,
    vectors: np.ndarray,
    reference_values: np.ndarray,
    reference_vectors: np.ndarray,
    areas: np.ndarray,
    near: float = NEAR,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Rotate modes onto those of a reference with corresponding vertices.

    Parameters
    ----------
    values, reference_values : ndarray, (k,)
        Eigenvalues, ascending from 0 (mm^-2).
    vectors, reference_vectors : ndarray, (V, k)
        Modes at the same vertices, each orthonormal over its own surface.
    areas : ndarray, (V,)
        Weight of a vertex, e.g. the geometric mean of its areas on both surfaces (mm^2).
    near : float
        See `groups`.

    Returns
    -------
    values : ndarray, (k,)
        Rayleigh quotients of the rotated modes; no longer ascending within a group.
    vectors : ndarray, (V, k)
        As orthonormal as those given.
    metadata : dict
        ``template_correlation`` (k,), over the surface, and ``groups``, the number of modes of each.

    Raises
    ------
    DataError
        If the two do not correspond.
    """
    if (
        vectors.shape != reference_vectors.shape
        or len(values) != vectors.shape[1]
        or len(areas) != len(vectors)
    ):
        msg = (
            f"modes of {vectors.shape} and template modes of {reference_vectors.shape}: both need the same mesh, the same"
            " cortex and the same number of modes"
        )
        raise DataError(msg)
    out_values, out = values.copy(), vectors.copy()
    found = groups(values, reference_values, near)
    for group in found:
        overlap = (areas[:, None] * vectors[:, group]).T @ reference_vectors[:, group]
        left, _, right = np.linalg.svd(overlap)
        rotation = left @ right
        out[:, group] = vectors[:, group] @ rotation
        out_values[group] = (rotation**2 * values[group][:, None]).sum(axis=0)
    weighted = areas[:, None] * out
    correlation = (weighted * reference_vectors).sum(axis=0) / np.sqrt(
        (weighted * out).sum(axis=0) * (areas[:, None] * reference_vectors**2).sum(axis=0)
    )
    metadata = {
        "template_correlation": correlation.round(4).tolist(),
        "groups": [group.stop - group.start for group in found],
    }
    return out_values, out, metadata
