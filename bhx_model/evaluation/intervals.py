"""Confidence intervals of metrics over subjects and splits, paired differences, Holm's correction. Needs no torch.

What is estimated is the performance, among all people like these, of a method that is trained on as many of them: a mean
over training sets and people. The estimate is the mean over splits. It varies because the people are a sample and
because few splits were drawn; splits share people, so their scores are correlated, and a spread over splits says
neither. The variance is put together from people (`_people_per_score`):

* Within a split, one person's influence on the metric has a variance (`influence`), about that of a proportion
  for an accuracy.
* Two splits that test the same person share what that person is like, but not all, since the models differ.
* A person who is tested in one split and trains the other, while another is the reverse, ties both scores again: with weak
  or no effects cross-validated scores spread more than as many independent people would (for a linear
  score on noise by 2 x share of training, here 1.2 times).

How much of one and of the other is read from how consistently the same person is predicted in several splits, shrunk to
one half where few are tested twice. Many splits of the same n people then give about n people, one split its own test
people, one test set scored by many models its people once: the correction of Nadeau and Bengio (Machine Learning 52,
2003) by what was really shared.
"""

# Shapes: J splits, P people of all, m test people of a split

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from bhx_model.errors import DataError
from bhx_model.evaluation import prediction_file
from bhx_model.evaluation.influence import INFLUENCES, Influence
from bhx_model.evaluation.metrics import METRICS

#: Share of the probability that intervals hold.
LEVEL: Final = 0.95

#: Metrics that count decisions, not how far scores are from them.
_DECIDED: Final = frozenset({"accuracy", "balanced_accuracy", "f1", "f1_negative", "macro_f1"})

#: Metrics that compare people with each other: of a group of m they vary as much as of m - 1.
_COMPARED: Final = frozenset({"auroc", "pearson_r", "r2", "calibration_slope"})


@dataclasses.dataclass(frozen=True)
class Run:
    """One split of one row of a table: what was predicted of its test people, and who trained it."""

    people: np.ndarray
    """(m,) str, `cohort/subject` of the test people."""
    truth: np.ndarray
    """(m,) class numbers or values."""
    predicted: np.ndarray
    """(m,)"""
    scores: np.ndarray
    """(m, classes) probabilities or (m, 1) values."""
    train: np.ndarray
    """(n,) str, people on whom it was fitted."""
    everybody: np.ndarray | None = None
    """Truth of all people of the cohorts that are tested, if known: whether classes were kept in proportion."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over splits and its 95 % interval, in the metric's unit in ``metrics.json``."""

    point: float | None
    """None if the metric does not exist in any split."""
    low: float | None
    high: float | None
    """None if there is no point, or one test person alone from whom no spread can be told."""
    n_splits: int
    n_defined: int
    """Splits in which the metric exists."""


@dataclasses.dataclass(frozen=True)
class Difference(Interval):
    """One row minus another on the same people and splits."""

    p: float | None
    """Two-sided, before any correction."""


def read_run(path: Path) -> Run:
    """Read the test people of a ``predictions.parquet``.

    Raises
    ------
    DataError
        If it is none.
    """
    return run_of(prediction_file.read(path))


def run_of(table: prediction_file.PredictionTable) -> Run:
    """Test people of predictions, and who trained."""
    people, test = table.people, table.of("test")
    return Run(
        people=people[test],
        truth=table.truth[test],
        predicted=table.prediction[test],
        scores=table.scores[test],
        train=people[table.of("train")],
        everybody=table.truth[np.isin(table.cohort, table.cohort[test])],
    )


def interval(runs: Sequence[Run], metric: str, values: Sequence[float | None] | None = None) -> Interval:
    """Mean of one metric over splits, with its interval; see `intervals`.

    Parameters
    ----------
    runs : sequence of Run
        One per split, at least one.
    metric : str
        Of `METRICS`.
    values : sequence of float or None, optional
        The metric of each split if it is not that of the test people as a whole (published code averages batches).
    """
    return _interval(runs, _shared(runs), metric, values)


def intervals(runs: Sequence[Run], metrics: Sequence[str]) -> dict[str, Interval]:
    """Mean of every metric over splits, with its interval, never of width zero.

    Parameters
    ----------
    runs : sequence of Run
        One per split, at least one.
    metrics : sequence of str
    """
    shared = _shared(runs)
    return {metric: _interval(runs, shared, metric, None) for metric in metrics}


def _interval(
    runs: Sequence[Run], shared: _Shared, metric: str, values: Sequence[float | None] | None
) -> Interval:
    of_people = [INFLUENCES[metric](run.truth, run.predicted, run.scores) for run in runs]
    return _combined(runs, shared, metric, of_people, values)


def combined(
    runs: Sequence[Run], metric: str, of_people: Sequence[Influence], groups: Sequence[int]
) -> Interval:
    """Interval of a metric that is computed otherwise, within groups of the test people for one.

    Parameters
    ----------
    runs : sequence of Run
        One per split, at least one.
    metric : str
        Of `METRICS`.
    of_people : sequence of Influence
        Of each split, the metric and the influences of its test people.
    groups : sequence of int
        Of each split, the number of groups in which its test people are compared with each other.
    """
    return _combined(runs, _shared(runs), metric, of_people, None, groups)


def _combined(
    runs: Sequence[Run],
    shared: _Shared,
    metric: str,
    of_people: Sequence[Influence],
    values: Sequence[float | None] | None,
    groups: Sequence[int] | None = None,
) -> Interval:
    given = [value for value, _ in of_people] if values is None else values
    known = {i: float(v) for i, v in enumerate(given) if v is not None and math.isfinite(v)}
    if not known:
        return Interval(None, None, None, len(runs), 0)
    kept = list(known)
    point = math.fsum(known.values()) / len(known)
    u = [of_people[i][1] for i in kept]
    n = _people_per_score(shared.of(kept), u, metric)
    if groups is not None and metric in _COMPARED:
        n *= float(np.mean([(len(runs[i].people) - groups[i]) / (len(runs[i].people) - 1) for i in kept]))
    low, high = _limits(metric, point, [runs[i] for i in kept], u, n)
    return Interval(point, low, high, len(runs), len(kept))


def difference(runs: Sequence[Run], others: Sequence[Run], metric: str) -> Difference:
    """By how much a metric of `runs` is above that of `others`, split by split on the same people.

    People whose predictions never differ say little of those who were not seen: two are added whose predictions are
    independent (what Agresti and Min, Statistics in Medicine 24, 2005, add to paired proportions).

    Raises
    ------
    DataError
        If they are not of the same people.
    """
    if len(runs) != len(others) or any(
        sorted(a.people) != sorted(b.people) for a, b in zip(runs, others, strict=False)
    ):
        raise DataError("rows of other people or splits cannot be compared: evaluate both on the same splits")
    deltas, u, spread, kept = [], [], [], []
    for i, (one, other) in enumerate(zip(runs, others, strict=True)):
        other = _in_order_of(other, one.people)
        a, u_a = INFLUENCES[metric](one.truth, one.predicted, one.scores)
        b, u_b = INFLUENCES[metric](other.truth, other.predicted, other.scores)
        if math.isfinite(a) and math.isfinite(b):
            deltas.append(a - b)
            u.append(u_a - u_b)
            spread += [
                _unit_variance(metric, run, value, [u_])
                for run, value, u_ in ((one, a, u_a), (other, b, u_b))
            ]
            kept.append(i)
    if not deltas:
        return Difference(None, None, None, len(runs), 0, None)
    point = math.fsum(deltas) / len(deltas)
    n = _people_per_score(_shared(runs).of(kept), u, metric)
    variance = (n * _variance(u) + 2 * 2 * float(np.mean(spread))) / (n + 2) / n
    if n < 2 or not variance > 0:
        return Difference(point, None, None, len(runs), len(deltas), None)
    from scipy import stats  # slow to import

    se, t = math.sqrt(variance), stats.t(n - 1)
    half = float(t.ppf((1 + LEVEL) / 2)) * se
    p = float(2 * t.sf(abs(point) / se))
    return Difference(point, point - half, point + half, len(runs), len(deltas), p)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979); None stays, uncounted."""
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        corrected[i] = largest
    return corrected


def _in_order_of(run: Run, people: np.ndarray) -> Run:
    place = {person: i for i, person in enumerate(run.people)}
    order = np.array([place[person] for person in people])
    return dataclasses.replace(
        run, people=people, truth=run.truth[order], predicted=run.predicted[order], scores=run.scores[order]
    )


def _variance(u: Sequence[np.ndarray]) -> float:
    """Variance of the influence of a person, over all splits."""
    degrees = sum(len(part) - 1 for part in u)
    return float(sum((part**2).sum() for part in u) / degrees) if degrees else 0.0


@dataclasses.dataclass(frozen=True)
class _Shared:
    """What splits have in common."""

    test_JP: np.ndarray
    """1 where a person is tested."""
    columns: list[np.ndarray]
    """Of each split, (m,) where its test people are among the P."""
    same_JJ: np.ndarray
    """Test people in common, over the product of their numbers."""
    train_JJ: np.ndarray
    """Share of training people in common."""
    swapped_JJ: np.ndarray
    """Pairs of people of whom each is tested in the split that the other trains, as `same_JJ`."""

    def of(self, kept: Sequence[int]) -> _Shared:
        """Of these splits alone."""
        both = np.ix_(kept, kept)
        return _Shared(
            self.test_JP[kept],
            [self.columns[j] for j in kept],
            self.same_JJ[both],
            self.train_JJ[both],
            self.swapped_JJ[both],
        )


def _shared(runs: Sequence[Run]) -> _Shared:
    groups = [group for run in runs for group in (run.people, run.train)]
    everybody, place = np.unique(np.concatenate(groups), return_inverse=True)
    ends = np.cumsum([len(group) for group in groups])[:-1]
    columns = np.split(place, ends)
    test_JP, train_JP = np.zeros((2, len(runs), len(everybody)))
    for j in range(len(runs)):
        test_JP[j, columns[2 * j]], train_JP[j, columns[2 * j + 1]] = 1, 1
    m, n = test_JP.sum(axis=1), np.maximum(train_JP.sum(axis=1), 1)
    crossed_JJ = test_JP @ train_JP.T
    return _Shared(
        test_JP=test_JP,
        columns=columns[::2],
        same_JJ=test_JP @ test_JP.T / np.outer(m, m),
        train_JJ=train_JP @ train_JP.T / np.sqrt(np.outer(n, n)),
        swapped_JJ=crossed_JJ * crossed_JJ.T / np.outer(m, m) / np.sqrt(np.outer(n, n)),
    )


def _people_per_score(shared: _Shared, u: Sequence[np.ndarray], metric: str) -> float:
    """Number of people, each tested once, whose mean would vary as much as the mean over splits does.

    Parameters
    ----------
    shared : _Shared
        Of J splits.
    u : sequence of (m,) ndarray
        Influences of their test people.
    metric : str
        Of `METRICS`.
    """
    u_JP = np.zeros(shared.test_JP.shape)
    for j, columns in enumerate(shared.columns):
        u_JP[j, columns] = u[j]
    others_JJ = ~np.eye(len(u), dtype=bool)
    in_common = float(shared.train_JJ[others_JJ].mean()) if len(u) > 1 else 0.0
    alike = _likeness(shared.test_JP, u_JP, in_common)
    share = (1 - alike) / (1 - in_common) if in_common < 1 else 0.0
    if share > 1:  # less alike than in proportion to who trained
        # two people share less of a decision, which is a sign, but more of a correlation, for which the length of the
        # weights does not count: (p - 1) / (p - 2) of p features without an effect. Of that, predictions show no more than
        # 1 + c (1 + c) / (2 p), where c of the training people are in common; and few people are unlike by chance. The
        # limit, which is that of p = 6, and how it shrinks with few people were set by the simulation on seed 0
        longest = 1.25 - 2 / float(shared.test_JP.sum(axis=1).mean())
        share = (
            1 / share
            if metric in _DECIDED
            else min(share, max(1.0, longest))
            if metric == "pearson_r"
            else 1.0
        )
    covariance_JJ = alike * shared.same_JJ + share * shared.swapped_JJ
    total = shared.same_JJ.trace() + covariance_JJ[others_JJ].sum()
    return float(len(u) ** 2 / total)


def _likeness(test_JP: np.ndarray, u_JP: np.ndarray, in_common: float) -> float:
    """Correlation of a person's influences in two splits: 1 if all models predict alike.

    Told from people who are tested several times. Ten are added, half of whose variance goes back to who trained, for
    there may be few.

    Parameters
    ----------
    test_JP : ndarray, (J, P)
        1 where a person is tested.
    u_JP : ndarray, (J, P)
        Influences, 0 elsewhere.
    in_common : float
        Share of training people that two splits have in common, their mean.
    """
    half = (1 + in_common) / 2
    times_P = test_JP.sum(axis=0)
    twice = times_P > 1
    variance = (u_JP**2).sum() / times_P.sum()
    if not twice.any() or variance == 0:
        return half
    products_P = (u_JP.sum(axis=0) ** 2 - (u_JP**2).sum(axis=0))[twice] / times_P[twice]
    found = float(products_P.sum() / (times_P[twice] - 1).sum() / variance)
    n = float(twice.sum())
    return min(1.0, max(0.0, (n * found + 10 * half) / (n + 10)))


def _unit_variance(metric: str, run: Run, value: float, u: Sequence[np.ndarray]) -> float:
    """Variance of one person's influence if the metric were `value`, not zero where few people happen to agree."""
    m = len(run.truth)
    if metric in ("mae", "r2", "calibration_slope"):
        spread = float(np.var(run.truth)) if metric == "mae" else 1.0
        return _variance(u) + spread / m**2
    if metric == "pearson_r":
        return (1 - ((m * value) / (m + 2)) ** 2) ** 2
    shrunk = (m * value + 2) / (m + 4)
    return shrunk * (1 - shrunk)


def _limits(
    metric: str, point: float, runs: Sequence[Run], u: Sequence[np.ndarray], n: float
) -> tuple[float | None, float | None]:
    """Limits of the interval of a metric that is as certain as of `n` people."""
    known = METRICS[metric]
    if metric == "pearson_r":
        return _fisher(point, runs, n)
    if known.unit == "percent":
        if metric == "auroc" and runs[0].scores.shape[1] == 2:
            return _area(point, runs, n)
        return _wilson(point, _proportion_people(metric, point, runs, u, n))
    return _from_spread(metric, point, runs, u, n)


def _wilson(p: float, n: float) -> tuple[float, float]:
    """Interval of a proportion of n people (Wilson, Journal of the American Statistical Association 22, 1927)."""
    z2 = _quantile() ** 2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def _proportion_people(
    metric: str, point: float, runs: Sequence[Run], u: Sequence[np.ndarray], n: float
) -> float:
    """Number of people of a proportion that varies as the metric does."""
    if metric == "accuracy":
        return _accuracy_people(point, runs, n)
    if metric == "balanced_accuracy":
        # as if the recalls of all classes were the mean: variances of few people who agree are zero
        share = []
        for run in runs:
            counts = np.unique_counts(run.truth.astype(np.int64)).counts
            share.append(len(counts) ** 2 / (len(run.truth) * (1 / counts).sum()))
        return n * float(np.mean(share))
    variance = _variance(u)
    return min(n, n * point * (1 - point) / variance) if variance > 0 else n


def _accuracy_people(accuracy: float, runs: Sequence[Run], n: float) -> float:
    """People of an accuracy: where classes are kept in proportion, their shares are known of all, not of the tested."""
    if not 0 < accuracy < 1:
        return n
    within = 0.0
    for run in runs:
        if run.everybody is None:
            return n
        m = len(run.truth)
        for c in np.unique(run.everybody):
            of, share = run.truth == c, float((run.everybody == c).mean())
            if abs(of.sum() - share * m) > 1 or not of.any():
                return n
            recall = float((run.predicted[of] == c).mean())
            known = of.sum()
            within += share * recall * (1 - recall) * known / max(1, known - 1) / len(runs)
    total = accuracy * (1 - accuracy)
    everybody = min(len(run.everybody) for run in runs if run.everybody is not None)
    return total / (min(within, total) / n + max(0.0, total - within) / max(n, everybody))


def _area(area: float, runs: Sequence[Run], n: float) -> tuple[float, float]:
    """Interval of an AUROC: the areas that are not refuted (Newcombe, Statistics in Medicine 25, 2006, method 5)."""
    from scipy import optimize

    counts = [(float((run.truth == 1).sum()), float((run.truth != 1).sum())) for run in runs]
    z2 = _quantile() ** 2

    def variance(a: float) -> float:
        """Of Hanley and McNeil, averaged over splits, for n people instead of those of a split."""
        of_pairs = (1 - a) / (2 - a) + a / (1 + a)
        each = [a * (1 - a) * (1 + ((p + q) / 2 - 1) * of_pairs) / (p * q) * (p + q) for p, q in counts]
        return float(np.mean(each)) / n

    def beyond(a: float) -> float:
        return (area - a) ** 2 - z2 * variance(a)

    inside = min(1 - 1e-9, max(1e-9, area))  # at 0 and at 1 there is no variance
    low = 0.0 if area <= 0 else optimize.root_scalar(beyond, bracket=(0.0, inside)).root
    high = 1.0 if area >= 1 else optimize.root_scalar(beyond, bracket=(inside, 1.0)).root
    return low, high


def _fisher(r: float, runs: Sequence[Run], n: float) -> tuple[float | None, float | None]:
    """Interval of a correlation, by Fisher's z; a split of m people varies as one of m - 1."""
    from scipy import stats

    n = n * float(np.mean([1 - 1 / len(run.truth) for run in runs]))
    if n <= 1:
        return None, None
    limit = 1 - 1 / (n + 2) ** 2  # a perfect correlation of few people is no certainty
    z = math.atanh(max(-limit, min(limit, r)))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) / math.sqrt(n)
    return min(r, math.tanh(z - half)), max(r, math.tanh(z + half))


def _from_spread(
    metric: str, point: float, runs: Sequence[Run], u: Sequence[np.ndarray], n: float
) -> tuple[float | None, float | None]:
    """Interval from the spread of influences; of errors on a scale of ratios, for they have a lower limit."""
    from scipy import stats

    if n <= 1:
        return None, None
    floor = float(np.mean([np.var(run.truth) for run in runs])) if metric == "mae" else 1.0
    se = math.sqrt(_variance(u) / n + floor / n**2 / 4)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * se
    if se <= 1e-9 * abs(point):  # everybody's error is the same but for rounding: no spread can be told
        return None, None
    errors = {"mae": point, "r2": 1 - point}.get(metric)
    if not errors:
        known = METRICS[metric]
        return max(known.lowest, point - half), min(known.highest, point + half)
    low, high = errors * math.exp(-half / errors), errors * math.exp(half / errors)
    return (low, high) if metric == "mae" else (1 - high, 1 - low)


def _quantile() -> float:
    from scipy import special

    return float(special.ndtri((1 + LEVEL) / 2))
