"""Connectivity in the tangent space of the covariances, at the geometric mean of those of the training subjects.

Varoquaux et al. 2010, doi:10.1007/978-3-642-15705-9_25; the projection is nilearn's. An ROI that a subject lacks is put
in as what its other ROIs let expect, given the mean covariance of the training subjects that have all.
"""

from __future__ import annotations

import numpy as np

from bhx_model.errors import DataError


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
    from nilearn.connectome import ConnectivityMeasure
    from sklearn.base import BaseEstimator

    class AsGiven(BaseEstimator):
        """What nilearn takes for an estimator of the covariance, given covariances for series."""

        def fit(self, series: np.ndarray) -> AsGiven:
            self.covariance_ = series
            return self

    whole = _without_gaps(_matrices(covariances.astype(np.float64)), train)
    measure = ConnectivityMeasure(AsGiven(), kind="tangent", vectorize=True, standardize=False)
    measure.fit(list(whole[train]))
    return np.asarray(measure.transform(list(whole)), np.float32)


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
