"""Metrics over a whole data set: never an average over batches, which would depend on their order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def classification(
    truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray, n_classes: int
) -> dict[str, float]:
    """Metrics of a classifier, as fractions of 1.

    Parameters
    ----------
    truth, predicted : ndarray, (n,) int
        Class numbers.
    scores : ndarray, (n, n_classes)
        Probability, or any score that grows with it, of every class.
    n_classes : int

    Returns
    -------
    dict
        ``accuracy``; ``balanced_accuracy`` (mean recall of the classes that occur); ``f1`` (of class 1 if
        there are two, else the mean over classes weighted by their frequency); ``auroc`` (of class 1 if there
        are two, else the mean of one class against the rest).
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    present = [c for c in range(n_classes) if (truth == c).any()]
    recalls = [float((predicted[truth == c] == c).mean()) for c in present]
    if n_classes == 2:
        f1 = _f1(truth == 1, predicted == 1)
        auroc = area_under_curve(truth == 1, scores[:, 1] - scores[:, 0])
    else:
        f1 = sum(float((truth == c).mean()) * _f1(truth == c, predicted == c) for c in present)
        areas = [area_under_curve(truth == c, scores[:, c]) for c in present]
        auroc = float(np.mean(areas))
    return {
        "accuracy": float((truth == predicted).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "f1": f1,
        "auroc": auroc,
    }


def _f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    both = int((truth & predicted).sum())
    total = int(truth.sum()) + int(predicted.sum())
    return 2 * both / total if total else 0.0


def area_under_curve(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half.

    0.5 if one of the two does not occur.
    """
    positive, negative = score[truth], np.sort(score[~truth])
    if not len(positive) or not len(negative):
        return 0.5
    below = np.searchsorted(negative, positive, "left")
    not_above = np.searchsorted(negative, positive, "right")
    return float((below + not_above).mean() / 2 / len(negative))


def regression(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """``mae`` (in units of the truth), ``pearson_r`` (0 where one side does not vary) and ``r2``."""
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    error = predicted - truth
    spread = truth - truth.mean()
    moved = predicted - predicted.mean()
    scale = math.sqrt(float(spread @ spread) * float(moved @ moved))
    # a constant prediction differs from its mean by rounding only
    constant = np.ptp(predicted) <= 1e-12 * max(1.0, float(np.abs(predicted).max()))
    total = float(spread @ spread)
    return {
        "mae": float(np.abs(error).mean()),
        "pearson_r": 0.0 if constant or scale == 0 else float(spread @ moved) / scale,
        "r2": 1.0 - float(error @ error) / total if total > 0 else 0.0,
    }


def trivial(kind: str, train: Sequence[float], test: Sequence[float], n_classes: int) -> dict[str, float]:
    """Metrics on `test` of a predictor without data: the commonest class, or the mean, of `train`."""
    if kind == "regression":
        return regression(np.asarray(test), np.full(len(test), np.mean(train)))
    counts = np.bincount(np.asarray(train, np.int64), minlength=n_classes)
    commonest = int(counts.argmax())
    scores = np.tile(counts / counts.sum(), (len(test), 1))
    return classification(np.asarray(test, np.int64), np.full(len(test), commonest), scores, n_classes)
