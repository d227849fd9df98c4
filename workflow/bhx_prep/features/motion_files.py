"""Motion parameters that pipelines other than fMRIPrep write, under fMRIPrep's names and in its units.

===========================  ==============================================================  =====================
file                         columns                                                         written by
===========================  ==============================================================  =====================
``Movement_Regressors.txt``  three translations (mm), three rotations (degrees), ..          HCP pipelines
``Movement_RelativeRMS.txt`` displacement since the frame before (mm), after Jenkinson       HCP pipelines
``*.par``                    three rotations (rad), three translations (mm)                  FSL's mcflirt
``*_motion.tsv``             X, Y, Z (mm), RotX, RotY, RotZ (degrees), .., with a header     abcd-hcp-pipeline
===========================  ==============================================================  =====================

Nothing but motion is known from them: a strategy that asks for other signals is refused.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bhx_model.errors import DataError
from bhx_prep.io import motion, notes
from bhx_prep.io.notes import short
from bhx_prep.io.reading import reading

#: Column that holds what `Movement_RelativeRMS.txt` measures.
DISPLACEMENT = "framewise_displacement"
_RUN = re.compile(r"_run-[A-Za-z0-9]+_")
_HEADER = ("X", "Y", "Z", "RotX", "RotY", "RotZ")


def is_motion_file(path: Path) -> bool:
    """Whether a file is one of the table above, by its name."""
    return path.name.startswith("Movement_") or path.name.endswith((".par", "_motion.tsv"))


def read(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Motion of every frame, in fMRIPrep's names: mm and radians; and what is to be noted of it.

    Raises
    ------
    DataError
        If the file is no table of as many numbers as it should have.
    """
    if path.name.endswith("_motion.tsv") and (runs := _runs(path)):
        return pd.concat([_with_displacement(_read(run)) for run in runs], ignore_index=True), []
    if path.name == "Movement_RelativeRMS.txt":
        with reading(path, "is no table of motion parameters"):
            table = pd.read_csv(path, sep=r"\s+", header=None)
        table = pd.DataFrame({DISPLACEMENT: _values(table, list(table.columns[:1]), 1, path)[:, 0]})
        return table, [
            notes.note(notes.Kind.MOTION, f"{short(path.name)}: after Jenkinson, about half of Power's")
        ]
    return _read(path), []


def joins(path: Path) -> tuple[int, ...]:
    """Frames at which another run begins, where a file's motion is that of several runs."""
    runs = _runs(path) if path.name.endswith("_motion.tsv") else []
    return tuple(itertools.accumulate(len(_read(run)) for run in runs[:-1]))


def _runs(path: Path) -> list[Path]:
    """Files of all runs next to that of one of them: abcd-hcp-pipeline joins the series of the runs into one."""
    beside = path.parent.glob(_RUN.sub("_run-*_", path.name))
    return sorted(beside, key=lambda run: [int(n) for n in re.findall(r"_run-(\d+)", run.name)])


def _with_displacement(table: pd.DataFrame) -> pd.DataFrame:
    """A run with its displacement, 0 in its first frame: what moved between two runs is not known."""
    displacement = motion.framewise_displacement(table.to_numpy(np.float64))
    return table.assign(**{DISPLACEMENT: np.nan_to_num(displacement)})


def _read(path: Path) -> pd.DataFrame:
    """The six parameters of every frame."""
    has_header = path.name.endswith(".tsv")
    with reading(path, "is no table of motion parameters"):
        table = pd.read_csv(path, sep=r"\s+", header=0 if has_header else None)
    columns = [c for c in _HEADER if c in table] if has_header else list(table.columns[:6])
    values = _values(table, columns, 6, path)
    if path.name.endswith(".par"):
        values = values[:, [3, 4, 5, 0, 1, 2]]
    else:
        values[:, 3:] = np.deg2rad(values[:, 3:])
    return pd.DataFrame(values, columns=list(motion.NAMES))


def _values(table: pd.DataFrame, columns: list[Any], n: int, path: Path) -> np.ndarray:
    if len(columns) < n or table.empty:
        msg = f"{short(path.name)} has {len(columns)} columns of motion parameters: expected {n}"
        raise DataError(msg)
    with reading(path, "holds values that are no numbers"):
        values = table[columns].to_numpy(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{short(path.name)} holds values that are no numbers")
    return values
