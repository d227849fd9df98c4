"""Directions in feature space: the one along which labels differ, and the first two principal components."""

from __future__ import annotations

import numpy as np

from bhx_model.evaluation.labels import Labels


def label_direction(features: np.ndarray, labels: Labels) -> np.ndarray:
    """Direction along which the training subjects' labels differ most, every feature in its own spread.

    Of two classes the difference of their means over the variance of each feature; of more the first axis of their
    means; of a regression the covariance with the value.

    Parameters
    ----------
    features : ndarray, (n, P)
    labels : Labels
        Of the n subjects.

    Returns
    -------
    ndarray, (P,) float64
        To be multiplied with features. It points to the last class, or to higher values.
    """
    train = labels.of("train")
    known, target = features[train].astype(np.float64), labels.target[train]
    spread = known.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    z = (known - known.mean(axis=0)) / spread
    if labels.kind == "regression":
        value = target - target.mean()
        return (z * value[:, None]).mean(axis=0) / spread
    classes = np.unique(target)
    means = np.stack([z[target == c].mean(axis=0) for c in classes])
    means = means - means.mean(axis=0)
    axis = np.linalg.svd(means, full_matrices=False)[2][0]
    sign = np.sign(axis @ (means[-1] - means[0])) or 1.0
    return sign * axis / spread


def principal_plane(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First two principal components of standardised features.

    Parameters
    ----------
    features : ndarray, (n, P)

    Returns
    -------
    coordinates : ndarray, (n, 2) float32
        0 in the second where one component holds everything. The largest coordinate of each is positive.
    explained : ndarray, (2,) float64
        Share of the variance.
    """
    centred = features.astype(np.float64) - features.mean(axis=0)
    spread = centred.std(axis=0)
    z = centred / np.where(spread > 0, spread, 1.0)
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    u, s = np.pad(u, ((0, 0), (0, 2)))[:, :2], np.pad(s, (0, 2))
    signs = np.sign(np.take_along_axis(u, np.abs(u).argmax(axis=0)[None], axis=0))[0]
    total = float((s**2).sum()) or 1.0
    return (u * s[:2] * np.where(signs == 0, 1, signs)).astype(np.float32), s[:2] ** 2 / total
