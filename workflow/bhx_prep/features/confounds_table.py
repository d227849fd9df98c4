"""Read the confounds table of any version of fMRIPrep, with current column names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from bhx_model.errors import DataError
from bhx_prep.features import motion_files
from bhx_prep.io import motion, notes
from bhx_prep.io.notes import short
from bhx_prep.io.reading import reading

#: Names before fMRIPrep 1.2 -> names since; components and frames are counted behind them.
OLD_NAMES: Final = {
    "FramewiseDisplacement": "framewise_displacement",
    "GlobalSignal": "global_signal",
    "WhiteMatter": "white_matter",
    "CSF": "csf",
    "stdDVARS": "std_dvars",
    "non-stdDVARS": "dvars",
    **dict(zip(("X", "Y", "Z", "RotX", "RotY", "RotZ"), motion.NAMES, strict=True)),
}
OLD_STEMS: Final = {
    "aCompCor": "a_comp_cor_",
    "tCompCor": "t_comp_cor_",
    "Cosine": "cosine",
    "NonSteadyStateOutlier": "non_steady_state_outlier",
}


def read_table(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read a ``desc-confounds_timeseries.tsv``, or motion that another pipeline wrote; ``n/a`` becomes NaN.

    Returns
    -------
    table : DataFrame
        Columns of numbers, under the names that fMRIPrep has given them since 1.2.
    assumed : list of str
        What was assumed, see `bhx_prep.io.notes`.

    Raises
    ------
    DataError
        If it is no table of numbers whose columns have a name each.
    """
    if motion_files.is_motion_file(path):
        return motion_files.read(path)
    how: dict[str, Any] = {"sep": "\t", "na_values": ["n/a"], "encoding": "utf-8-sig", "header": None}
    with reading(path, "is no table of confounds"):
        header = [str(cell).strip() for cell in pd.read_csv(path, nrows=1, dtype=str, **how).iloc[0]]
        with path.open(encoding="utf-8", errors="replace") as lines:
            rows = sum(1 for _ in zip(lines, range(2), strict=False))
    if rows < 2:
        msg = f"{short(path.name)} is no table of confounds: it has one line: fetch or make it anew"
        raise DataError(msg)
    with reading(path, "is no table of confounds"):
        table = pd.read_csv(path, skiprows=1, **how)
    if len(header) == 1 and (separator := re.search(r"[,; ]", header[0])):
        msg = f"{short(path.name)} is no table of confounds: its columns are separated by {separator[0]!r}, not by tabs"
        raise DataError(msg)
    if table.shape[1] != len(header):
        msg = f"{short(path.name)} is no table of confounds: {len(header)} names, {table.shape[1]} columns of numbers"
        raise DataError(msg)
    if twice := [name for i, name in enumerate(header) if name in header[:i] and name != "nan"]:
        msg = f"{short(path.name)}: column {notes.quote(twice[0])} occurs twice: which is meant is not known"
        raise DataError(msg)
    named = {name: _numbers(table[i], name, path) for i, name in enumerate(header) if name != "nan"}
    old = {name: today for name in named if (today := _today(name)) not in (name, *named)}
    found = pd.DataFrame({old.get(name, name): values for name, values in named.items()})
    assumed = []
    if old:
        detail = (
            f"{short(path.name)} has names of fMRIPrep before 1.2, {len(old)} columns were read under today's"
        )
        assumed.append(notes.note(notes.Kind.TABLE, detail))
    return found, assumed


def matching(wanted: str, columns: Iterable[str]) -> list[str]:
    """Columns called `wanted`, in which ``*`` and ``?`` stand for any characters; in the order of their numbers."""
    if not re.search(r"[*?\[]", wanted):
        return [c for c in columns if c == wanted]
    pattern = re.compile(re.escape(wanted).replace(r"\*", ".*").replace(r"\?", "."))
    return sorted((c for c in columns if pattern.fullmatch(c)), key=_counted)


def _counted(name: str) -> tuple[str, int, str]:
    """Order in which ``a_comp_cor_100`` comes after ``a_comp_cor_99``."""
    number = re.search(r"\d+$", name)
    return (name[: number.start()], int(number[0]), name) if number else (name, -1, name)


def _today(name: str) -> str:
    if name in OLD_NAMES:
        return OLD_NAMES[name]
    stem = re.fullmatch(r"([A-Za-z]+)(\d+)", name)
    return OLD_STEMS[stem[1]] + stem[2] if stem and stem[1] in OLD_STEMS else name


def _numbers(cells: Any, name: str, path: Path) -> np.ndarray:
    """Values (T,) of a column, a pandas Series."""
    if pd.api.types.is_numeric_dtype(cells):
        return cells.to_numpy(np.float64)
    values: Any = pd.to_numeric(cells, errors="coerce")
    if (text := cells[values.isna() & cells.notna()]).size:
        msg = (
            f"{short(path.name)}: column {notes.quote(name)} holds text, {notes.quote(text.iloc[0])} in row"
            f" {text.index[0] + 1}, where numbers are expected"
        )
        raise DataError(msg)
    return values.to_numpy(np.float64)
