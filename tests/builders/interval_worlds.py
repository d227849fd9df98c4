"""A population, people drawn from it, and a ridge regression on random splits of them: what intervals have to hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from bhx_model.evaluation.influence import INFLUENCES
from bhx_model.evaluation.intervals import Run, intervals

# Shapes: n people, p features, J splits

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
SCORED = {"binary": ("accuracy", "auroc"), "regression": ("mae", "pearson_r")}


@dataclasses.dataclass(frozen=True)
class World:
    """A population with `features`, of which the first alone says something of the label."""

    kind: Literal["binary", "regression"]
    effect: float
    """Distance of the classes in standard deviations, or correlation with the label; 0: nothing can be predicted."""
    features: int

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, p) and labels (n,) of people."""
        x = rng.standard_normal((n, self.features))
        if self.kind == "binary":
            y = (rng.random(n) < 0.5).astype(np.int64)
            x[:, 0] += self.effect * (y - 0.5)
            return x, y
        return x, self.effect * x[:, 0] + np.sqrt(1 - self.effect**2) * rng.standard_normal(n)

    def predict(self, x: np.ndarray, weights: np.ndarray, offset: float) -> tuple[np.ndarray, np.ndarray]:
        """Predictions (n,) and scores (n, 2) or (n, 1)."""
        value = x @ weights + offset
        if self.kind == "regression":
            return value, value[:, None]
        return (value > 0).astype(np.int64), np.column_stack([-value, value])


@dataclasses.dataclass(frozen=True)
class Coverage:
    """How often the intervals of one metric held the truth."""

    metric: str
    n: int
    n_splits: int
    truth: float
    covered: float
    above: float
    """Share of intervals that lie above the truth."""
    width: float


def _split(y: np.ndarray, strata: bool, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Numbers of 60 % train, 20 % validation and 20 % test people, classes kept together in proportion."""
    groups = [np.flatnonzero(y == c) for c in np.unique(y)] if strata else [np.arange(len(y))]
    parts = []
    for group in groups:
        order = rng.permutation(group)
        parts.append(np.split(order, [round(0.6 * len(order)), round(0.8 * len(order))]))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _fit(x: np.ndarray, y: np.ndarray, train: np.ndarray, val: np.ndarray) -> tuple[np.ndarray, float]:
    """Ridge regression on the training people with the penalty that is best on the validation people."""
    centre, mean = x[train].mean(axis=0), y[train].mean()
    a = x[train] - centre
    values, vectors = np.linalg.eigh(a.T @ a)
    turned = vectors.T @ (a.T @ (y[train] - mean))
    weights = [vectors @ (turned / (values + s * len(train))) for s in STRENGTHS]
    losses = [((y[val] - mean - (x[val] - centre) @ w) ** 2).sum() for w in weights]
    best = weights[int(np.argmin(losses))]
    return best, float(mean - centre @ best)


def fitted_runs(
    world: World, n: int, n_splits: int, rng: np.random.Generator, population: tuple | None = None
) -> list[Run]:
    """Draw n people, split them, fit and predict; with `population`, its predictions by the first model come last."""
    x, y = world.draw(n, rng)
    target = 2.0 * y - 1 if world.kind == "binary" else y
    runs = []
    for j in range(n_splits):
        train, val, test = _split(y, world.kind == "binary", rng)
        model = _fit(x, target, train, val)
        runs.append(Run(test, y[test], *world.predict(x[test], *model), train, y))
        if j == 0 and population is not None:
            whole = Run(
                np.arange(len(population[1])), population[1], *world.predict(population[0], *model), train
            )
    return [*runs, whole] if population is not None else runs


def coverage(
    world: World, *, n: int, n_splits: Sequence[int], repeats: int, seed: int, population: int = 20_000
) -> list[Coverage]:
    """Repeat a study and count the intervals that hold the truth, the mean over training sets on other people.

    Parameters
    ----------
    world : World
    n : int
        People of a study, drawn anew in every repeat.
    n_splits : sequence of int
        Of the largest, the first so many are taken.
    repeats, seed : int
    population : int
        People on whom a model's true performance is computed.
    """
    rng = np.random.default_rng([seed, n, world.features, round(100 * world.effect)])
    everybody = world.draw(population, rng)
    names = SCORED[world.kind]
    truths: dict[str, list[float]] = {name: [] for name in names}
    found: dict[tuple[str, int], list] = {(name, j): [] for name in names for j in n_splits}
    for _ in range(repeats):
        *runs, whole = fitted_runs(world, n, max(n_splits), rng, everybody)
        for name in names:
            truths[name].append(INFLUENCES[name](whole.truth, whole.predicted, whole.scores)[0])
        for j in n_splits:
            for name, one in intervals(runs[:j], names).items():
                found[name, j].append((one.low, one.high))
    rows = []
    for (name, j), limits in found.items():
        truth = float(np.nanmean(truths[name]))
        low, high = np.array([pair for pair in limits if pair[0] is not None], float).T
        held, above = np.mean((low <= truth) & (truth <= high)), np.mean(low > truth)
        rows.append(Coverage(name, n, j, truth, float(held), float(above), float(np.mean(high - low))))
    return rows
