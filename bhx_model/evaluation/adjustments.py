"""Adjust scores for covariates as an endpoint specifies, equally for baselines and models.

Each is learned from train or validation subjects, never from test subjects.
"""

# Shapes: N subjects, K classes

from __future__ import annotations

from typing import Any

import numpy as np

from bhx_model.evaluation.influence import LEAST_SPREAD, is_constant
from bhx_model.evaluation.labels import Labels


def adjust(labels: Labels, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Adjust scores as the labels' endpoint specifies, and predict.

    Parameters
    ----------
    labels : Labels
    scores : ndarray, (N, K) probabilities or (N, 1) predictions

    Returns
    -------
    scores : ndarray, as before
    predicted : ndarray, (N,)
        Class numbers or values.
    learned : dict
        For ``metrics.json``, what was learned by each adjustment.
    """
    learned: dict[str, Any] = {}
    if "class_weights" in labels.adjustments:
        counts = np.bincount(labels.target[labels.fitted], minlength=labels.n_classes)
        weights = counts.sum() / (labels.n_classes * np.maximum(counts, 1))
        scores = scores * weights
        scores = scores / scores.sum(axis=1, keepdims=True)
        learned["class_weights"] = weights.tolist()
    if "calibrate" in labels.adjustments:
        val = labels.of("val")
        slope, offset = calibration(labels.target[val], scores[val, 0])
        scores = scores * slope + offset
        learned["calibrate"] = {"slope": slope, "offset": offset}
    predicted = scores.argmax(axis=1) if labels.n_classes else scores[:, 0]
    if "threshold" in labels.adjustments:
        val = labels.of("val")
        learned["threshold"] = best_threshold(labels.target[val], scores[val, 1])
        predicted = (scores[:, 1] > learned["threshold"]).astype(np.int64)
    return scores, predicted, learned


def calibration(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the line of `predicted` (m,) that fits `truth` (m,) best, by least squares.

    Predictions that are the same for everybody, or nearly so, are moved alone: of a trace of noise the line would make
    differences as large as the truth's, and of any sign.
    """
    if is_constant(predicted, truth) or np.std(predicted) < LEAST_SPREAD * np.std(truth):
        return 1.0, float(truth.mean() - predicted.mean())
    x = predicted - predicted.mean()
    slope = float((x * truth).sum() / (x**2).sum())
    return slope, float(truth.mean() - slope * predicted.mean())


def best_threshold(truth: np.ndarray, score: np.ndarray) -> float:
    """Score above which a subject is called positive with the best balanced accuracy; of equally good ones that next to .5.

    0.5 where all subjects are of one class.

    Parameters
    ----------
    truth : numpy.ndarray of shape (m,)
        0 or 1.
    score : numpy.ndarray of shape (m,)
        Larger for class 1.
    """
    positive = truth == 1
    if positive.all() or not positive.any():
        return 0.5
    known = np.unique(score)
    candidates = np.concatenate([[0.5], (known[1:] + known[:-1]) / 2])
    named = score > candidates[:, None]
    balanced = named[:, positive].mean(axis=1) + (~named[:, ~positive]).mean(axis=1)
    best = candidates[balanced > balanced.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])
