"""A table as GitHub Markdown."""

from __future__ import annotations

from bhx_prep.report.tables.caption import caption, is_warning, lead
from bhx_prep.report.tables.cells import headings, text_rows
from bhx_prep.report.tables.table import Table


def to_markdown(table: Table) -> str:
    """Render the table as GitHub Markdown: caption, then rows."""
    head = headings(table)
    align = ["---", "---", *["---:"] * len(table.metrics), "---", "---:", "---:"]
    rows = [" | ".join(row) for row in (head, align, *(line.cells for line in text_rows(table)))]
    sentences = [f"**{s}**" if is_warning(s) else s for s in lead(table)] + caption(table)
    title = table.endpoint + (", chosen on test subjects" if table.chosen_on == "test" else "")
    return "\n".join([f"# {title}", "", *sentences, "", *(f"| {row} |" for row in rows)]) + "\n"
