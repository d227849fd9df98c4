"""A table as tidy CSV, a line per row and metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, TypeGuard

from bhx_model.errors import DataError
from bhx_prep.ingest.cell_values import number_of
from bhx_prep.report.tables.table import Entry, Table

_OF_TABLE = tuple(f.name for f in fields(Table) if f.name != "entries")
_OF_ENTRY = tuple(f.name for f in fields(Entry))
#: How formulas begin, and what a spreadsheet takes for text if it stands before them.
_FORMULAS, _MARK = ("=", "+", "-", "@", "\t", "\r"), "'"
_NUMBERS = ("mean", "sd", "ci_low", "ci_high", "p")


def to_csv(table: Table) -> str:
    """Render the table as tidy CSV; `from_csv` reads it. Empty: not known."""
    shared = [getattr(table, name) for name in _OF_TABLE]
    rows = ([*shared, *(getattr(entry, name) for name in _OF_ENTRY)] for entry in table.entries)
    return render([*_OF_TABLE, *_OF_ENTRY], rows)


def render(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV of any values: numbers to six digits, ``true`` and ``false``, nothing for None, ``'`` before a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_write(value) for value in row] for row in rows)
    return text.getvalue()


def _write(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else _MARK + value if _is_formula(value) else str(value)


def _is_formula(value: object) -> TypeGuard[str]:
    """Whether a spreadsheet would compute a text, which may be named in the configuration, when it opens the file."""
    return isinstance(value, str) and value.lstrip(_MARK).startswith(_FORMULAS) and number_of(value) is None


def _read(cell: str) -> str:
    return cell[1:] if cell.startswith(_MARK) and _is_formula(cell) else cell


def from_csv(text: str) -> Table:
    """Read a table that `to_csv` wrote.

    Raises
    ------
    DataError
        If it is not such a table.
    """
    rows = [{k: _read(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))]
    if not rows or list(rows[0]) != [*_OF_TABLE, *_OF_ENTRY]:
        raise DataError("not a table of this version: make it again with `snakemake tables`")
    entries = []
    for row in rows:
        values: dict[str, Any] = {name: row[name] for name in _OF_ENTRY}
        values.update({name: float(row[name]) if row[name] else None for name in _NUMBERS})
        values["n_seeds"] = int(row["n_seeds"]) if row["n_seeds"] else None
        entries.append(Entry(**values))
    shared: dict[str, Any] = {name: rows[0][name] for name in _OF_TABLE}
    shared["synthetic"] = rows[0]["synthetic"] == "true"
    return Table(**shared, entries=tuple(entries))
