"""Merge the sites' tables of participants into one, since a cohort has one."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bhx_model.atomic_write import atomic_write
from bhx_prep.config.recipes import UNKNOWN

logger = logging.getLogger(__name__)

#: What the table is called, and its first columns, by which it is known as made here.
NAME: Final = "participants_of_sites.tsv"
_OWN: Final = ("participant_id", "table")


def join(root: Path, id_columns: Sequence[str], label: Callable[[str], str]) -> Path | None:
    """Write the rows of all sites' tables into one, as they are.

    Parameters
    ----------
    root : Path
        Of the tables ``*_phenotypic.csv``, or else of the sites' folders with a ``participants.tsv``.
    id_columns : sequence of str
        Names of the column of ids, the first that is there counts.
    label : callable
        Label of the subject whose id is spelt as in the tables.

    Returns
    -------
    Path or None
        `NAME` below the root: ``participant_id``, the name of the row's table, then the columns of all tables; ``n/a``
        where a site lacks a column. None if there are no tables, or the file in its place is another.
    """
    path = root / NAME
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith("\t".join(_OWN)):
        logger.warning("%s was not written by `bhx fetch` and is not changed", path)
        return None
    tables = sorted(root.glob("*_phenotypic.csv")) or sorted(root.glob("*/participants.tsv"))
    rows = [row for table in tables for row in _rows(table, root, id_columns, label)]
    if not rows:
        return None
    columns = list(dict.fromkeys([*_OWN, *(name for row in rows for name in row)]))
    with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="n/a", delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _rows(
    table: Path, root: Path, id_columns: Sequence[str], label: Callable[[str], str]
) -> Iterator[dict[str, str]]:
    content = table.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if table.suffix == ".tsv" else ",")
    names = {name: (name or "").strip() for name in reader.fieldnames or ()}
    ids = next((own for known in id_columns for own, name in names.items() if name == known), None)
    if ids is None:
        logger.warning("%s has no column of ids (%s): its rows are left out", table, ", ".join(id_columns))
        return
    for row in reader:
        own = {names[k]: " ".join(v.split()) or "n/a" for k, v in row.items() if k in names and v is not None}
        if row[ids] and row[ids].strip() not in UNKNOWN:
            yield {
                **own,
                "participant_id": f"sub-{label(row[ids])}",
                "table": table.relative_to(root).as_posix(),
            }
