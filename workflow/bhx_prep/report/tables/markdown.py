"""A table as GitHub Markdown."""

from __future__ import annotations

import re

from bhx_prep.report.tables.caption import is_warning
from bhx_prep.report.tables.sheet import Sheet

#: What begins a link is its `](`; brackets alone are text, and stand for sources in these tables.
_MARKDOWN = {"\\": "\\\\", "|": "\\|", "](": "\\](", "$": "\\$", "<": "&lt;", "\n": " "}
_MARKED = re.compile("|".join(re.escape(text) for text in _MARKDOWN))


def escape(text: str) -> str:
    """Return text that stays within a cell, and that is read neither as HTML nor as a link or a formula."""
    return _MARKED.sub(lambda found: _MARKDOWN[found[0]], text)


def to_markdown(sheet: Sheet) -> str:
    """Render a table as GitHub Markdown: caption, then rows."""
    right = len(sheet.headings) - sheet.n_left
    lines = [tuple(escape(text) for text in sheet.headings), (*["---"] * sheet.n_left, *["---:"] * right)]
    for group in sheet.groups:
        lines.append((f"**{escape(group.heading)}**", *[""] * (len(sheet.headings) - 1)))
        lines += [tuple(escape(text) for text in row) for row in group.rows]
    lead = [f"**{escape(s)}**" if is_warning(s) else escape(s) for s in sheet.lead]
    caption = [escape(s) for s in sheet.caption]
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return (
        "\n".join([f"# {escape(sheet.title)}", "", "\n\n".join(lead), "", *rows, "", "\n\n".join(caption)])
        + "\n"
    )
