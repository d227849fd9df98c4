"""Scores of rows about people, and their intervals over people and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bhx_model.evaluation import metrics, penalty
from bhx_model.evaluation.labels import Labels
from bhx_prep.evaluation.baselines import span

SCORES = ("accuracy", "balanced accuracy", "AUC")
DRAWS = 2000


@dataclass(frozen=True)
class Tested:
    """What a seed predicts of its test people."""

    target: np.ndarray
    """(n,) 0 or 1."""
    chance: Mapping[str, np.ndarray]
    """Row -> (n,) predicted probability of 1."""


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


def score(target: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """`SCORES` of predicted probabilities, as fractions of 1; NaN where `target` is of one class."""
    said, n = chance > 0.5, len(target)
    right = said == (target == 1)
    n_1 = int(target.sum())
    if n_1 in (0, n):
        return np.full(len(SCORES), np.nan)
    recalls = right[target == 1].mean(), right[target == 0].mean()
    above = stats.rankdata(chance)[target == 1].sum() - n_1 * (n_1 + 1) / 2
    return np.array([right.mean(), np.mean(recalls), above / n_1 / (n - n_1)])


def intervals(
    tested: Sequence[Tested], rows: Sequence[tuple[str, str | None]], draws: int = DRAWS
) -> np.ndarray:
    """Mean over seeds of every row, or of a row minus another, with the 95 % interval over people and seeds together.

    In every draw seeds are drawn with replacement, and then of each its test people. Where seeds test different people
    that counts the people's share of the differences between seeds twice, so that intervals are wide rather than narrow.

    Parameters
    ----------
    tested : sequence of Tested
        One for each seed.
    rows : sequence of (str, str or None)
        A row, and which one to take off it: on the same people and seeds.

    Returns
    -------
    ndarray, (rows, SCORES, 3)
        Mean, lower and upper end.
    """
    random = np.random.default_rng(0)
    names = sorted({name for row in rows for name in row if name is not None})

    def of_seed(one: Tested, members: np.ndarray) -> dict[str, np.ndarray]:
        return {name: score(one.target[members], one.chance[name][members]) for name in names}

    def differences(found: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
        average = {name: np.nanmean([one[name] for one in found], axis=0) for name in names}
        return np.array([average[a] - (average[b] if b is not None else 0.0) for a, b in rows])

    mean = differences([of_seed(one, np.arange(len(one.target))) for one in tested])
    drawn = np.array([
        differences([
            of_seed(tested[seed], random.integers(len(tested[seed].target), size=len(tested[seed].target)))
            for seed in random.integers(len(tested), size=len(tested))
        ])
        for _ in range(draws)
    ])  # fmt: skip
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    return np.stack([mean, low, high], axis=-1)


def table(title: str, names: Sequence[str], values: np.ndarray) -> str:
    """A Markdown table of what `intervals` gives."""
    lines = [f"| {title} | {' | '.join(SCORES)} |", "| --- " * (len(SCORES) + 1) + "|"]
    for name, row in zip(names, values, strict=True):
        cells = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in row]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
