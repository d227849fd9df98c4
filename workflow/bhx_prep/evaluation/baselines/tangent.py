"""Connectivity in the tangent space of covariances, at the log-Euclidean mean of the training subjects.

A covariance C becomes log(M^-1/2 C M^-1/2), with M the mean: how far a subject is from the others, of equal weight in all
directions (Varoquaux et al. 2010, doi:10.1007/978-3-642-15705-9_25). The log-Euclidean mean (Arsigny et al. 2006,
doi:10.1002/mrm.20965) has a closed form, where the geometric mean of 500 subjects takes a minute and seldom converges. An
ROI that a subject lacks is put in as what its other ROIs let expect, given the mean covariance of the training subjects
that have all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bhx_model.errors import DataError

#: Matrices that are decomposed at once.
_CHUNK = 64


def project(covariances: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Project covariances to the tangent space.

    Parameters
    ----------
    covariances : ndarray, (N, R (R + 1) / 2)
        Upper triangles with the diagonal, NaN for an ROI that a subject lacks.
    train : ndarray, (N,) bool

    Returns
    -------
    ndarray, (N, R (R + 1) / 2) float32

    Raises
    ------
    DataError
        If no training subject has all ROIs.
    """
    whole = _without_gaps(_matrices(covariances.astype(np.float64)), train)
    mean = _of_eigenvalues(_of_eigenvalues(whole[train], np.log).mean(axis=0, keepdims=True), np.exp)
    whiten = _of_eigenvalues(mean, lambda values: 1 / np.sqrt(values))[0]
    row, column = np.triu_indices(whole.shape[1])
    found = np.empty(covariances.shape, np.float32)
    for start in range(0, len(whole), _CHUNK):
        part = whiten @ whole[start : start + _CHUNK] @ whiten
        found[start : start + _CHUNK] = _of_eigenvalues(part, np.log)[:, row, column]
    return found


def _of_eigenvalues(symmetric: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Matrices with a function of the eigenvalues in the place of them: (N, R, R)."""
    found = np.empty_like(symmetric)
    for start in range(0, len(symmetric), _CHUNK):
        values, vectors = np.linalg.eigh(symmetric[start : start + _CHUNK])
        found[start : start + _CHUNK] = (vectors * function(values)[:, None, :]) @ vectors.transpose(0, 2, 1)
    return found


def _matrices(triangles: np.ndarray) -> np.ndarray:
    """Symmetric matrices, (N, R, R), of their upper triangles."""
    n_rois = int((np.sqrt(8 * triangles.shape[1] + 1) - 1) / 2)
    row, column = np.triu_indices(n_rois)
    found = np.empty((len(triangles), n_rois, n_rois))
    found[:, row, column] = triangles
    found[:, column, row] = triangles
    return found


def _without_gaps(matrices: np.ndarray, train: np.ndarray) -> np.ndarray:
    there = np.isfinite(np.diagonal(matrices, axis1=1, axis2=2))
    complete = there.all(axis=1)
    if complete.all():
        return matrices
    if not (complete & train).any():
        msg = "no training subject has values of all ROIs, which `fc_tangent` needs of one: leave that method out"
        raise DataError(msg)
    mean = matrices[complete & train].mean(axis=0)
    filled = matrices.copy()
    for i in np.flatnonzero(~complete):
        known, gone = np.flatnonzero(there[i]), np.flatnonzero(~there[i])
        # regression of what is gone on what is known, whose residual keeps the mean's covariance
        slope = np.linalg.solve(mean[np.ix_(known, known)], mean[np.ix_(known, gone)]).T
        own = matrices[i][np.ix_(known, known)]
        cross = slope @ own
        filled[i][np.ix_(gone, known)], filled[i][np.ix_(known, gone)] = cross, cross.T
        residual = mean[np.ix_(gone, gone)] - slope @ mean[np.ix_(known, gone)]
        filled[i][np.ix_(gone, gone)] = residual + cross @ slope.T
    return filled
