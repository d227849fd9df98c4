"""The table of an endpoint: its rows, and for each of them an entry per metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bhx_model.evaluation.methods import METHODS
from bhx_model.evaluation.metrics import METRICS, metrics_of
from bhx_prep.config.experiments import REFERENCE

#: Labels of this run's methods, in the order of the rows; that of `constant` depends on the kind of endpoint.
LABELS = {
    "fc": "Functional connectivity + linear model",
    **{name: method.label for name, method in METHODS.items()},
    "all_positive": "Everybody of the positive class",
    "constant": "Majority-class baseline",
}
#: The same in figures.
SHORT = {
    "fc": "FC",
    **{name: method.short for name, method in METHODS.items()},
    "all_positive": "all positive",
    "constant": "constant",
}
CONSTANT_REGRESSION = "Mean-predictor baseline"

#: Rows that no run predicts: they follow from the labels of the training subjects, or from nothing.
COMPUTED = ("all_positive", "constant")
#: Methods that need no brain, or no labels: what a result has to be above.
FLOORS = ("age_sex", "site", "motion", "acquisition", "permuted", "all_positive", "constant")

THIS_RUN = "this run"
#: Mark of rows of weights whose pretraining knows test subjects.
OVERLAP = "\u2020"
#: Every kind of row in the order of the tables, and its heading.
ORIGINS = {
    "published": "Published, second-hand: means, SD not recovered",
    "independent": "Measured by others: mean (SD over splits)",
    THIS_RUN: "This run: mean \u00b1 SD over the splits (95 % confidence interval)",
    "difference": "This run: difference to functional connectivity on the same subjects and splits "
    "(95 % confidence interval), p after Holm's correction",
    "within sites": "This run, within sites: mean over sites of their test subjects alone, weighted by their number",
    "alike motion": "This run, subjects who moved alike: pairs of both classes, or within thirds of motion",
}
#: Differences between experiments, which stand in the table of ablations; their `source` is the experiment compared with.
ABLATION = "ablation"
Origin = Literal[
    "published", "independent", "this run", "difference", "within sites", "alike motion", "ablation"
]
Kind = Literal["binary", "multiclass", "regression"]


#: Decimals that are printed of labels of small unit.
MOST_DECIMALS = 6
#: Numbers as large as this have three significant digits.
LARGE = 1e7


def number(value: float, decimals: int, sign: Literal["", "+"] = "") -> str:
    """A number with so many decimals, or with three significant digits if it is too large or too small for them."""
    small = decimals == MOST_DECIMALS and 0 < abs(value) < 10 ** (2 - MOST_DECIMALS)
    return f"{value:{sign}.3g}" if small or abs(value) >= LARGE else f"{value:{sign}.{decimals}f}"


class RowKey(NamedTuple):
    """What a row is of; `experiment` is empty where the method needs none, and of rows that are not this run's."""

    origin: Origin
    experiment: str
    method: str


@dataclass(frozen=True)
class Entry:
    """One row scored by one metric: a line of the tidy CSV.

    `mean`, `sd`, `ci_low` and `ci_high` are in the metric's unit (percent for accuracy-like ones) and None
    where unknown; `note` then says why. `p` is Holm's, of differences. `printed` is a number as its source prints it.
    `overlap` says how many test subjects are in the pretraining of the scored weights, in the split with most of them.
    """

    origin: Origin
    experiment: str
    method: str
    metric: str
    unit: str
    mean: float | None
    sd: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    n_seeds: int | None
    n_test: str
    source: str
    trust: str
    note: str
    printed: str
    overlap: str = ""

    @property
    def row(self) -> RowKey:
        """Row of the table that contains it."""
        return RowKey(self.origin, self.experiment, self.method)


@dataclass(frozen=True)
class Table:
    """All entries of an endpoint.

    `benchmark` is the paper's counterpart, or empty; `paper` is the same where its published values stand in the table.
    `planted` says what is planted in synthetic subjects, where it is known; else it is empty. `chosen_on` says on which
    subjects penalties and epochs were chosen: ``val``, or ``test`` as the published code does. `who` says who the people of
    all rows are, `splits` how they are split, and `people_sha256` is the hash of their labels.
    """

    endpoint: str
    cohort: str
    kind: Kind
    task: str
    benchmark: str
    paper: str
    synthetic: bool
    planted: str
    chosen_on: Literal["val", "test"]
    who: str
    people_sha256: str
    splits: str
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """Name of its files, without the extension."""
        return self.endpoint + (REFERENCE if self.chosen_on == "test" else "")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of the columns, in the order of this run's entries: a protocol may have some before others."""
        own = list(dict.fromkeys(e.metric for e in self.entries if e.origin == THIS_RUN))
        known = metrics_of(self.kind)
        return tuple(sorted(known, key=lambda metric: own.index(metric) if metric in own else len(own)))

    def rows(self, origin: str) -> list[RowKey]:
        """Rows of one origin, in their order."""
        return list(dict.fromkeys(e.row for e in self.entries if e.origin == origin))

    def entry(self, row: RowKey, metric: str) -> Entry | None:
        """Return the entry of one cell; None if the row has none, as the paper's where it does not use the metric."""
        return next((e for e in self.entries if e.row == row and e.metric == metric), None)

    def decimals(self, metric: str) -> int:
        """Decimals that this run's values of `metric` are printed with."""
        fixed = METRICS[metric].decimals
        if fixed is not None:
            return fixed
        means = [abs(e.mean) for e in self.entries if e.metric == metric and e.mean]
        return min(MOST_DECIMALS, max(0, 2 - math.floor(math.log10(max(means))))) if means else 2

    def label(self, row: RowKey) -> str:
        """Name of a row's method as it is printed, marked where the pretraining knows test subjects."""
        return label(row, self.kind) + (f" {OVERLAP}" if self.overlap(row) else "")

    def overlap(self, row: RowKey) -> str:
        """Test subjects in the pretraining of the weights that a row scores; empty if there are none."""
        return next((entry.overlap for entry in self.entries if entry.row == row), "")

    def short(self, row: RowKey) -> str:
        """Name of one of this run's rows in figures; with its experiment where the table has several."""
        experiments = {r.experiment for r in self.rows(THIS_RUN)} - {""}
        return SHORT[row.method] + (f" ({row.experiment})" if row.experiment and len(experiments) > 1 else "")


def row_name(row: RowKey) -> str:
    """Name of one of this run's rows, for `bhx explain`: ``fc``, or ``experiment/method``."""
    return f"{row.experiment}/{row.method}" if row.experiment else row.method


def label(row: RowKey, kind: str) -> str:
    """Name of a row's method as it is printed, in a table of an endpoint of this kind."""
    if row.origin in ("published", "independent"):
        return row.method
    if row.method == "constant" and kind == "regression":
        return CONSTANT_REGRESSION
    return LABELS[row.method]
