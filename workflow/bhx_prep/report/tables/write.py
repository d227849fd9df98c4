"""Write a table in all of its formats."""

from __future__ import annotations

from pathlib import Path

from bhx_model.atomic_write import atomic_write
from bhx_prep.report.tables.endpoint_sheet import endpoint_sheet
from bhx_prep.report.tables.latex import to_latex
from bhx_prep.report.tables.markdown import to_markdown
from bhx_prep.report.tables.sheet import Sheet
from bhx_prep.report.tables.table import Table
from bhx_prep.report.tables.tidy_csv import to_csv


def write(table: Table, stem: Path) -> None:
    """Write ``<stem>.md``, ``.csv`` and ``.tex`` of an endpoint's table."""
    write_sheet(endpoint_sheet(table), to_csv(table), stem)


def write_sheet(sheet: Sheet, tidy: str, stem: Path) -> None:
    """Write a table as text, and its tidy CSV: ``<stem>.md``, ``.csv`` and ``.tex``."""
    for suffix, text in ((".md", to_markdown(sheet)), (".csv", tidy), (".tex", to_latex(sheet))):
        with atomic_write(stem.parent / (stem.name + suffix)) as part:
            part.write_text(text, encoding="utf-8")
