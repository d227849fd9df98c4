"""Rows of a table as text: what Markdown and LaTeX print."""

from __future__ import annotations

from dataclasses import dataclass

from bhx_model.evaluation.metrics import METRICS
from bhx_prep.report.tables.caption import PLUS_MINUS
from bhx_prep.report.tables.table import THIS_RUN, Entry, RowKey, Table


@dataclass(frozen=True)
class TextRow:
    """A row as text, in the order of `headings`."""

    origin: str
    cells: tuple[str, ...]


def headings(table: Table) -> list[str]:
    """Column headings that go with `text_rows`."""
    return [
        "Method",
        "Source",
        *(METRICS[m].heading for m in table.metrics),
        "Spread",
        "Seeds",
        "Test subjects",
    ]


def text_rows(table: Table) -> list[TextRow]:
    """Rows of the table as text cells, in the order of `headings`."""
    rows = []
    for row in [*table.rows("published"), *table.rows(THIS_RUN)]:
        of_row = [table.entry(row, metric) for metric in table.metrics]
        some = next(e for e in of_row if e is not None)
        spread = "SD not recovered" if any(e and e.printed for e in of_row) else "-"
        if row.origin == THIS_RUN:
            spread = f"{PLUS_MINUS} SD (95 % CI)"
        seeds = max((e.n_seeds or 0 for e in of_row if e), default=0)
        cells = (
            table.label(row),
            source(row, some.source),
            *(_cell(table, e) for e in of_row),
            spread,
            str(seeds) if seeds else "-",
            some.n_test,
        )
        rows.append(TextRow(row.origin, cells))
    return rows


def source(row: RowKey, stated: str) -> str:
    """Where a row's numbers are from: a tag of the paper's sources, or this run and which experiment of it."""
    if row.origin == "published":
        return f"[{stated}]" if stated else "-"
    return f"{THIS_RUN} ({row.experiment})" if row.experiment else THIS_RUN


def _cell(table: Table, entry: Entry | None) -> str:
    if entry is None:
        return "-"
    if entry.printed or entry.mean is None:
        return entry.printed or entry.note
    digits = table.decimals(entry.metric)
    if entry.sd is None or entry.ci_low is None or entry.ci_high is None:
        return f"{entry.mean:.{digits}f} {PLUS_MINUS} n/a (n/a)"
    mean, sd, low, high = (f"{v:.{digits}f}" for v in (entry.mean, entry.sd, entry.ci_low, entry.ci_high))
    text = f"{mean} {PLUS_MINUS} {sd} ({low} to {high})"
    return f"{text}, {entry.note}" if entry.note else text
