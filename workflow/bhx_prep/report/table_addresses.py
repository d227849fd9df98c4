"""Resolve addresses of rows, ``TABLE:ENDPOINT:ROW``, among the existing tables."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bhx_model.atomic_write import read_json
from bhx_model.errors import ConfigError
from bhx_prep.config.experiments import REFERENCE
from bhx_prep.config.paper_tables import ABLATIONS, PAPER_TABLES
from bhx_prep.report.tables.table import Table
from bhx_prep.report.tables.tidy_csv import from_csv

#: Characters of a list of names in a message.
_SHOWN = 90


@dataclass(frozen=True)
class Found:
    """A row of a table.

    Attributes
    ----------
    address : str
        In full.
    table : Table
        The endpoint's table that it stands in, also where the address is of a table of the whole study.
    made_of : mapping
        The ``<table>.json`` of that, its rows by their names.
    row : str
        Name of this run's row, or empty.
    elsewhere : tuple of str
        Names of the paper's and of others' rows that stand beside it.
    """

    address: str
    table: Table
    made_of: Mapping[str, Any]
    row: str
    elsewhere: tuple[str, ...]


class Addresses:
    """Tables of a folder and their rows.

    Parameters
    ----------
    folder : Path
        With the tables of endpoints and of the study.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    @cached_property
    def _names(self) -> list[str]:
        return sorted(file.stem for file in self._folder.glob("*.csv"))

    def find(self, address: str) -> Found | list[str]:
        """Find a row.

        Returns
        -------
        Found or list of str
            Where the address names no row yet, the addresses that begin so; none where there are no tables.

        Raises
        ------
        ConfigError
            If a part means nothing, or several things.
        """
        parts = [part.strip() for part in address.split(":")] if address.strip() else []
        if not parts or not self._names:
            return list(self._names)
        name = complete("table", parts[0], self._names)
        if _of_study(name):
            return self._in_study_table(name, parts[1:])
        table = self._table(name)
        row = parts[-1] if len(parts) > 1 else ""
        if len(parts) > 3 or (
            len(parts) == 3 and complete("endpoint", parts[1], [table.endpoint]) != table.endpoint
        ):
            raise ConfigError(f"{address!r} has more than TABLE:ENDPOINT:ROW: leave out the rest")
        made_of, elsewhere = self._made_of(name), _elsewhere(table)
        rows = [*made_of["rows"], *elsewhere]
        if not row:
            return [f"{name}:{each}" for each in rows]
        chosen = complete("row", row, rows)
        if chosen in made_of["rows"]:
            return Found(f"{name}:{chosen}", table, made_of, chosen, ())
        return Found(f"{name}:{chosen}", table, made_of, "", (chosen,))

    def _in_study_table(self, name: str, parts: list[str]) -> Found | list[str]:
        lines = self._lines(name)
        endpoints = list(dict.fromkeys(line["endpoint"] for line in lines))
        if not parts:
            return [f"{name}:{endpoint}" for endpoint in endpoints]
        endpoint = complete("endpoint", parts[0], endpoints)
        own = endpoint + (REFERENCE if name.endswith(REFERENCE) else "")
        rows = dict.fromkeys(line["row"] for line in lines if line["endpoint"] == endpoint)
        if len(parts) == 1 or not parts[1]:
            return [f"{name}:{endpoint}:{row}" for row in rows]
        if len(parts) > 2:
            raise ConfigError("an address has three parts, TABLE:ENDPOINT:ROW: leave the others out")
        row = complete("row", parts[1], rows)
        line = next(line for line in lines if line["endpoint"] == endpoint and line["row"] == row)
        table = self._table(own)
        elsewhere = [each for each in _elsewhere(table) if each in line["elsewhere"].split("; ")]
        return Found(f"{name}:{endpoint}:{row}", table, self._made_of(own), line["method"], tuple(elsewhere))

    def _lines(self, name: str) -> list[dict[str, str]]:
        """Lines of a study's table with `row`, `method` and `elsewhere`, as far as they are rows."""
        lines = list(csv.DictReader(io.StringIO((self._folder / f"{name}.csv").read_text(encoding="utf-8"))))
        if name.removesuffix(REFERENCE) != ABLATIONS:
            return lines
        of = [{**line, "row": f"{line['experiment']}/{line['method']}"} for line in lines]
        return [{**line, "method": line["row"], "elsewhere": ""} for line in of]

    def _table(self, name: str) -> Table:
        return from_csv((self._folder / f"{name}.csv").read_text(encoding="utf-8"))

    def _made_of(self, name: str) -> Mapping[str, Any]:
        made_of = read_json(self._folder / f"{name}.json", "make the table again with `snakemake tables`")
        return {**made_of, "rows": {row["name"]: row for row in made_of["rows"]}}


def _of_study(name: str) -> bool:
    return name.removesuffix(REFERENCE) in (*PAPER_TABLES, ABLATIONS)


def _elsewhere(table: Table) -> list[str]:
    """Names of the paper's rows of a table, and of others', which their source tells apart."""
    return [
        row.method if row.origin == "published" else f"{row.method} [{_source(table, row)}]"
        for origin in ("published", "independent")
        for row in table.rows(origin)
    ]


def _source(table: Table, row: Any) -> str:
    return next(entry.source for entry in table.entries if entry.row == row)


def complete(what: str, given: str, names: Iterable[str]) -> str:
    """Find the one name that is meant: itself, or what it is the beginning of, also after an experiment's name.

    Raises
    ------
    ConfigError
        If no name or several are meant; the message lists them.
    """
    names, low = list(names), given.lower()
    for means in (
        lambda name: name == given,
        lambda name: name.lower() == low,
        lambda name: name.lower().partition("/")[2] == low,
        lambda name: name.lower().startswith(low),
        lambda name: name.lower().partition("/")[2].startswith(low),
    ):
        found = [name for name in names if means(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"{given!r} means several {what}s: {_listed(found)}")
    near = difflib.get_close_matches(given, names, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ConfigError(f"no {what} {given!r}{hint}; there are {_listed(names)}")


def _listed(names: list[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN].rpartition(', ')[0]}, .. ({len(names)} in all)"
