"""Detect the ROI order of a cohort's series by comparing their connectivity with the atlas's in every known order.

Two things are known of connectivity without believing a name. HCP's subjects have it for Schaefer's atlas of up to 400
parcels; and in every brain it falls off with distance, to the ROI itself and to its mirror image. What the rows of a table
share because they stand near each other in it is taken out first: neighbours in one order are often neighbours in another,
and simulated series are often smooth over rows. Then the right order stands out: on real runs no other reaches half of its
correlation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from bhx_prep.atlas.reference import Reference
from bhx_prep.brain_maps.gradients import connectivity

#: Distance (mm) at which the geometric expectation falls to 1 / e.
REACH_MM: Final = 20.0
#: Least correlation of an order that counts as fitting, by reference: in these units,
#: several have to reach 1 on average, and each of them half.
LEAST: Final = {"the connectivity of HCP": 0.2, "the distance of the ROIs": 0.1}
#: An order is preferred where no other reaches this share of its correlation,
SHARE: Final = 0.6
#: or this one where it lets expect nearly the same,
MOST_SHARE: Final = 0.85
#: and is so many standard deviations below it, of rows in random order.
MARGIN_SD: Final = 6.0
#: Least difference of two correlations of a single run, whose connectivity is noisier.
RUN_DIFFERENCE: Final = 0.12
#: Share of the runs that stops a cohort when they are in another order than it states.
MOST_RUNS: Final = 0.1
#: Rows by which tables are found shifted: background or frame numbers first, or this many subcortical regions.
SHIFTS: Final = (1, 2, 14, 16, 19, 32, 50, 54)

#: Correlation of the ranks of names with their places above which a list of names is alphabetical but for a few.
ALMOST_SORTED: Final = 0.9

_N_RANDOM = 100

Verdict = Literal["confirmed", "unclear", "other", "skipped"]


@dataclass(frozen=True)
class Order:
    """An order in which series may be.

    Attributes
    ----------
    name : str
        In words that follow "the series are in".
    rows : ndarray, (R,) int
        ROI of the atlas, 0..R-1, that stands in each row; -1 where it is none of the atlas's.
    """

    name: str
    rows: np.ndarray


@dataclass
class Comparison:
    """How well series fit each order.

    Attributes
    ----------
    verdict : str
        ``confirmed``: the stated order fits best; ``other``: another one does; ``unclear``: none does; ``skipped``: nothing
        is known of the atlas's ROIs.
    stated, best : str
        Names of orders.
    correlations : dict
        Reference to order to correlation, as it is.
    beyond_rows : dict
        The same without what rows near each other in the table share. The first reference decides, the others have to
        agree.
    n_runs : int
        Runs that were compared.
    others : dict
        Order to the keys of the runs that by themselves are clearly in it, and not in the stated one.
    """

    verdict: Verdict
    stated: str
    best: str
    correlations: dict[str, dict[str, float]] = field(default_factory=dict)
    beyond_rows: dict[str, dict[str, float]] = field(default_factory=dict)
    n_runs: int = 0
    others: dict[str, list[str]] = field(default_factory=dict)


def known_orders(
    reference: Reference,
    hemisphere: Sequence[int],
    subcortical: Sequence[int] = (),
    names: Sequence[str] = (),
) -> list[Order]:
    """List the orders that series are found in, the stated one first.

    Parameters
    ----------
    reference : Reference
    hemisphere : sequence of int, (R,)
        0 left, 1 right; anything else is not known. May be empty.
    subcortical : sequence of int
        Labels, from 1, of the ROIs of the subcortex, rising.
    names : sequence of str, (R,)
        May be empty.
    """
    n = len(reference.centroids)
    rows = np.arange(n)
    orders = [Order(reference.stated, rows), *(Order(*other) for other in reference.others.items())]
    below = np.asarray(subcortical, np.int64) - 1
    cortex = np.setdiff1d(rows, below)
    sides = np.asarray(hemisphere)[cortex] if len(hemisphere) == n else np.full(cortex.size, -1)
    left, right = cortex[sides == 0], cortex[sides == 1]
    if left.size and right.size:
        cortex = cortex[(sides == 0) | (sides == 1)]
        for first, blocks in (("left", [left, right]), ("right", [right, left])):
            moved = _with_cortex(rows, cortex, np.concatenate(blocks))
            orders.append(Order(f"an order with the {first} hemisphere first", moved))
        if left.size == right.size:
            paired = np.stack([left, right], axis=1).ravel()
            orders.append(
                Order("an order in which left and right alternate", _with_cortex(rows, cortex, paired))
            )
    orders.append(Order("reversed order", rows[::-1]))
    if len(names) == n:
        # tables that were pivoted; where it is nearly the stated order, it would hide that one
        sorted_rows = np.argsort(np.asarray(names))
        if n > 2 and np.corrcoef(rows, sorted_rows)[0, 1] < ALMOST_SORTED:
            orders.append(Order("alphabetical order", sorted_rows))
    n_first = below.size if np.array_equal(below, rows[: below.size]) else 0
    if n_first:
        orders.append(Order("an order with the subcortex last", np.roll(rows, -n_first)))
    elif below.size and np.array_equal(below, rows[n - below.size :]):
        orders.append(Order("an order with the subcortex first", np.roll(rows, below.size)))
    # with the subcortex last, the cortex stands in the rows of a shift
    n_last = below.size if below.size and not n_first else 0
    for shift in sorted({*SHIFTS, below.size} - {0}):
        if shift <= n // 4:
            by = f"by {shift} row{'s' if shift > 1 else ''}"
            down, up = rows - shift, rows + shift
            if shift != n_last:
                orders.append(Order(f"the stated order shifted down {by}", np.where(down >= 0, down, -1)))
            if shift != n_first:
                orders.append(Order(f"the stated order shifted up {by}", np.where(up < n, up, -1)))
    return [order for k, order in enumerate(orders) if k == 0 or not np.array_equal(order.rows, rows)]


def _with_cortex(rows: np.ndarray, cortex: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Rows with the cortical ROIs in another order, and all others at their places."""
    changed = rows.copy()
    changed[cortex] = moved
    return changed


class Expected:
    """The connectivity that each order lets expect, prepared for many comparisons.

    Parameters
    ----------
    matrix : ndarray, (R, R)
        Of the atlas's ROIs; NaN where it is not known.
    orders : sequence of Order
    """

    def __init__(self, matrix: np.ndarray, orders: Sequence[Order]) -> None:
        self._pairs = np.triu_indices(len(matrix), 1)
        values = np.empty((len(orders), len(self._pairs[0])), np.float32)
        padded = np.pad(np.asarray(matrix, np.float64), (0, 1), constant_values=np.nan)
        padded = padded - np.nanmean(padded)
        for k, order in enumerate(orders):
            a, b = (order.rows[pair] for pair in self._pairs)
            values[k] = padded[a, b]  # -1 is the row of NaN
        self._known = np.isfinite(values).astype(np.float32)
        self._values = np.where(np.isfinite(values), values, np.float32(0))
        self._squares = np.square(self._values)

    def correlations(self, z: np.ndarray) -> np.ndarray:
        """Correlation of a connectivity (R, R; NaN where unknown) with that of each order, over pairs of ROIs."""
        v = z[self._pairs]
        known = np.isfinite(v).astype(np.float32)
        if not known.any():
            return np.zeros(len(self._values))
        v = np.where(known > 0, v - np.nanmean(v), 0).astype(np.float32)
        x, w = self._values, self._known
        n = np.maximum(w @ known, 1).astype(np.float64)
        sx, sv, sxv = x @ known, w @ v, x @ v
        sxx, svv = self._squares @ known, w @ np.square(v)
        covariance = sxv - sx * sv / n
        spread = np.sqrt(np.maximum(sxx - sx * sx / n, 0) * np.maximum(svv - sv * sv / n, 0))
        return np.divide(covariance, spread, out=np.zeros(len(n)), where=spread > 1e-12)


def expectations(reference: Reference) -> dict[str, np.ndarray]:
    """Expected connectivity (R, R) of the ROIs, by reference; the most informative first."""
    by_group, by_distance = LEAST
    expected = {}
    if np.isfinite(reference.group).any():
        expected[by_group] = reference.group
    places = reference.centroids.astype(np.float64)
    if np.isfinite(places).all(axis=1).sum() > 2:
        mirrored = places * [-1, 1, 1]
        near, across = (
            np.exp(-np.linalg.norm(places[:, None] - to[None], axis=2) / REACH_MM)
            for to in (places, mirrored)
        )
        expected[by_distance] = near + across
    return expected


def compare(
    reference: Reference,
    orders: Sequence[Order],
    runs: Iterable[tuple[str, np.ndarray]],
) -> Comparison:
    """Compare the mean connectivity of runs, and that of every one, with every order.

    Parameters
    ----------
    reference : Reference
    orders : sequence of Order
        The stated one first.
    runs : iterable of (str, ndarray of shape (R, T))
        Key and series.
    """
    stated = orders[0].name
    matrices = expectations(reference)
    expected = {name: Expected(matrix, orders) for name, matrix in matrices.items()}
    if not expected:
        return Comparison("skipped", stated, stated)
    main = next(iter(expected))
    n_rois = len(reference.centroids)
    total, count = np.zeros((n_rois, n_rois)), np.zeros((n_rois, n_rois), np.int64)
    of_runs: dict[str, np.ndarray] = {}
    for key, series in runs:
        z = connectivity(series)
        known = np.isfinite(z)
        total[known] += z[known]
        count += known
        of_runs[key] = expected[main].correlations(beyond_rows(z))
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    found = {name: one.correlations(beyond_rows(mean)) for name, one in expected.items()}
    sd = _random_sd(Expected(matrices[main], orders[:1]), mean)
    likely = int(np.argmax(found[main]))
    verdict, best = _decide(found, sd, _shares(expected[main], matrices[main], orders[likely], likely))
    others: dict[str, list[str]] = {}
    for key, r in of_runs.items():
        if (own := _run_prefers(r, LEAST[main], sd)) is not None:
            others.setdefault(orders[own].name, []).append(key)
    as_it_is = {name: one.correlations(mean) for name, one in expected.items()}
    comparison = Comparison(
        verdict,
        stated,
        orders[best].name,
        _by_order(as_it_is, orders),
        _by_order(found, orders),
        len(of_runs),
        others,
    )
    if verdict != "other" and others:
        most = max(others, key=lambda name: len(others[name]))
        if len(others[most]) > MOST_RUNS * len(of_runs):
            comparison.verdict, comparison.best = "other", most
    return comparison


def beyond_rows(z: np.ndarray) -> np.ndarray:
    """Connectivity (R, R) less its mean over all pairs of rows as far from each other in the table; NaN stays NaN."""
    apart = np.abs(np.subtract.outer(*[np.arange(len(z))] * 2))
    known = np.isfinite(z)
    total = np.bincount(apart[known], z[known], len(z))
    return z - (total / np.maximum(np.bincount(apart[known], minlength=len(z)), 1))[apart]


def _by_order(found: Mapping[str, np.ndarray], orders: Sequence[Order]) -> dict[str, dict[str, float]]:
    return {
        name: {order.name: round(float(value), 3) for order, value in zip(orders, r, strict=True)}
        for name, r in found.items()
    }


def _random_sd(expected: Expected, mean: np.ndarray) -> float:
    """Standard deviation of the correlation of rows in random order: large for few ROIs, or few frames."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(_N_RANDOM):
        rows = rng.permutation(len(mean))
        drawn.append(expected.correlations(mean[np.ix_(rows, rows)])[0])
    return float(np.std(drawn))


def _shares(expected: Expected, matrix: np.ndarray, best: Order, number: int) -> np.ndarray:
    """Share of the best order's correlation that each other one may reach, (orders,).

    An order that lets expect nearly the same, such as rows shifted by one among many small ROIs, correlates by as much
    even where the best one is right.
    """
    padded = np.pad(np.asarray(matrix, np.float64), (0, 1), constant_values=np.nan)
    alike = expected.correlations(beyond_rows(padded[np.ix_(best.rows, best.rows)]))
    return np.clip((1 + alike / max(alike[number], 1e-12)) / 2, SHARE, MOST_SHARE)


def _decide(found: Mapping[str, np.ndarray], sd: float, shares: np.ndarray) -> tuple[Verdict, int]:
    """Verdict, and the number of the order that fits best."""
    main = next(iter(found))
    best = int(np.argmax(found[main]))
    # one reference may be weak where the other is strong
    strengths = [found[name][best] / LEAST[name] for name in found]
    clear = _stands_out(found[main], 0, MARGIN_SD * sd, shares)
    agreed = all(int(np.argmax(r)) == best for r in found.values())
    if not (clear and agreed and min(strengths) >= 0.5 and np.mean(strengths) >= 1):
        return "unclear", best
    return ("other" if best else "confirmed"), best


def _stands_out(r: np.ndarray, least: float, difference: float, shares: np.ndarray | float = SHARE) -> bool:
    """Whether one order fits, and no other nearly as well."""
    best = int(np.argmax(r))
    first, others = r[best], np.arange(len(r)) != best
    near = (r > shares * first) | (first - r < difference)
    return bool(first >= least and not near[others].any())


def _run_prefers(r: np.ndarray, least: float, sd: float) -> int | None:
    """Number of the order that one run is clearly in, if it is not the stated one."""
    best = int(np.argmax(r))
    return best if best and _stands_out(r, least, max(RUN_DIFFERENCE, MARGIN_SD * sd)) else None


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Fields of the report."""
    return {
        "verdict": comparison.verdict,
        "stated": comparison.stated,
        "best": comparison.best,
        "correlations": comparison.correlations,
        "correlations_beyond_rows": comparison.beyond_rows,
        "runs_in_another_order": {name: sorted(keys) for name, keys in comparison.others.items()},
    }
