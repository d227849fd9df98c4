"""The metrics of endpoints: their definitions, and their values over a data set. Needs no torch.

A metric is never averaged over batches here, since that would depend on their order.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from bhx_model.evaluation import influence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric as tables and figures show it; ``metrics.json`` holds fractions where `unit` is percent."""

    name: str
    """Key in ``metrics.json``."""
    label: str
    endpoints: Literal["classification", "binary", "regression"]
    unit: Literal["percent", "1", "of the label"]
    lowest: float
    """Lowest possible value, in `unit`."""
    highest: float
    better: Literal["higher", "lower"] = "higher"
    decimals: int | None = None
    """Decimals to print; None: as many as give three significant digits."""
    of_constants: bool = True
    """Whether it is defined for a constant prediction."""

    @property
    def factor(self) -> float:
        """From a value in ``metrics.json`` to one in `unit`."""
        return 100.0 if self.unit == "percent" else 1.0

    @property
    def heading(self) -> str:
        """Label with the unit, for columns and axes."""
        return f"{self.label} (%)" if self.unit == "percent" else self.label


def _percent(
    name: str, label: str, endpoints: Literal["classification", "binary"] = "classification"
) -> Metric:
    return Metric(
        name=name, label=label, endpoints=endpoints, unit="percent", lowest=0, highest=100, decimals=1
    )


_ALL = (
    _percent("accuracy", "Accuracy"),
    _percent("f1", "F1"),
    _percent("f1_negative", "F1 of the negative class", "binary"),
    _percent("macro_f1", "Macro F1"),
    _percent("balanced_accuracy", "Balanced accuracy"),
    _percent("auroc", "AUROC"),
    Metric(
        name="mae", label="MAE", endpoints="regression", unit="of the label", lowest=0, highest=math.inf,
        better="lower",
    ),
    Metric(
        name="pearson_r", label="Pearson r", endpoints="regression", unit="1", lowest=-1, highest=1, decimals=2,
        of_constants=False,
    ),
    Metric(name="r2", label="R2", endpoints="regression", unit="1", lowest=-math.inf, highest=1, decimals=2),
    Metric(
        name="calibration_slope", label="Calibration slope", endpoints="regression", unit="1", lowest=-math.inf,
        highest=math.inf, decimals=2, of_constants=False,
    ),
)  # fmt: skip

#: Every metric by its name, in the order of the tables' columns.
METRICS: Final[Mapping[str, Metric]] = MappingProxyType({metric.name: metric for metric in _ALL})


def metrics_of(kind: str) -> tuple[str, ...]:
    """Names of the metrics by which an endpoint of `kind` (binary, multiclass, regression) is scored."""
    endpoints = {"regression"} if kind == "regression" else {"classification", kind}
    return tuple(name for name, metric in METRICS.items() if metric.endpoints in endpoints)


def classification(
    truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray, n_classes: int
) -> dict[str, float | None]:
    """Metrics of a classifier, as fractions of 1; None where one does not exist.

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
        there are two, else the mean over classes weighted by their frequency), of two classes ``f1_negative`` (of
        class 0), ``macro_f1`` (mean over classes that occur or are named; an F1 is 0 where nobody is of a class and
        nobody named it); ``auroc`` (of class 1 if there are two, else the mean of one class against the rest, over
        those that have subjects and not every subject).
    """
    from sklearn import metrics as sklearn_metrics  # slow to import, and tables need `METRICS` only

    truth, predicted = np.asarray(truth), np.asarray(predicted)
    present = np.unique(truth)
    average = "binary" if n_classes == 2 else "weighted"
    none_is: Any = 0  # the stubs know the default only
    # a binary area ranks by the difference, so that scores need not add up to one
    columns = {1: scores[:, 1] - scores[:, 0]} if n_classes == 2 else {c: scores[:, c] for c in present}
    areas = [
        sklearn_metrics.roc_auc_score(truth == c, score)
        for c, score in columns.items()
        if 0 < (truth == c).sum() < len(truth)
    ]
    negative = sklearn_metrics.f1_score(truth == 0, predicted == 0, zero_division=none_is)
    return {
        "accuracy": float(sklearn_metrics.accuracy_score(truth, predicted)),
        "balanced_accuracy": float(
            sklearn_metrics.recall_score(
                truth, predicted, labels=present, average="macro", zero_division=none_is
            )
        ),
        "f1": float(sklearn_metrics.f1_score(truth, predicted, average=average, zero_division=none_is)),
        **({"f1_negative": float(negative)} if n_classes == 2 else {}),
        "macro_f1": float(sklearn_metrics.f1_score(truth, predicted, average="macro", zero_division=none_is)),
        "auroc": float(np.mean(areas)) if areas else None,
    }


def f1_of_classes(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """F1 of every class by its name; 0 if no subject is of the class or predicted to be."""
    return {
        name: influence.f1_of(np.asarray(truth), np.asarray(predicted), number)[0]
        for number, name in enumerate(classes)
    }


def regression(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float | None]:
    """Metrics of a regression; None where one does not exist.

    Returns
    -------
    dict
        ``mae`` (in units of the truth), ``pearson_r``, ``r2``, ``calibration_slope`` (of truth on prediction). The
        second and last do not exist for constant predictions, all but the first not for constant truth.
    """
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    found = {
        name: influence.INFLUENCES[name](truth, predicted, predicted[:, None])[0]
        for name in metrics_of("regression")
    }
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def constant_prediction(
    kind: str, train: Sequence[float], test: Sequence[float], n_classes: int
) -> dict[str, float | None]:
    """Metrics on `test` of a predictor without data: the commonest class, or the mean, of `train`.

    Of two classes, ``f1_all_positive`` is the F1 of one that calls everybody positive: the F1 of class 1 that needs no data.
    """
    if kind == "regression":
        return regression(np.asarray(test), np.full(len(test), np.mean(train)))
    counts = np.bincount(np.asarray(train, np.int64), minlength=n_classes)
    commonest = int(counts.argmax())
    scores = np.tile(counts / counts.sum(), (len(test), 1))
    truth = np.asarray(test, np.int64)
    found = classification(truth, np.full(len(test), commonest), scores, n_classes)
    if n_classes == 2:
        found["f1_all_positive"] = influence.f1_of(truth, np.ones_like(truth), 1)[0]
    return found


def selection_loss(truth: np.ndarray, scores: np.ndarray, n_classes: int) -> float:
    """What penalties and epochs are chosen by: smooth, where the accuracy of a few subjects is not.

    Parameters
    ----------
    truth : ndarray, (n,)
        Class numbers or values.
    scores : ndarray, (n, n_classes) probabilities or (n, 1) predictions
    n_classes : int
        0 for a regression.

    Returns
    -------
    float
        Negative log likelihood, or mean squared error.
    """
    if n_classes:
        return float(-np.log(np.clip(scores[np.arange(len(truth)), truth], 1e-12, 1)).mean())
    return float(((scores[:, 0] - truth) ** 2).mean())
