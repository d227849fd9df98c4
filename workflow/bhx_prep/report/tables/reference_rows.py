"""Rows of a table from publications: the paper's numbers, and those of others."""

from __future__ import annotations

from bhx_model.evaluation.metrics import METRICS, metrics_of
from bhx_prep.report import published
from bhx_prep.report.tables.table import Entry


def of_the_paper(paper: str) -> list[Entry]:
    """Entries of one of the paper's endpoints; a number that was not recovered has an entry that says so."""
    block = published.endpoint(paper)
    trust = published.sources()
    entries = []
    for row in block.rows:
        tags = [tag for tag in trust if tag in row.source]
        for metric in block.metrics:
            printed = row.values.get(metric, "")
            entries.append(
                Entry(
                    origin="published",
                    experiment="",
                    method=row.method,
                    metric=metric,
                    unit=METRICS[metric].unit,
                    mean=float(printed) if printed else None,
                    sd=None,
                    ci_low=None,
                    ci_high=None,
                    p=None,
                    n_seeds=block.runs if printed else None,
                    n_test="not recovered",
                    source=row.source,
                    trust=trust[tags[0]].trust if tags else "",
                    note="SD not recovered" if printed else row.note,
                    printed=printed,
                )
            )
    return entries


def of_others(paper: str, kind: str) -> list[Entry]:
    """Entries of what others measured on an endpoint by metrics that its table has; a row of another task says so."""
    entries = []
    for row in published.independent(paper):
        for metric in metrics_of(kind):
            if metric not in row.values:
                continue
            value = row.values[metric]
            is_number = value.replace(".", "", 1).isdigit()
            entries.append(
                Entry(
                    origin="independent",
                    experiment="",
                    method=f"{row.method} ({row.task})" if row.task else row.method,
                    metric=metric,
                    unit=METRICS[metric].unit,
                    mean=float(value) if is_number else None,
                    sd=float(row.sd[metric]) if metric in row.sd else None,
                    ci_low=None,
                    ci_high=None,
                    p=None,
                    n_seeds=row.splits,
                    n_test=f"{row.people} in all" if row.people else "not stated",
                    source=row.source,
                    trust=published.sources()[row.source].trust,
                    note=f"another task: {row.task}" if row.task else "",
                    printed=row.printed(metric),
                )
            )
    return entries
