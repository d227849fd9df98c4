"""Metrics over a whole data set: never an average over batches, which would depend on their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics


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
        are two, else the mean of one class against the rest; 0.5 for a class that is nobody or everybody).
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    present = np.unique(truth)
    average = "binary" if n_classes == 2 else "weighted"
    none_is: Any = 0  # the stubs know the default only
    # a binary area ranks by the difference, so that scores need not add up to one
    columns = {1: scores[:, 1] - scores[:, 0]} if n_classes == 2 else {c: scores[:, c] for c in present}
    areas = [
        sklearn_metrics.roc_auc_score(truth == c, score) if 0 < (truth == c).sum() < len(truth) else 0.5
        for c, score in columns.items()
    ]
    return {
        "accuracy": float(sklearn_metrics.accuracy_score(truth, predicted)),
        "balanced_accuracy": float(
            sklearn_metrics.recall_score(
                truth, predicted, labels=present, average="macro", zero_division=none_is
            )
        ),
        "f1": float(sklearn_metrics.f1_score(truth, predicted, average=average, zero_division=none_is)),
        "auroc": float(np.mean(areas)),
    }


def regression(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """``mae`` (in units of the truth), ``pearson_r`` and ``r2``; the latter two are 0 where they do not exist."""
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    # a constant prediction differs from its mean by rounding only
    flat = np.ptp(predicted) <= 1e-12 * max(1.0, float(np.abs(predicted).max())) or np.ptp(truth) == 0
    return {
        "mae": float(sklearn_metrics.mean_absolute_error(truth, predicted)),
        "pearson_r": 0.0 if flat else float(np.corrcoef(truth, predicted)[0, 1]),
        "r2": 0.0 if np.ptp(truth) == 0 else float(sklearn_metrics.r2_score(truth, predicted)),
    }


def trivial(kind: str, train: Sequence[float], test: Sequence[float], n_classes: int) -> dict[str, float]:
    """Metrics on `test` of a predictor without data: the commonest class, or the mean, of `train`."""
    if kind == "regression":
        return regression(np.asarray(test), np.full(len(test), np.mean(train)))
    counts = np.bincount(np.asarray(train, np.int64), minlength=n_classes)
    commonest = int(counts.argmax())
    scores = np.tile(counts / counts.sum(), (len(test), 1))
    return classification(np.asarray(test, np.int64), np.full(len(test), commonest), scores, n_classes)
