"""A table of features per subject of a cohort, which a baseline reads; an ``.npz`` without pickled objects."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from bhx_model.atomic_write import atomic_write
from bhx_model.data import npz
from bhx_model.errors import DataError

#: Version of the form of the file.
VERSION: Final = 1
_ABOUT: Final = {"version", "cohort", "what", "synthetic"}


@dataclasses.dataclass(frozen=True)
class FeatureTable:
    """Numbers of the subjects of one cohort, or of several that were joined."""

    what: str
    """Kind of connectivity, or `volumes`."""
    synthetic: bool
    """Whether any of the data were made, not measured."""
    cohorts: tuple[str, ...]
    people: list[str]
    """N, ``cohort/label``."""
    columns: list[str]
    """Names of the numbers, or of the ROIs whose pairs they are of."""
    values: np.ndarray
    """(N, P) float32, NaN for what is missing."""

    def rows(self, people: Sequence[str], lacking: str | None) -> np.ndarray:
        """Numbers of some subjects.

        Parameters
        ----------
        people : sequence of str
            n, ``cohort/label``.
        lacking : str or None
            What a subject without numbers lacks, for the message; None gives it NaN.

        Returns
        -------
        ndarray, (n, P) float32

        Raises
        ------
        DataError
            If a subject has none.
        """
        place = {one: i for i, one in enumerate(self.people)}
        absent = [one for one in people if one not in place]
        if absent and lacking is not None:
            msg = f"{len(absent)} subjects of the split have no {lacking}, e.g. {absent[0]}: make the split again"
            raise DataError(msg)
        found = np.full((len(people), self.values.shape[1]), np.nan, np.float32)
        known = [i for i, one in enumerate(people) if one in place]
        found[known] = self.values[[place[people[i]] for i in known]]
        return found


def join(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Put the tables of several cohorts under each other.

    Raises
    ------
    DataError
        If they are not of the same numbers.
    """
    first = tables[0]
    for other in tables[1:]:
        if (other.what, other.columns) != (first.what, first.columns):
            msg = (
                f"{first.what} of {first.cohorts[0]} and {other.what} of {other.cohorts[0]} are not of the same regions: "
                "test on cohorts of one atlas and one FreeSurfer"
            )
            raise DataError(msg)
    if len(tables) == 1:
        return first
    return FeatureTable(
        first.what,
        any(table.synthetic for table in tables),
        tuple(cohort for table in tables for cohort in table.cohorts),
        [one for table in tables for one in table.people],
        first.columns,
        np.concatenate([table.values for table in tables]),
    )


def write(table: FeatureTable, path: Path) -> None:
    """Write the file of one cohort; equal numbers give equal bytes."""
    (cohort,) = table.cohorts
    about = {"version": VERSION, "cohort": cohort, "what": table.what, "synthetic": table.synthetic}
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(
            file,
            about=np.array(json.dumps(about, sort_keys=True)),
            subjects=np.array([one.split("/")[1] for one in table.people], str),
            columns=np.array(table.columns, str),
            values=table.values,
        )


def read(path: Path) -> FeatureTable:
    """Read the file.

    Raises
    ------
    DataError
        If it is no such file, or of another version.
    """
    remedy = "remove it and make it again"
    try:
        arrays = npz.read(path, remedy)
    except FileNotFoundError as error:
        msg = f"there are no features at {path}: make them with `snakemake evaluate`"
        raise DataError(msg) from error
    about = npz.object_of(arrays.get("about"))
    whole = {"subjects", "columns", "values"} <= arrays.keys() and about.keys() >= _ABOUT
    if not whole or about["version"] != VERSION:
        msg = f"{path} is no file of features of version {VERSION}: {remedy}"
        raise DataError(msg)
    subjects, values = arrays["subjects"], arrays["values"]
    if values.ndim != 2 or len(subjects) != len(values) or np.isinf(values).any():
        msg = f"{path} has not a row of finite numbers per subject: {remedy}"
        raise DataError(msg)
    people, columns = [f"{about['cohort']}/{s}" for s in subjects.tolist()], arrays["columns"].tolist()
    return FeatureTable(about["what"], bool(about["synthetic"]), (about["cohort"],), people, columns, values)
