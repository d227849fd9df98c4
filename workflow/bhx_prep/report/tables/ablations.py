"""Experiments side by side: one row per experiment and method, columns per endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bhx_model.evaluation.metrics import METRICS
from bhx_prep.config.experiments import REFERENCE
from bhx_prep.report.tables.caption import CHOSEN_ON_TEST, overlap_warning
from bhx_prep.report.tables.sheet import Group, Sheet
from bhx_prep.report.tables.table import (
    ABLATION,
    LABELS,
    OVERLAP,
    THIS_RUN,
    Entry,
    RowKey,
    Table,
    number,
    row_name,
)
from bhx_prep.report.tables.tidy_csv import render

#: Metrics of the columns, by kind of endpoint.
SHOWN = {
    "binary": ("accuracy", "auroc"),
    "multiclass": ("accuracy", "auroc"),
    "regression": ("mae", "pearson_r"),
}


def what_differs(experiments: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Settings of experiments that are not the same in all of them, in words.

    Parameters
    ----------
    experiments : mapping
        Name to the section of the configuration, as plain values.
    """
    flat = {name: dict(_leaves(section)) for name, section in experiments.items()}
    keys = list(dict.fromkeys(key for leaves in flat.values() for key in leaves))
    differ = [key for key in keys if len({str(leaves.get(key)) for leaves in flat.values()}) > 1]
    return {
        name: "; ".join(f"{key} {leaves[key]}" for key in differ if leaves.get(key) is not None) or "-"
        for name, leaves in flat.items()
    }


def _leaves(section: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in section.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{before}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            found.append((before + key, text))
    return found


def _rows(tables: Sequence[Table]) -> dict[str, list[str]]:
    """Methods that several experiments have, in the tables' order, and their experiments, the one compared with first."""
    found: dict[str, dict[str, None]] = {}
    for table in tables:
        for row in table.rows(THIS_RUN):
            if row.experiment:
                found.setdefault(row.method, {})[row.experiment] = None
    compared = {(e.method, e.experiment) for t in tables for e in t.entries if e.origin == ABLATION}
    for method, of in found.items():
        found[method] = dict.fromkeys(sorted(of, key=lambda name: (method, name) in compared))
    return {method: list(found[method]) for method in LABELS if len(found.get(method, ())) > 1}


def ablation_sheet(name: str, tables: Sequence[Table], experiments: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """Lay the experiments out side by side.

    Parameters
    ----------
    name : str
        Of the table, with the suffix of rows chosen on test subjects where they are.
    tables : sequence of Table
        Of all endpoints.
    experiments : mapping
        Name to the section of the configuration, as plain values.
    """
    columns = [(table, metric) for table in tables for metric in SHOWN[table.kind]]
    differs = what_differs(experiments)
    groups = []
    for method, of in _rows(tables).items():
        rows = []
        for experiment in of:
            cells = [
                cell
                for t, metric in columns
                for cell in (
                    _cell(t, t.entry(RowKey(THIS_RUN, experiment, method), metric)),
                    _difference(t, t.entry(RowKey(ABLATION, experiment, method), metric)),
                )
            ]
            rows.append((experiment, differs.get(experiment, "-"), *cells))
        groups.append(Group(LABELS[method], tuple(rows)))
    return Sheet(
        name=name,
        title="Ablations" + (", chosen on test subjects" if name.endswith(REFERENCE) else ""),
        lead=tuple(_lead(tables, on_test=name.endswith(REFERENCE))),
        headings=(
            "Experiment",
            "What differs",
            *(h for t, m in columns for h in (f"{t.endpoint}: {METRICS[m].heading}", "difference")),
        ),
        n_left=2,
        groups=tuple(groups),
        caption=(
            "Mean over splits (95 % confidence interval of people and splits together). Differences are to the first row of "
            "the same method, split by split on the same subjects, with p corrected for the number of rows of all methods "
            "(Holm), column by column: what differs shows there, not in how two intervals overlap.",
            *(f"{table.endpoint}: {table.who}; {table.splits}." for table in tables),
        ),
    )


def _lead(tables: Sequence[Table], *, on_test: bool) -> Iterator[str]:
    """What has to be known before the sheet is read; `on_test`: rows were chosen on test subjects."""
    yield "Experiments side by side, each method by itself; every endpoint's rows are of the same subjects and splits."
    if synthetic := [table.endpoint for table in tables if table.synthetic]:
        yield f"SYNTHETIC DATA: the subjects of {', '.join(synthetic)} are simulated."
    if on_test:
        yield CHOSEN_ON_TEST
    known = {
        f"{table.endpoint}:{row_name(row)}": table.overlap(row)
        for table in tables
        for row in table.rows(THIS_RUN)
        if table.overlap(row)
    }
    if known:
        yield overlap_warning(known, "validation" if on_test else "test")


def _cell(table: Table, entry: Entry | None) -> str:
    if entry is None or entry.mean is None:
        return entry.note if entry is not None and entry.note else "-"
    digits = table.decimals(entry.metric)
    text = number(entry.mean, digits) + (f" {OVERLAP}" if entry.overlap else "")
    if entry.ci_low is None or entry.ci_high is None:
        return text
    return f"{text} ({number(entry.ci_low, digits)} to {number(entry.ci_high, digits)})"


def _difference(table: Table, entry: Entry | None) -> str:
    """A difference with its interval and p; a dash for what others are compared with."""
    if entry is None or entry.mean is None:
        return entry.note if entry is not None and entry.note else "-"
    digits = table.decimals(entry.metric)
    text = number(entry.mean, digits, "+")
    if entry.ci_low is None or entry.ci_high is None:
        return f"{text} (n/a)"
    return f"{text} ({number(entry.ci_low, digits)} to {number(entry.ci_high, digits)})" + (
        "" if entry.p is None else f", p {entry.p:.2g}"
    )


def to_csv(tables: Sequence[Table], experiments: Mapping[str, Mapping[str, Any]]) -> str:
    """Render as tidy CSV, a line per method, experiment, endpoint and metric."""
    columns = ("mean", "ci_low", "ci_high", "n_seeds", "n_test")
    compared = {
        "base": "source",
        "difference": "mean",
        "difference_low": "ci_low",
        "difference_high": "ci_high",
        "p": "p",
    }
    differs = what_differs(experiments)
    rows = [
        [
            *(
                experiment,
                differs.get(experiment, ""),
                method,
                table.endpoint,
                table.synthetic,
                metric,
                entry.unit,
            ),
            *(getattr(entry, column) for column in columns),
            *(
                getattr(table.entry(RowKey(ABLATION, experiment, method), metric), of, None)
                for of in compared.values()
            ),
        ]
        for method, of in _rows(tables).items()
        for experiment in of
        for table in tables
        for metric in SHOWN[table.kind]
        if (entry := table.entry(RowKey(THIS_RUN, experiment, method), metric)) is not None
    ]
    names = ("experiment", "differs", "method", "endpoint", "synthetic", "metric", "unit")
    return render([*names, *columns, *compared], rows)
