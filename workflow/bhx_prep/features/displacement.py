"""Framewise displacement of a run: from its table, or computed from the six motion parameters, with a note."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bhx_model.errors import DataError
from bhx_prep.io import motion, notes
from bhx_prep.io.notes import short

COLUMN = "framewise_displacement"

#: No head moves by the same in so many frames: such a column was filled in.
FEWEST = 100
#: Medians (mm) of the column and of what the parameters give are noted where they differ by more than this factor, from
#: this one on: other definitions (Jenkinson's, a filter of breathing) stay within.
NOTED_RATIO, NOTED_MM = 4.0, 0.2
#: No head turns that far (rad) in a scanner: parameters beyond it are in degrees.
LARGEST_ROTATION = 1.0


def displacement(table: pd.DataFrame, path: Path) -> tuple[np.ndarray, list[str]]:
    """Framewise displacement (mm) of every frame, (T,), and what had to be done for it.

    The table's own column is taken. Where it lacks values beyond the first, or is 0 throughout, they are computed from
    the motion parameters.

    Parameters
    ----------
    table : DataFrame
        See `bhx_prep.features.confounds_table.read_table`.
    path : Path
        Where it is from.

    Returns
    -------
    fd_mm : ndarray, (T,)
        NaN where displacement is not known; always in the first frame, which has none before it.
    assumed : list of str
        Notes, see `bhx_prep.io.notes`.

    Raises
    ------
    DataError
        If a displacement is negative.
    """
    fd_mm = table[COLUMN].to_numpy(np.float64, copy=True) if COLUMN in table else np.full(len(table), np.nan)
    fd_mm[~np.isfinite(fd_mm)] = np.nan
    if (fd_mm < 0).any():
        msg = f"{short(path.name)}: {COLUMN} is negative in frame {np.flatnonzero(fd_mm < 0)[0]} (counted from 0)"
        raise DataError(msg)
    fd_mm[:1] = np.nan
    lacking = np.isnan(fd_mm)
    lacking[:1] = False
    if COLUMN not in table:
        what = f"{short(path.name)} has no {COLUMN}"
    elif lacking.any():
        what = f"{COLUMN} is n/a in {lacking.sum()} of {len(table)} frames"
    elif len(table) > 1 and not fd_mm[1:].any():
        what = f"{COLUMN} is 0 in every frame"
        lacking[1:] = True
        fd_mm[1:] = np.nan
    else:
        return fd_mm, _compared(fd_mm, table)
    computed, obstacle = _from_parameters(table)
    fd_mm[lacking] = computed[lacking]
    left = int(np.isnan(fd_mm[1:]).sum())
    if not left:
        detail = f"{what}: computed from the six motion parameters"
    elif left == len(table) - 1:
        detail = f"{what}, and {obstacle}: motion is not measured"
    else:
        detail = f"{what}, and {obstacle}: motion is not measured in {left} frames"
    return fd_mm, [notes.note(notes.Kind.MOTION, detail)]


def _compared(fd_mm: np.ndarray, table: pd.DataFrame) -> list[str]:
    """A note where the table's displacement is most likely none, by itself or by its own motion parameters."""
    if len(fd_mm) > FEWEST and np.ptp(fd_mm[1:]) == 0:
        return [notes.note(notes.Kind.MOTION, f"{COLUMN} is {fd_mm[1]:g} mm in every frame")]
    computed, _ = _from_parameters(table)
    if len(fd_mm) < 2 or not np.isfinite(computed[1:]).all():
        return []
    given, ours = float(np.median(fd_mm[1:])), float(np.median(computed[1:]))
    if max(given, ours) < NOTED_MM or 1 / NOTED_RATIO < given / max(ours, 1e-9) < NOTED_RATIO:
        return []
    detail = (
        f"{COLUMN} has median {given:.2g} mm, its motion parameters give {ours:.2g} mm: the column is used"
    )
    return [notes.note(notes.Kind.MOTION, detail)]


def _from_parameters(table: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Displacement from the motion parameters, (T,), and why it is NaN where it is."""
    unknown = np.full(len(table), np.nan)
    if missing := [name for name in motion.NAMES if name not in table]:
        return (
            unknown,
            f"{'the six motion parameters are' if len(missing) == 6 else missing[0] + ' is'} missing",
        )
    parameters = table[list(motion.NAMES)].to_numpy(np.float64, copy=True)
    parameters[~np.isfinite(parameters)] = np.nan
    if (np.abs(parameters[:, 3:]) > LARGEST_ROTATION).any():
        return unknown, "the rotations are in degrees, not in radians"
    fd_mm = motion.framewise_displacement(parameters)
    if not np.nan_to_num(fd_mm).any():
        return unknown, "the motion parameters never change"
    return fd_mm, "so are the motion parameters"
