"""A table of any kind as text, which Markdown, LaTeX and the report print."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Rows under one heading; each has a cell per column."""

    heading: str
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sheet:
    """A table as text.

    Attributes
    ----------
    name : str
        Of its files, without the extension.
    title : str
    lead : tuple of str
        Sentences over the table.
    headings : tuple of str
        Of the columns.
    n_left : int
        The first so many columns are text, the others numbers.
    groups : tuple of Group
    caption : tuple of str
        Sentences below the table.
    """

    name: str
    title: str
    lead: tuple[str, ...]
    headings: tuple[str, ...]
    n_left: int
    groups: tuple[Group, ...]
    caption: tuple[str, ...]
