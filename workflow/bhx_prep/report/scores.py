"""Format scores for the report, and show trained function tokens beside their controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bhx_model.evaluation.methods import METHODS, UNTRAINED
from bhx_model.evaluation.metrics import METRICS
from bhx_prep.config.config import Config
from bhx_prep.config.experiments import REFERENCE
from bhx_prep.evaluation import split_seeds
from bhx_prep.report.tables.estimates import difference
from bhx_prep.report.tables.scores import read as read_score
from bhx_prep.report.tables.table import THIS_RUN, Entry, RowKey, Table
from bhx_prep.report.tables.tidy_csv import from_csv

#: Two metrics per kind of endpoint are drawn as well as printed.
DRAWN = {
    "binary": ("accuracy", "auroc"),
    "multiclass": ("accuracy", "auroc"),
    "regression": ("mae", "pearson_r"),
}


@dataclass(frozen=True)
class Score:
    """A cell of a results table as text: a mean with its spread and interval, or why there is `none`."""

    mean: str = ""
    sd: str = ""
    interval: str = ""
    none: str = ""


def read(results: Path, config: Config) -> list[Table]:
    """Tables of the endpoints, as far as they are made: rows chosen on validation, then those chosen on test.

    Raises
    ------
    DataError
        If one is there and cannot be read.
    """
    files = [results / "tables" / f"{name}{of}.csv" for name in config.endpoints for of in ("", REFERENCE)]
    return [from_csv(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def number(value: float | None, digits: int = 2) -> str:
    """Format a number with fixed decimals; a dash where there is none."""
    return "\u2013" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"


def cell(table: Table, entry: Entry | None) -> Score:
    """What is printed of a score: its mean, its spread and its interval, or why there is none."""
    if entry is None:
        return Score(none="\u2013")
    if entry.printed:
        return Score(entry.printed)
    if entry.mean is None:
        return Score(none=entry.note)
    digits = table.decimals(entry.metric)
    within = (
        "" if entry.ci_low is None else f"{number(entry.ci_low, digits)} to {number(entry.ci_high, digits)}"
    )
    if entry.origin == "difference":
        return Score(f"{entry.mean:+.{digits}f}", "" if entry.p is None else f"p {entry.p:.2g}", within)
    spread = (
        ""
        if entry.origin != THIS_RUN
        else f"\u00b1 {number(entry.sd, digits) if entry.sd is not None else 'n/a'}"
    )
    return Score(number(entry.mean, digits), spread, within)


def controls(config: Config, results: Path, name: str) -> list[dict[str, Any]]:
    """Function tokens of an experiment compared with untrained weights and connectivity, per endpoint and method."""
    rows = []
    for table in read(results, config):
        metric = DRAWN[table.kind][-1]
        for row in table.rows(THIS_RUN):
            untrained = f"{row.method}{UNTRAINED}"
            shown = (row._replace(method=untrained), row, RowKey(THIS_RUN, "", "fc"))
            entries = [table.entry(other, metric) for other in shown]
            if row.experiment != name or untrained not in METHODS or entries[0] is None:
                continue
            folder = results / "experiments" / name / "endpoints" / table.endpoint
            seeds = split_seeds.experiment_seeds(config, name, table.endpoint, row.method)
            added = _difference(folder, row.method, metric, table.decimals(metric), seeds)
            rows.append(
                {
                    "endpoint": table.endpoint,
                    "method": METHODS[row.method].label,
                    "metric": METRICS[metric].heading,
                    "scores": [cell(table, entry) for entry in entries],
                    "added": added,
                }
            )
    return rows


def _difference(folder: Path, method: str, metric: str, digits: int, seeds: Sequence[int]) -> Score:
    """By how much trained weights are ahead of untrained ones on the same subjects and splits, with an interval."""
    pairs = []
    for seed in seeds:
        files = [folder / f"{name}_seed-{seed}/metrics.json" for name in (method, f"{method}{UNTRAINED}")]
        if all(file.exists() for file in files):
            pairs.append([read_score(file) for file in files])
    if not pairs:
        return Score(none="\u2013")
    trained, untrained = zip(*pairs, strict=True)
    found = difference(trained, untrained, metric)
    if found.mean is None:
        return Score(none=found.note)
    within = "" if found.low is None else f"{number(found.low, digits)} to {number(found.high, digits)}"
    return Score(f"{found.mean:+.{digits}f}", "", within)
