"""fMRIPrep's confounds, and the denoising strategies that select from them.

A strategy is a YAML file: which nuisance signals are regressed out, which band is kept, what is done with frames of
high motion; with prose and citation, so that a methods section can be written from it. Names of columns are those of
fMRIPrep 20 to 25, which did not change between them apart from aCompCor's (one name for all masks before 21).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from bhx_model.errors import ConfigError, DataError
from bhx_prep.config import yaml_file
from bhx_prep.config.features import strategy_file
from bhx_prep.config.section import Section, read_section
from bhx_prep.features import motion_files
from bhx_prep.features.confounds_table import matching, read_table
from bhx_prep.features.displacement import displacement
from bhx_prep.io import notes
from bhx_prep.io.notes import short


class Strategy(Section):
    """What is taken out of the series. Unknown keys are refused."""

    name: str = Field(description="Short name, as in the file's name.")
    prose: str = Field(description="What the strategy does, in sentences for a methods section.")
    citation: tuple[str, ...] = Field(description="Where it is from.")
    columns: tuple[str, ...] = Field(
        (), description="Confounds, by name; `*` and `?` stand for any of a kind."
    )
    derivatives: tuple[str, ...] = Field(
        (), description="Those of `columns` whose temporal difference is added."
    )
    squares: tuple[str, ...] = Field(
        (),
        description="Those of `columns` whose square is added, and the square of their difference if it is in.",
    )
    optional: tuple[str, ...] = Field((), description="Those of `columns` that a file may lack.")
    acompcor: int = Field(0, ge=0, description="Components from white matter, and as many from CSF.")
    band_pass_hz: tuple[float | None, float | None] = Field(
        (None, None),
        description="Lower and upper edge (Hz) of the band that is kept; null leaves that side open.",
    )
    detrend: bool = Field(False, description="Whether a straight line is taken out first.")
    despike: bool = Field(
        False, description="Whether outliers of each series are drawn in first. Not linear."
    )
    censor_fd_mm: float | None = Field(
        None,
        gt=0,
        description="Frames with a larger framewise displacement (mm) are censored; null keeps all.",
    )
    drop_frames: Literal["non_steady_state"] | None = Field(
        None,
        description="Which frames at the start are dropped: those that fMRIPrep marks, or none. What it marks later"
        " on is censored.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Strategy:
        for field in ("derivatives", "squares", "optional"):
            if wrong := [name for name in getattr(self, field) if name not in self.columns]:
                raise ConfigError(f"{field} names {wrong[0]!r}, which is not among columns: add it there")
        low, high = self.band_pass_hz
        if (low is not None and low <= 0) or (high is not None and high <= (low or 0)):
            raise ConfigError(f"band_pass_hz [{low}, {high}]: expected 0 < lower < upper")
        return self

    @property
    def needs_confounds(self) -> bool:
        """Whether a run without a confounds table cannot be denoised."""
        return bool(self.columns or self.acompcor or self.censor_fd_mm or self.drop_frames)


@dataclass(frozen=True)
class Confounds:
    """A strategy applied to one run's table.

    Attributes
    ----------
    design : (T, C) float64
        Nuisance signals of the frames that are not dropped.
    names : tuple of str
        Names of its columns.
    dropped : int
        Frames dropped at the start.
    keep : (T,) bool
        False for censored frames.
    fd_mm : (T + dropped,) float64
        Framewise displacement of every frame of the file; NaN where it is not known (always in the first).
    without : tuple of str
        Optional columns that the table lacks.
    notes : tuple of str
        What was assumed or missing, see `bhx_prep.io.notes`.
    joins : tuple of int
        Frames of the file at which another run begins.
    """

    design: np.ndarray
    names: tuple[str, ...]
    dropped: int
    keep: np.ndarray
    fd_mm: np.ndarray
    without: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    joins: tuple[int, ...] = ()

    @property
    def fd_counted_mm(self) -> np.ndarray:
        """Displacement (mm) of the frames that are used, without the first: what came before it is not used."""
        return self.fd_mm[self.dropped :][1:][self.keep[1:]]


def load_strategy(name: str) -> Strategy:
    """Read a strategy by its name or the path of a YAML file.

    Raises
    ------
    ConfigError
        If there is no such strategy, its file cannot be read (`yaml_file.load`), or it has unknown keys or wrong values: all
        are named.
    """
    path = strategy_file(name)
    raw = yaml_file.load(path)
    if not isinstance(raw, dict):
        msg = f"{path} holds no strategy: a mapping with `name`, `prose` and `citation` is expected"
        raise ConfigError(msg)
    try:
        return read_section(Strategy, raw)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", error.mistakes) from None


def select(strategy: Strategy, path: Path, n_frames: int) -> Confounds:
    """Make the nuisance signals of one run.

    Temporal differences and squares are computed from the base columns, which is what fMRIPrep's own
    ``_derivative1`` and ``_power2`` hold. Where a signal is not defined in the first frame (a difference, or FD) its
    mean stands there, as in nilearn.

    Parameters
    ----------
    strategy : Strategy
    path : Path
        ``desc-confounds_timeseries.tsv``; its JSON beside it is read where aCompCor of fMRIPrep 20 needs it.
    n_frames : int
        Frames of the series.

    Raises
    ------
    DataError
        If columns are missing (all are named), rows and frames differ, or values are not finite.
    """
    table, assumed = read_table(path)
    if len(table) != n_frames:
        msg = f"{short(path.name)} has {len(table)} rows, the series {n_frames} frames: they are of different runs"
        raise DataError(msg)
    steady = ~_non_steady(table) if strategy.drop_frames else np.ones(n_frames, bool)
    dropped = int(np.argmax(steady)) if steady.any() else n_frames
    fd_mm, measured = displacement(table, path)
    signals, fewer = _signals(strategy, table, path)
    design = np.column_stack(list(signals.values())) if signals else np.zeros((n_frames, 0))
    design = _defined(design[dropped:], tuple(signals), path)
    keep = steady[dropped:].copy()
    if strategy.censor_fd_mm is not None:
        # the displacement of the first used frame is from one that is not used
        unknown = int(np.isnan(fd_mm[dropped + 1 :]).sum())
        if unknown:
            msg = (
                f"{short(path.name)}: framewise displacement is not known in {unknown} of {n_frames} frames, nor are"
                " the motion parameters, so frames cannot be censored"
            )
            raise DataError(msg)
        keep[1:] &= fd_mm[dropped + 1 :] <= strategy.censor_fd_mm
    without = tuple(name for name in strategy.optional if not matching(name, table.columns))
    if without:
        lacking = f"the table lacks {', '.join(without)}: denoised without"
        fewer.append(notes.note(notes.Kind.CONFOUNDS, lacking))
    said = (*assumed, *measured, *fewer)
    return Confounds(design, tuple(signals), dropped, keep, fd_mm, without, said, motion_files.joins(path))


def without_table(strategy: Strategy, n_frames: int) -> Confounds:
    """Design of a strategy that needs no confounds, for a run that has none.

    Raises
    ------
    DataError
        If the strategy needs them.
    """
    if strategy.needs_confounds:
        msg = f"strategy {strategy.name!r} needs a confounds table (desc-confounds_timeseries.tsv) and there is none"
        raise DataError(msg)
    unknown = notes.note(notes.Kind.MOTION, "there is no confounds table: motion is not measured")
    return Confounds(
        np.zeros((n_frames, 0)), (), 0, np.ones(n_frames, bool), np.full(n_frames, np.nan), notes=(unknown,)
    )


def _defined(design: np.ndarray, names: tuple[str, ...], path: Path) -> np.ndarray:
    """The design (T, C), where what is not defined in the first frame has its mean there; refused if more is not."""
    unknown = ~np.isfinite(design)
    if (bad := unknown[1:].any(axis=0)).any():
        column = int(np.argmax(bad))
        msg = (
            f"{short(path.name)}: column {notes.quote(names[column])} is not finite in {unknown[:, column].sum()} of"
            f" {len(design)} frames: choose a strategy without it, or name it as `optional` and take it out"
        )
        raise DataError(msg)
    if len(design) and unknown[0].any():
        design = design.copy()
        design[0, unknown[0]] = design[1:, unknown[0]].mean(axis=0) if len(design) > 1 else 0
    return design


def _signals(strategy: Strategy, table: pd.DataFrame, path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Nuisance signals by name, and notes if there are fewer than the strategy specifies."""
    signals: dict[str, np.ndarray] = {}
    missing = []
    for wanted in strategy.columns:
        columns = matching(wanted, table.columns)
        if not columns and wanted not in strategy.optional:
            missing.append(wanted)
        for column in columns:
            base = table[column].to_numpy(np.float64)
            signals[column] = base
            if wanted in strategy.derivatives:
                signals[f"{column}_derivative1"] = np.r_[np.nan, np.diff(base)]
            if wanted in strategy.squares:
                signals[f"{column}_power2"] = base**2
                if wanted in strategy.derivatives:
                    signals[f"{column}_derivative1_power2"] = np.r_[np.nan, np.diff(base)] ** 2
    if missing:
        found = notes.quote(", ".join(map(str, table.columns)))
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        msg = (
            f"{short(path.name)} lacks {', '.join(missing[:3])}{more}, which strategy {notes.quote(strategy.name)} needs"
            f" (it has {found}): choose another, or name them `optional`"
        )
        raise DataError(msg)
    components, fewer = _acompcor(strategy.acompcor, table, path)
    for column in components:
        signals[column] = table[column].to_numpy(np.float64)
    return signals, fewer


def _acompcor(n: int, table: pd.DataFrame, path: Path) -> tuple[list[str], list[str]]:
    """First `n` components of white matter and of CSF each, or all where there are fewer; and notes on those."""
    if not n:
        return [], []
    by_mask: dict[str, list[str]] = {
        "WM": matching("w_comp_cor_*", table.columns),
        "CSF": matching("c_comp_cor_*", table.columns),
    }
    if not any(by_mask.values()):  # before fMRIPrep 21 the sidecar alone says which mask a component is of
        masks = _masks(path)
        for mask in by_mask:
            by_mask[mask] = [c for c in matching("a_comp_cor_*", table.columns) if masks.get(c) == mask]
    fewer = []
    for mask, columns in by_mask.items():
        if not columns:
            msg = (
                f"{short(path.name)} has 0 aCompCor components of {mask}, the strategy needs {n}: choose a strategy without"
                " `acompcor`"
            )
            raise DataError(msg)
        if len(columns) < n:
            detail = f"{len(columns)} aCompCor components of {mask} where {n} are asked for: all were taken"
            fewer.append(notes.note(notes.Kind.CONFOUNDS, detail))
    return [c for columns in by_mask.values() for c in columns[:n]], fewer


def _masks(path: Path) -> dict[str, str]:
    """Mask of each component, from the table's sidecar."""
    sidecar = path.with_suffix(".json")
    try:
        metadata = json.loads(sidecar.read_text(encoding="utf-8"))
        return {name: fields["Mask"] for name, fields in metadata.items() if "Mask" in fields}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        msg = (
            f"{short(path.name)} has no w_comp_cor columns, and its .json, which would name the mask of each a_comp_cor,"
            " cannot be read: put fMRIPrep's own beside it"
        )
        raise DataError(msg) from error


def _non_steady(table: pd.DataFrame) -> np.ndarray:
    """Frames that fMRIPrep marks as non-steady, (T,) bool: each by a column of its own."""
    columns = matching("non_steady_state_outlier*", table.columns)
    return np.nan_to_num(table[columns].to_numpy(np.float64)).sum(axis=1) > 0
