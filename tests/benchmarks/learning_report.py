"""Tables of `learning.py`: scores and differences with intervals, and what they mean for the goals.

Intervals are 95 % of a bootstrap over subjects and seeds together, not those of the tables of endpoints: there splits of one
study vary as their people do, here every seed trains an encoder of its own, whose luck no prediction shows. On the same five
seeds the tables' intervals were up to 3.5 times narrower. Part of `learning.py`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from learning_features import (
    ALL_PAIRS,
    ATTENTIVE,
    BOTH,
    COVARIANCE,
    FC,
    FUNCTION,
    FUNCTION_0,
    HUB,
    HUB_0,
    HUB_FUNCTION_0,
    MEAN,
    ONLINE,
    PLACES,
    STRUCTURE,
    STRUCTURE_0,
    Kind,
)
from learning_loss import LossScale
from scipy import stats

#: Endpoints and their measure; the last is of pairs of subjects.
DIAGNOSIS, COGNITION, HALVES = "diagnosis", "cognition", "cognition, half in each"
MEASURES = {DIAGNOSIS: "AUC", COGNITION: "r", HALVES: "r"}
READOUTS = (MEAN, PLACES, COVARIANCE, ATTENTIVE)
#: Differences that are printed, in the same readout.
DIFFERENCES = (
    (STRUCTURE, STRUCTURE_0),
    (FUNCTION, FUNCTION_0),
    (FUNCTION, ONLINE),
    (HUB, HUB_0),
    (HUB, HUB_FUNCTION_0),
    (HUB, STRUCTURE),
    (HUB, FUNCTION),
    (HUB, BOTH),
    (FUNCTION, FC),
    (HUB, FC),
)
#: What the goals ask for.
AUC_AHEAD, AUC_REACHED, R_AHEAD, LOSS_SCALE, SHUFFLED_RATIO = 0.05, 0.97, 0.10, 0.5, 1.05
FC_AUC, FC_R, FC_NUMBERS = 0.99, 0.88, 7980
DRAWS = 1000
SHUFFLED = "function: loss with ROIs shuffled / in order"


@dataclass(frozen=True)
class Found:
    """What one seed gives."""

    losses: dict[str, float]
    scale: LossScale
    described: dict[str, dict[str, float]]
    """What is described of tokens, or how far they moved, by encoder."""
    predicted: dict[str, dict[Kind, np.ndarray]]
    """Endpoint, then what is read, to the predictions for subjects who were not fitted."""
    numbers: dict[Kind, int]
    """How many numbers are read."""


def to_json(found: Found) -> dict[str, Any]:
    """What is kept of a seed."""
    predicted = {
        e: [[*kind, p.tolist()] for kind, p in by_kind.items()] for e, by_kind in found.predicted.items()
    }
    numbers = [[*kind, n] for kind, n in found.numbers.items()]
    return dataclasses.asdict(found) | {"predicted": predicted, "numbers": numbers}


def from_json(text: str) -> Found:
    """Read what was kept of a seed."""
    about = json.loads(text)
    predicted = {
        e: {(source, how): np.array(p) for source, how, p in rows} for e, rows in about["predicted"].items()
    }
    numbers = {(source, how): n for source, how, n in about["numbers"]}
    return Found(about["losses"], LossScale(**about["scale"]), about["described"], predicted, numbers)


def score(endpoint: str, target: np.ndarray, predicted: np.ndarray) -> float:
    """Area under the curve, or correlation."""
    if endpoint == DIAGNOSIS:
        # by ranks: sklearn's takes ten times as long, and there are a thousand draws
        n = int(target.sum())
        above = stats.rankdata(predicted)[target == 1].sum() - n * (n + 1) / 2
        return float(above / n / (len(target) - n))
    return float(np.corrcoef(target, predicted)[0, 1])


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and the same of draws of subjects and seeds."""

    mean: float
    draws: np.ndarray

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.mean - other.mean, self.draws - other.draws)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %."""
        low, high = np.percentile(self.draws, (2.5, 97.5))
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:.3f} [{low:.3f}, {high:.3f}]"


def estimate(endpoint: str, target: np.ndarray, predicted: Sequence[np.ndarray]) -> Estimate:
    """Score of the predictions of each seed; the same subjects and seeds are drawn for whatever is read."""
    random = np.random.default_rng(0)
    n, n_seeds = len(target), len(predicted)
    mean = float(np.mean([score(endpoint, target, one) for one in predicted]))
    draws = np.zeros(DRAWS)
    for number in range(DRAWS):
        subjects, seeds = random.integers(n, size=n), random.integers(n_seeds, size=n_seeds)
        drawn, counts = np.unique(seeds, return_counts=True)
        scores = [score(endpoint, target[subjects], predicted[seed][subjects]) for seed in drawn]
        draws[number] = np.average(scores, weights=counts)
    return Estimate(mean, draws)


Estimates = dict[str, dict[Kind, Estimate]]


def estimates(
    target: Mapping[str, np.ndarray], found: Sequence[Found], fc: Mapping[str, Mapping[Kind, np.ndarray]]
) -> Estimates:
    """Estimates of all that is read, by endpoint. Connectivity has no seed: it is that of all of them."""
    result: Estimates = {}
    for endpoint in MEASURES:
        own = {kind: [f.predicted[endpoint][kind] for f in found] for kind in found[0].predicted[endpoint]}
        own |= {kind: [one] * len(found) for kind, one in fc.get(endpoint, {}).items()}
        result[endpoint] = {kind: estimate(endpoint, target[endpoint], p) for kind, p in own.items()}
    return result


def over_seeds(values: Sequence[float]) -> str:
    """Mean and 95 % interval of Student's t over seeds, then each seed: two cells."""
    mean, cells = np.mean(values), " ".join(f"{v:.3f}" for v in values)
    if len(values) < 2:
        return f"{mean:.3f} | {cells}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}] | {cells}"


def print_losses(found: Sequence[Found]) -> None:
    """Losses, the scale, and what is described of encoders and tokens, with one row for each."""
    head = "| mean [95 % of seeds] | each seed |\n| --- | --- | --- |"
    print(f"| loss of subjects held out {head}")
    for what in found[0].losses:
        print(f"| {what} | {over_seeds([f.losses[what] for f in found])} |")
    print(f"\n| JEPA loss of subjects held out, masks in common {head}")
    rows = {
        "predicting the mean token": [f.scale.mean for f in found],
        "predicting the mean token of every ROI and time": [f.scale.place for f in found],
        "ridge regression": [f.scale.ridge for f in found],
        "the model": [f.scale.model for f in found],
        "the model, 0 the mean token and 1 the ridge regression": [f.scale.on_scale for f in found],
        "the mean token of every ROI and time, on this scale": [f.scale.place_on_scale for f in found],
    }
    for what, values in rows.items():
        print(f"| {what} | {over_seeds(values)} |")
    read = "; ".join(
        f"seed {i}: {f.scale.context}, penalty {f.scale.penalty:.1e}" for i, f in enumerate(found)
    )
    print(f"\nThe ridge regression reads, of {found[0].scale.fitted_on} subjects: {read}.")
    beyond = [i for i, f in enumerate(found) if f.scale.on_scale > 1]
    if beyond:
        print(f"It predicts less well than the model, whose loss lies beyond 1, in seeds {beyond}.")
    print(f"\n| what became of encoders and tokens {head}")
    for name, described in found[0].described.items():
        for what in described:
            print(f"| {name}: {what} | {over_seeds([f.described[name][what] for f in found])} |")


def print_scores(found: Sequence[Found], known: Estimates, fc_numbers: Mapping[Kind, int]) -> None:
    """Scores of all that is read, and differences."""
    columns = " | ".join(f"{endpoint}, {measure}" for endpoint, measure in MEASURES.items())
    rule = "| --- " * (len(MEASURES) + 2) + "|"
    print(f"\n| probe | numbers | {columns} |\n{rule}")
    numbers = {**fc_numbers, **found[0].numbers}

    def row(name: str, n: str, cells: Sequence[Estimate | None]) -> None:
        print(f"| {name} | {n} | " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")

    order = {source: i for i, source in enumerate((FC, *SOURCES))}
    kinds = sorted(
        known[DIAGNOSIS], key=lambda kind: (order[kind[0]], -numbers[kind] if kind[0] == FC else 0)
    )
    for kind in kinds:
        row(", ".join(kind), f"{numbers[kind]:,}", [known[e].get(kind) for e in MEASURES])
    print(f"\n| difference | numbers | {columns} |\n{rule}")
    for one, other in DIFFERENCES:
        for readout in READOUTS:
            kind = (one, readout)
            if kind not in known[DIAGNOSIS]:
                continue
            against = {(FC, ALL_PAIRS), (FC, principal(numbers[kind]))} if other == FC else {(other, readout)}
            for second in sorted(against & known[DIAGNOSIS].keys()):
                cells = [
                    known[e][kind] - known[e][second] if {kind, second} <= known[e].keys() else None
                    for e in MEASURES
                ]
                name = f"{one} - {', '.join(second) if other == FC else other}, {readout}"
                row(name, f"{numbers[kind]:,}", cells)


SOURCES = (STRUCTURE, STRUCTURE_0, FUNCTION, FUNCTION_0, ONLINE, HUB, HUB_FUNCTION_0, HUB_0, BOTH)


def principal(n: int) -> str:
    """Name of connectivity reduced to `n` numbers."""
    return f"{n:,} principal components"


def yes(holds: bool) -> str:
    """Say whether something holds."""
    return "**yes**" if holds else "**no**"


#: What is asked for, whether it is reached, and by what.
Goal = tuple[str, bool, str]


def print_goals(found: Sequence[Found], known: Estimates) -> None:
    """State for each goal whether it is reached, from the intervals and the thresholds."""
    print("\n| goal | reached | by |\n| --- | --- | --- |")
    for name, reached, by in (*_ahead_of_untrained(known), *_of_losses(found), _of_hub_tokens(known)):
        print(f"| {name} | {yes(reached)} | {by} |")
    print("| the same on real people | not measured here | tests/real/abide --function |")
    name, reached, by = _with_few_numbers(found, known)
    print(f"| {name} | {yes(reached)} | {by} |")


def _ahead_of_untrained(known: Estimates) -> Iterator[Goal]:
    """Function tokens ahead of untrained ones, read in the same way, and as these are read best."""
    auc, r = known[DIAGNOSIS], known[COGNITION]
    readouts = [readout for readout in READOUTS if (FUNCTION, readout) in auc]
    best = {
        e: max((known[e][FUNCTION_0, k] for k in readouts), key=lambda x: x.mean)
        for e in (DIAGNOSIS, COGNITION)
    }
    for what, against in (
        ("untrained ones read in the same way", None),
        ("the untrained ones that are read best", best),
    ):
        passed, said = [], []
        for readout in readouts:
            one, other = (FUNCTION, readout), (FUNCTION_0, readout)
            by_auc = auc[one] - (against[DIAGNOSIS] if against else auc[other])
            by_r = r[one] - (against[COGNITION] if against else r[other])
            ahead = by_auc.interval[0] > 0 and (by_auc.mean >= AUC_AHEAD or auc[one].mean >= AUC_REACHED)
            if ahead and by_r.interval[0] > 0 and by_r.mean >= R_AHEAD:
                passed.append(readout)
            said.append(f"{readout}: {by_auc} of AUC to {auc[one].mean:.3f}, {by_r} of r")
        yield (
            f"function tokens ahead of {what}: AUC by {AUC_AHEAD} or to {AUC_REACHED}, and r by {R_AHEAD:.2f}",
            bool(passed),
            f"{', '.join(passed) or 'no readout'} ({'; '.join(said)})",
        )


def _of_losses(found: Sequence[Found]) -> Iterator[Goal]:
    scale = np.array([f.scale.on_scale for f in found])
    yield (
        f"loss at least {LOSS_SCALE} on the scale",
        bool(scale.mean() >= LOSS_SCALE),
        f"mean {scale.mean():.3f}, {(scale >= LOSS_SCALE).sum()} of {len(scale)} seeds",
    )
    ratio = np.array([f.losses[SHUFFLED] for f in found])
    yield (
        f"shuffled ROIs raise the loss by at least {SHUFFLED_RATIO - 1:.0%}",
        bool(ratio.mean() >= SHUFFLED_RATIO),
        f"mean {ratio.mean() - 1:+.1%}, {(ratio >= SHUFFLED_RATIO).sum()} of {len(ratio)} seeds",
    )


def _of_hub_tokens(known: Estimates) -> Goal:
    passed, said = [], []
    for readout in (k for k in READOUTS if (HUB, k) in known[DIAGNOSIS]):
        by = {e: known[e][HUB, readout] - known[e][HUB_FUNCTION_0, readout] for e in (DIAGNOSIS, COGNITION)}
        if all(one.interval[0] > 0 for one in by.values()):
            passed.append(readout)
        said.append(f"{readout}: {by[DIAGNOSIS]} of AUC, {by[COGNITION]} of r")
    return (
        "hub tokens ahead of those over an untrained function encoder, on both endpoints",
        bool(passed),
        f"{', '.join(passed) or 'no readout'} ({'; '.join(said)})",
    )


def _with_few_numbers(found: Sequence[Found], known: Estimates) -> Goal:
    auc, r = known[DIAGNOSIS], known[COGNITION]
    kinds = [k for k in auc if k[0] in (FUNCTION, HUB) and found[0].numbers[k] <= FC_NUMBERS]
    passed = [", ".join(k) for k in kinds if auc[k].mean >= FC_AUC and r[k].mean >= FC_R]
    said = [f"{', '.join(k)}: {auc[k].mean:.3f}, {r[k].mean:.3f}" for k in kinds]
    return (
        f"AUC {FC_AUC} and r {FC_R} by trained tokens with at most {FC_NUMBERS:,} numbers",
        any(k.startswith(FUNCTION) for k in passed),
        f"{'; '.join(passed) or 'none'} ({'; '.join(said)})",
    )
