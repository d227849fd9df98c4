"""Statistics of a row: mean, spread and interval of its scores, and its paired difference to another row."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from bhx_model.evaluation import intervals
from bhx_model.evaluation.metrics import METRICS, classification, regression
from bhx_prep.report.tables.scores import Score

Key = TypeVar("Key", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A metric of a row, in the metric's unit; `note` says what is not as usual. `p` is of differences."""

    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    note: str
    p: float | None = None


def estimates(scores: Sequence[Score], metrics: Sequence[str]) -> dict[str, Estimate]:
    """Mean, SD over splits, and the interval that holds for people and splits together, of each metric of a row.

    Parameters
    ----------
    scores : Sequence[Score]
        One per split.
    metrics : Sequence[str]
    """
    runs = [intervals.run_of(score.predictions) for score in scores]
    batched = any(score.values.get("scores_over") == "batches" for score in scores)
    if batched:  # the published code averages the metrics of batches: not those of the predictions as a whole
        found = {
            m: intervals.interval(runs, m, [score["metrics"].get(m) for score in scores]) for m in metrics
        }
    else:
        found = intervals.intervals(runs, metrics)
    out = {}
    for metric, of in found.items():
        factor = METRICS[metric].factor
        values = [
            factor * v for s in scores if (v := s["metrics"].get(metric)) is not None and math.isfinite(v)
        ]
        out[metric] = Estimate(
            mean=_times(of.point, factor),
            sd=statistics.stdev(values) if len(values) > 1 and of.n_defined > 1 else None,
            low=_times(of.low, factor),
            high=_times(of.high, factor),
            note=_note(of.n_defined, of.n_splits),
        )
    return out


def of_interval(found: intervals.Interval, metric: str) -> Estimate:
    """An interval in the metric's unit."""
    factor = METRICS[metric].factor
    mean, low, high = (_times(value, factor) for value in (found.point, found.low, found.high))
    return Estimate(mean, None, low, high, _note(found.n_defined, found.n_splits))


def difference(scores: Sequence[Score], others: Sequence[Score], metric: str) -> Estimate:
    """By how much a row is above another on the same people and splits.

    Parameters
    ----------
    scores, others : Sequence[Score]
        One per split, in the same order.
    metric : str
    """
    one, other = ([intervals.run_of(s.predictions) for s in of] for of in (scores, others))
    found = intervals.difference(one, other, metric)
    of = of_interval(found, metric)
    widest = METRICS[metric].highest - METRICS[metric].lowest  # no difference is larger
    low = None if of.low is None else max(of.low, -widest)
    high = None if of.high is None else min(of.high, widest)
    return dataclasses.replace(of, low=low, high=high, p=found.p)


def with_holm(found: Mapping[Key, Estimate]) -> dict[Key, Estimate]:
    """The same differences with p-values corrected for their number."""
    corrected = intervals.holm([of.p for of in found.values()])
    return {key: dataclasses.replace(of, p=p) for (key, of), p in zip(found.items(), corrected, strict=True)}


def constant(score: Score) -> Score:
    """The constant prediction on the same split: the commonest class, or the mean, of its training subjects."""
    table = score.predictions
    train = table.truth[table.of("train")]
    if score["kind"] == "regression":
        return _same_for_all(score, float(train.mean()), train.mean(keepdims=True))
    shares = np.bincount(train.astype(int), minlength=table.scores.shape[1]) / len(train)
    return _same_for_all(score, float(shares.argmax()), shares)


def all_positive(score: Score) -> Score:
    """Class 1 for everybody on the same split: the F1 of class 1 that needs no data."""
    return _same_for_all(score, 1.0, np.array([0.0, 1.0]))


def _same_for_all(score: Score, predicted: float, scores: np.ndarray) -> Score:
    """One prediction for every subject of a split, with its metrics."""
    table = score.predictions
    n = len(table.truth)
    predictions = dataclasses.replace(table, prediction=np.full(n, predicted), scores=np.tile(scores, (n, 1)))
    test = table.of("test")
    truth, of_test = table.truth[test], predictions.prediction[test]
    found = (
        regression(truth, of_test)
        if score["kind"] == "regression"
        else classification(truth.astype(int), of_test.astype(int), predictions.scores[test], len(scores))
    )
    values = {**score.values, "metrics": found, "scores_over": "dataset"}
    return Score(score.path, values, predictions)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None or not math.isfinite(value) else value * factor


def _note(defined: int, splits: int) -> str:
    if not defined:
        return "undefined"
    return f"undefined in {splits - defined} of {splits} seeds" if defined < splits else ""
