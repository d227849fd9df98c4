"""What a table of an endpoint holds: its rows, and for each of them an entry per metric."""

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
    "constant": "Majority-class baseline",
}
#: The same in figures.
SHORT = {"fc": "FC", **{name: method.short for name, method in METHODS.items()}}
CONSTANT_REGRESSION = "Mean-predictor baseline"

THIS_RUN = "this run"

Origin = Literal["published", "this run"]
Kind = Literal["binary", "multiclass", "regression"]


class RowKey(NamedTuple):
    """What a row is of; `experiment` is empty where the method needs none, and of published rows."""

    origin: Origin
    experiment: str
    method: str


@dataclass(frozen=True)
class Entry:
    """One row scored by one metric: a line of the tidy CSV.

    `mean`, `sd`, `ci_low` and `ci_high` are in the metric's unit (percent for accuracy-like ones) and None
    where unknown; `note` then says why. `printed` is a published number as its source prints it.
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
    n_seeds: int | None
    n_test: str
    source: str
    note: str
    printed: str

    @property
    def row(self) -> RowKey:
        """Row that it stands in."""
        return RowKey(self.origin, self.experiment, self.method)


@dataclass(frozen=True)
class Table:
    """All entries of an endpoint; `paper` is the paper's counterpart or empty.

    `planted` says what is planted in synthetic subjects, where it is known; else it is empty. `chosen_on` says on which
    subjects penalties and epochs were chosen: ``val``, or ``test`` as the published code does.
    """

    endpoint: str
    cohort: str
    kind: Kind
    task: str
    paper: str
    synthetic: bool
    planted: str
    chosen_on: Literal["val", "test"]
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """Name of its files, without the extension."""
        return self.endpoint + (REFERENCE if self.chosen_on == "test" else "")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of the columns."""
        return metrics_of(self.kind)

    def rows(self, origin: Origin) -> list[RowKey]:
        """Rows of one origin, in their order."""
        return list(dict.fromkeys(e.row for e in self.entries if e.origin == origin))

    def entry(self, row: RowKey, metric: str) -> Entry | None:
        """Return the entry of one cell; None if the paper is not known to use the metric."""
        return next((e for e in self.entries if e.row == row and e.metric == metric), None)

    def decimals(self, metric: str) -> int:
        """Decimals that this run's values of `metric` are printed with."""
        fixed = METRICS[metric].decimals
        if fixed is not None:
            return fixed
        means = [abs(e.mean) for e in self.entries if e.metric == metric and e.mean]
        return min(6, max(0, 2 - math.floor(math.log10(max(means))))) if means else 2

    def label(self, row: RowKey) -> str:
        """Name of a row's method as it is printed."""
        if row.origin == "published":
            return row.method
        if row.method == "constant" and self.kind == "regression":
            return CONSTANT_REGRESSION
        return LABELS[row.method]

    def short(self, row: RowKey) -> str:
        """Name of one of this run's rows in figures; with its experiment where the table has several."""
        experiments = {r.experiment for r in self.rows(THIS_RUN)} - {""}
        return SHORT[row.method] + (f" ({row.experiment})" if row.experiment and len(experiments) > 1 else "")


def constant_predictor(kind: str) -> str:
    """Name of the constant predictor for endpoints of this kind, in the middle of a sentence."""
    return (CONSTANT_REGRESSION if kind == "regression" else LABELS["constant"]).lower()
