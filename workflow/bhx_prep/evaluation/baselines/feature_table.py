"""A file of numbers per subject, of a cohort: what a baseline reads. As an ``.npz`` without pickled objects."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bhx_model.atomic_write import atomic_write
from bhx_model.data import npz
from bhx_model.errors import DataError

#: Version of the form of the file.
VERSION: Final = 1
_ABOUT: Final = {"version", "cohort", "what", "synthetic"}


@dataclasses.dataclass(frozen=True)
class FeatureTable:
    """Numbers of the subjects of one cohort."""

    cohort: str
    what: str
    """Kind of connectivity, or `volumes`."""
    synthetic: bool
    """Whether any of the data were made, not measured."""
    subjects: list[str]
    """N labels."""
    values: np.ndarray
    """(N, P) float32, NaN for what is missing."""
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What else the file says of them."""

    def rows(self, subjects: Sequence[str], lacking: str | None) -> np.ndarray:
        """Numbers of some subjects.

        Parameters
        ----------
        subjects : sequence of str
            n labels.
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
        place = {subject: i for i, subject in enumerate(self.subjects)}
        absent = [s for s in subjects if s not in place]
        if absent and lacking is not None:
            msg = f"{len(absent)} subjects of the split have no {lacking}, e.g. {absent[0]}: make the split again"
            raise DataError(msg)
        found = np.full((len(subjects), self.values.shape[1]), np.nan, np.float32)
        known = [i for i, s in enumerate(subjects) if s in place]
        found[known] = self.values[[place[subjects[i]] for i in known]]
        return found


def write(table: FeatureTable, path: Path) -> None:
    """Write the file; equal numbers give equal bytes."""
    about = {
        **table.about,
        "version": VERSION,
        "cohort": table.cohort,
        "what": table.what,
        "synthetic": table.synthetic,
    }
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(
            file,
            about=np.array(json.dumps(about, sort_keys=True)),
            subjects=np.array(table.subjects, str),
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
    about = _about(arrays.get("about"))
    if (
        not {"subjects", "values"} <= arrays.keys()
        or not about.keys() >= _ABOUT
        or about["version"] != VERSION
    ):
        msg = f"{path} is no file of features of version {VERSION}: {remedy}"
        raise DataError(msg)
    subjects, values = arrays["subjects"], arrays["values"]
    if values.ndim != 2 or len(subjects) != len(values) or np.isinf(values).any():
        msg = f"{path} has not a row of finite numbers per subject: {remedy}"
        raise DataError(msg)
    return FeatureTable(
        about["cohort"], about["what"], bool(about["synthetic"]), subjects.tolist(), values, about
    )


def _about(array: np.ndarray | None) -> dict[str, Any]:
    try:
        value = json.loads(str(array))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
