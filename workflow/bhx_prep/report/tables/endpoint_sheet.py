"""The table of an endpoint as text."""

from __future__ import annotations

from bhx_model.evaluation.metrics import METRICS
from bhx_prep.report.tables.caption import caption, lead
from bhx_prep.report.tables.sheet import Group, Sheet
from bhx_prep.report.tables.table import FLOORS, ORIGINS, THIS_RUN, Entry, RowKey, Table, number

PLUS_MINUS = "\u00b1"
FLOOR = "Floors: what needs no brain, or no labels"


def endpoint_sheet(table: Table) -> Sheet:
    """Lay the table of an endpoint out."""
    return Sheet(
        name=table.name,
        title=table.endpoint + (", chosen on test subjects" if table.chosen_on == "test" else ""),
        lead=tuple(lead(table)),
        headings=("Method", "Source", *(METRICS[m].heading for m in table.metrics), "Seeds", "Test subjects"),
        n_left=2,
        groups=tuple(
            Group(heading, tuple(_cells(table, row) for row in rows))
            for heading, rows in groups(table).items()
            if rows
        ),
        caption=tuple(caption(table)),
    )


def groups(table: Table) -> dict[str, list[RowKey]]:
    """Rows under their headings, in their order; floors have one of their own."""
    found: dict[str, list[RowKey]] = {}
    for origin, heading in ORIGINS.items():
        rows = table.rows(origin)
        found[heading] = [row for row in rows if origin != THIS_RUN or row.method not in FLOORS]
        if origin == THIS_RUN:
            found[FLOOR] = [row for row in rows if row.method in FLOORS]
    return found


def source(row: RowKey, stated: str) -> str:
    """Where a row's numbers are from: a tag of a source, or this run and which experiment of it."""
    if row.origin in ("published", "independent"):
        return f"[{stated}]" if stated else "-"
    return f"{THIS_RUN} ({row.experiment})" if row.experiment else THIS_RUN


def _cells(table: Table, row: RowKey) -> tuple[str, ...]:
    of_row = [table.entry(row, metric) for metric in table.metrics]
    some = next(e for e in of_row if e is not None)
    seeds = max((e.n_seeds or 0 for e in of_row if e), default=0)
    return (
        table.label(row),
        source(row, some.source),
        *(cell(table, e) for e in of_row),
        str(seeds) if seeds else "-",
        some.n_test,
    )


def cell(table: Table, entry: Entry | None) -> str:
    """One cell: what a source prints, or this run's mean, spread and interval; why there is none, or a dash."""
    if entry is None:
        return "-"
    if entry.printed or entry.mean is None:
        return entry.printed or entry.note
    digits = table.decimals(entry.metric)
    text = number(entry.mean, digits, "+" if entry.origin == "difference" else "")
    if entry.origin == THIS_RUN:
        text += f" {PLUS_MINUS} " + ("n/a" if entry.sd is None else number(entry.sd, digits))
    if entry.ci_low is None or entry.ci_high is None:
        text += " (n/a)"
    else:
        text += f" ({number(entry.ci_low, digits)} to {number(entry.ci_high, digits)})"
    if entry.p is not None:
        text += f", p {entry.p:.2g}"
    return f"{text}, {entry.note}" if entry.note else text
