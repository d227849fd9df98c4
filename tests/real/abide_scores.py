"""Scores of rows about people, and their intervals over people and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bhx_model.evaluation import intervals, metrics, penalty
from bhx_model.evaluation.intervals import Interval, Run
from bhx_model.evaluation.labels import Labels
from bhx_prep.evaluation.baselines import span

#: Metrics of the tables, and how they are called there.
SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "AUC"}


@dataclass(frozen=True)
class Tested:
    """What a seed predicts of its test people."""

    target: np.ndarray
    """(n,) 0 or 1."""
    chance: Mapping[str, np.ndarray]
    """Row -> (n,) predicted probability of 1."""
    people: np.ndarray
    """(n,) who they are."""
    train: np.ndarray
    """Who was trained on."""

    def run(self, row: str) -> Run:
        """What a row predicts of them."""
        chance = self.chance[row]
        scores = np.stack([1 - chance, chance], axis=1)
        return Run(self.people, self.target, (chance > 0.5).astype(int), scores, self.train)


def fit(features: np.ndarray, labels: Labels) -> tuple[np.ndarray, float]:
    """Fit a logistic regression, its penalty chosen on the validation people, of which the loss is also returned.

    Returns
    -------
    chance : ndarray, (n,)
        Of class 1, for everybody.
    loss : float
        Negative log likelihood of the validation people.
    """
    train = labels.of("train")
    scores, _ = penalty.fit(span.coordinates(span.standardised(features, train), train), labels)
    val = labels.of("val")
    return scores[:, 1], metrics.selection_loss(labels.target[val], scores[val], labels.n_classes)


def cells(tested: Sequence[Tested], rows: Sequence[tuple[str, str | None]]) -> np.ndarray:
    """Mean over seeds of every row, or of a row minus another on the same people, with the 95 % interval of both.

    Parameters
    ----------
    tested : sequence of Tested
        One for each seed.
    rows : sequence of (str, str or None)
        A row, and which one to take off it.

    Returns
    -------
    ndarray, (rows, SCORES, 3)
        Mean, lower and upper end, as `bhx_model.evaluation.intervals` has them; NaN where there is none.
    """

    def of(row: str, other: str | None, metric: str) -> Interval:
        runs = [one.run(row) for one in tested]
        if other is None:
            return intervals.interval(runs, metric)
        return intervals.difference(runs, [one.run(other) for one in tested], metric)

    found = [[of(*row, metric) for metric in SCORES] for row in rows]
    return np.array([[(one.point, one.low, one.high) for one in of_row] for of_row in found], np.float64)


def table(title: str, names: Sequence[str], values: np.ndarray) -> str:
    """A Markdown table of what `cells` gives."""
    lines = [f"| {title} | {' | '.join(SCORES.values())} |", "| --- " * (len(SCORES) + 1) + "|"]
    for name, row in zip(names, values, strict=True):
        cells = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in row]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
