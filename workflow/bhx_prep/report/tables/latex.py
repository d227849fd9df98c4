"""A table as LaTeX (booktabs, graphicx)."""

from __future__ import annotations

from collections.abc import Sequence

from bhx_prep.report.tables.sheet import Sheet

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "\u00b1": r"$\pm$", "<": r"$<$", ">": r"$>$", "\u2265": r"$\geq$", "\u2020": r"$\dagger$", "\u2212": r"$-$", "\n": " ",
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
            end = (
                "{}" if second.startswith(("[", "*")) else ""
            )  # \\ would take it for a distance, or for its star
            return rf"\shortstack[{side}]{{{escape(first)}\\{end}{escape(second)}}}"
    return escape(text)


def to_latex(sheet: Sheet) -> str:
    """Render a table as a LaTeX float, as wide as the page; needs ``booktabs`` and ``graphicx``."""
    n = len(sheet.headings)
    sides = "l" * sheet.n_left + "r" * (n - sheet.n_left)

    def row(cells: Sequence[str]) -> str:
        return " & ".join(_cell(cell, side) for cell, side in zip(cells, sides, strict=True)) + r" \\[3pt]"

    body = []
    for group in sheet.groups:
        body.append(r"\midrule")
        body.append(rf"\multicolumn{{{n}}}{{l}}{{\itshape {escape(group.heading)}}} \\[3pt]")
        body += [row(cells) for cells in group.rows]
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{escape(' '.join(sheet.lead))}}}",
            rf"\label{{tab:{sheet.name.replace('_', '-')}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            row(sheet.headings),
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\smallskip",
            rf"\parbox{{\linewidth}}{{\footnotesize {escape(' '.join(sheet.caption))}}}",
            r"\end{table*}",
            "",
        ]
    )
