"""Splits from a file: a table with a column of ids and a column per split, or Brainmarks' lists (`sub` and `split`)."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import TableSettings
from bhx_prep.ingest import participants
from bhx_prep.ingest.cell_values import listed
from bhx_prep.io.notes import quote, short

_SEED: Final = re.compile(r"(?:(?:seed|split|fold)[-_ ]?)?(\d{1,4})", re.IGNORECASE)
#: What a cell may say, without regard to case.
WORDS: Final = MappingProxyType(
    {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
)


def read(path: Path, settings: TableSettings) -> tuple[participants.Participants, list[str]]:
    """Read a file of splits.

    Parameters
    ----------
    path : Path
    settings : TableSettings
        Of the cohort: how its ids are spelt.

    Returns
    -------
    table : Participants
        Not yet matched with the subjects that have data.
    columns : list of str
        Its columns that are splits. Seed 0 is the first of the file, but where the columns are called 0, 1, ... or seed-0,
        seed-1, ... in any order: these are seeds 0, 1, ...

    Raises
    ------
    DataError
        If the file cannot be read, holds no split, or a cell of one that is none of `WORDS`.
    """
    if not path.exists():
        raise DataError(f"there is no file of splits {short(path.name)}: add it, or correct its path")
    table = participants.read(path, settings.model_copy(update={"missing": None, "id_column": None}))
    columns = []
    for name in table.names[1:]:
        cells = set(table.column(name).known.values())
        strange = sorted(cell for cell in cells if cell.lower() not in WORDS)
        if not strange and cells:
            columns.append(name)
        elif len(strange) < len(cells):
            msg = (
                f"{table.file}: {quote(name)} holds {listed([quote(c) for c in strange[:3]], 60)} beside train, val and "
                "test: correct the cells, or leave them empty"
            )
            raise DataError(msg)
    if not columns:
        msg = f"{short(path.name)} holds no column of train, val (validation) and test: write one per split"
        raise DataError(msg)
    return table, _by_seed(columns)


def _by_seed(columns: list[str]) -> list[str]:
    """Columns in the order of the seeds that they are called by, as they are where these are not 0, 1, ..."""
    numbers = {}
    for name in columns:
        if (number := _SEED.fullmatch(name)) is not None:
            numbers[int(number[1])] = name
    if sorted(numbers) != list(range(len(columns))):
        return columns
    return [numbers[seed] for seed in sorted(numbers)]


def parts(table: participants.Participants, column: str) -> dict[str, str]:
    """Subject to train, val or test, for those who take part.

    Raises
    ------
    DataError
        If the rows of a subject differ.
    """
    found = table.column(column)
    for subject in sorted(found.differing)[:1]:
        raise DataError(f"sub-{subject}: {found.unknown[subject]}")
    return {subject: WORDS[cell.lower()] for subject, cell in found.known.items()}
