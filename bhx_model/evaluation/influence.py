"""Influence of each test subject on a metric, from which variances of metrics are computed. Needs no torch.

The influence of person i is the derivative of the metric by the weight of i, times the number of people: a metric of m
people has about the variance mean(u^2) / (m - 1). Of means it is the deviation from the mean; of the AUROC it gives
the variance of DeLong et al. (Biometrics 44, 1988).

Arrays are of the m test subjects of one split: `truth` and `predicted` (m,), classes as whole numbers from 0 or the values
of a regression; `scores` (m, K), a number for each of K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

Influence = tuple[float, np.ndarray]
"""A metric and (m,) influences of the people; NaN and zeros where the metric does not exist."""

#: Share of the truth's deviation that predictions need for a calibration slope.
LEAST_SPREAD: Final = 0.01


def accuracy(truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> Influence:
    """Share that is predicted right."""
    return _mean(truth == predicted)


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> Influence:
    """Mean recall of the classes that occur."""
    right, m = (truth == predicted).astype(float), len(truth)
    classes = np.unique(truth)
    value, u = 0.0, np.zeros(m)
    for c in classes:
        of = truth == c
        recall = right[of].mean()
        value += recall / len(classes)
        u[of] = m / (of.sum() * len(classes)) * (right[of] - recall)
    return float(value), u


def f1_of(truth: np.ndarray, predicted: np.ndarray, class_: int) -> Influence:
    """F1 of a class; 0 if no subject is of the class or predicted to be."""
    is_, named = truth == class_, predicted == class_
    hits, size = 2.0 * (is_ & named), is_.astype(float) + named
    total = size.sum()
    if total == 0:
        return 0.0, np.zeros(len(truth))
    value = hits.sum() / total
    return float(value), (hits - value * size) * len(truth) / total


def f1(truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> Influence:
    """F1 of class 1 of two; of more the mean over classes weighted by their frequency."""
    if scores.shape[1] == 2:
        return f1_of(truth, predicted, 1)
    value, u = 0.0, np.zeros(len(truth))
    for c in np.unique(truth):
        share, (of, of_u) = (truth == c).mean(), f1_of(truth, predicted, c)
        value += share * of
        u += share * of_u + ((truth == c) - share) * of
    return float(value), u


def f1_negative(truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> Influence:
    """F1 of class 0."""
    return f1_of(truth, predicted, 0)


def macro_f1(truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> Influence:
    """Mean F1 of the classes that occur or are named."""
    classes = np.union1d(truth, predicted)
    parts = [f1_of(truth, predicted, c) for c in classes]
    return float(np.mean([value for value, _ in parts])), np.mean([u for _, u in parts], axis=0)


def auroc(truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> Influence:
    """Area of class 1 of two; of more the mean of one class against the rest; NaN where all are of one class."""
    classes = [1] if scores.shape[1] == 2 else np.unique(truth).astype(int)
    parts = []
    for c in classes:
        is_ = truth == c
        if is_.all() or not is_.any():
            continue
        score = scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores[:, c]
        below, above = np.sort(score[~is_]), np.sort(score[is_])
        wins = np.empty(len(truth))
        wins[is_] = (
            (np.searchsorted(below, score[is_], "left") + np.searchsorted(below, score[is_], "right"))
            / 2
            / len(below)
        )
        wins[~is_] = 1 - (
            np.searchsorted(above, score[~is_], "left") + np.searchsorted(above, score[~is_], "right")
        ) / 2 / len(above)
        area = float(wins[is_].mean())
        parts.append((area, (wins - area) * len(truth) / np.where(is_, len(above), len(below))))
    if not parts:
        return np.nan, np.zeros(len(truth))
    return float(np.mean([value for value, _ in parts])), np.mean([u for _, u in parts], axis=0)


def mae(truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> Influence:
    """Mean absolute error."""
    return _mean(np.abs(truth - predicted))


def pearson_r(truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> Influence:
    """Correlation of truth and prediction; NaN where either is constant."""
    if is_constant(truth) or is_constant(predicted, truth):
        return np.nan, np.zeros(len(truth))
    x, y = _standardised(predicted), _standardised(truth)
    r = float(np.mean(x * y))
    return r, x * y - r / 2 * (x**2 + y**2)


def r2(truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> Influence:
    """1 - squared errors over squared deviations from the test people's mean; NaN where the truth is constant."""
    if is_constant(truth):
        return np.nan, np.zeros(len(truth))
    error, spread = (truth - predicted) ** 2, (truth - truth.mean()) ** 2
    ratio = error.mean() / spread.mean()
    return float(1 - ratio), (ratio * spread - error) / spread.mean()


def calibration_slope(truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> Influence:
    """Slope of truth on prediction, 1 if calibrated; NaN where either is constant, or predictions nearly so.

    A prediction of the mean for everybody, but for a trace of noise, would have a slope of thousands.
    """
    if is_constant(truth) or np.std(predicted) < LEAST_SPREAD * np.std(truth):
        return np.nan, np.zeros(len(truth))
    x, y = predicted - predicted.mean(), truth - truth.mean()
    slope = float((x * y).sum() / (x**2).sum())
    return slope, x * (y - slope * x) / (x**2).mean()


def is_constant(values: np.ndarray, *beside: np.ndarray) -> bool:
    """Whether values differ only by rounding errors, relative to their own size or to that of given values."""
    values = np.asarray(values, np.float64)
    return bool(np.ptp(values) <= 1e-12 * max(float(np.abs(one).max()) for one in (values, *beside)))


def _mean(values: np.ndarray) -> Influence:
    values = values.astype(np.float64)
    return float(values.mean()), values - values.mean()


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


#: Every metric by its name: of truth, predictions (both (m,)) and scores, (m, K) or (m, 1).
INFLUENCES: Final[Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Influence]]] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            accuracy, f1, f1_negative, macro_f1, balanced_accuracy, auroc, mae, pearson_r, r2, calibration_slope,
        )
    }
)  # fmt: skip
