"""The files of a table, which all hold the same."""

from __future__ import annotations

from pathlib import Path

from bhx_model.atomic_write import atomic_write
from bhx_prep.report.tables.latex import to_latex
from bhx_prep.report.tables.markdown import to_markdown
from bhx_prep.report.tables.table import Table
from bhx_prep.report.tables.tidy_csv import to_csv


def write(table: Table, stem: Path) -> None:
    """Write ``<stem>.md``, ``.csv`` and ``.tex``."""
    for suffix, render in ((".md", to_markdown), (".csv", to_csv), (".tex", to_latex)):
        with atomic_write(stem.parent / (stem.name + suffix)) as part:
            part.write_text(render(table), encoding="utf-8")
