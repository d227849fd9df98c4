"""A table as LaTeX (booktabs, graphicx)."""

from __future__ import annotations

from collections.abc import Sequence

from bhx_prep.report.tables.caption import PLUS_MINUS, caption, lead
from bhx_prep.report.tables.cells import headings, text_rows
from bhx_prep.report.tables.table import Table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    PLUS_MINUS: r"$\pm$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def escape(text: str) -> str:
    """Return text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


# a cell is as narrow as its longer half
_BREAKS = (" (", ": ", "; ", " + ")


def _cell(text: str, side: str) -> str:
    """A cell in LaTeX, long ones on two lines."""
    for mark in _BREAKS:
        first, found, second = text.partition(mark)
        if found:
            first, second = first + mark.rstrip(" ("), f"({second}" if mark == " (" else second
            return rf"\shortstack[{side}]{{{escape(first)}\\{escape(second)}}}"
    return escape(text)


def to_latex(table: Table) -> str:
    """Render the table as a LaTeX float, as wide as the page; needs ``booktabs`` and ``graphicx``."""
    sides = "ll" + "r" * (len(table.metrics) + 2)
    spread = headings(table).index("Spread")  # the caption states it

    def row(cells: Sequence[str]) -> str:
        shown = [cell for i, cell in enumerate(cells) if i != spread]
        return " & ".join(_cell(cell, side) for cell, side in zip(shown, sides, strict=True)) + r" \\[3pt]"

    body, last = [], None
    for line in text_rows(table):
        if last is not None and line.origin != last:
            body.append(r"\midrule")
        last = line.origin
        body.append(row(line.cells))
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{escape(' '.join(lead(table)))}}}",
            rf"\label{{tab:{table.name.replace('_', '-')}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            row(headings(table)),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\smallskip",
            rf"\parbox{{\linewidth}}{{\footnotesize {escape(' '.join(caption(table)))}}}",
            r"\end{table*}",
            "",
        ]
    )
