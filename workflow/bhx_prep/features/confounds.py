"""fMRIPrep's confounds and the strategies that choose among them.

A strategy is a YAML file: which nuisance signals are regressed out, which band is kept, what is done with frames of
high motion; with prose and citation, so that a methods section can be written from it. Names of columns are those of
fMRIPrep 20 to 25, which did not change between them apart from aCompCor's.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import Field, ValidationError, model_validator

from bhx_model.errors import ConfigError, DataError
from bhx_prep.config.features import strategy_file
from bhx_prep.config.section import Section
from bhx_prep.io import motion
from bhx_prep.io.reading import reading


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
        None, description="Which frames at the start are dropped: those that fMRIPrep marks, or none."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Strategy:
        for field in ("derivatives", "squares", "optional"):
            if wrong := [name for name in getattr(self, field) if name not in self.columns]:
                raise ConfigError(f"{field} names {wrong[0]!r}, which is not among columns")
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
        Framewise displacement of every frame of the file; NaN where it is not defined (the first).
    without : tuple of str
        Optional columns that the table lacks.
    """

    design: np.ndarray
    names: tuple[str, ...]
    dropped: int
    keep: np.ndarray
    fd_mm: np.ndarray
    without: tuple[str, ...] = ()


def load_strategy(name: str) -> Strategy:
    """Read a strategy by its name or the path of a YAML file.

    Raises
    ------
    ConfigError
        If there is no such strategy, or it has unknown keys or wrong values: all of them are named.
    """
    path = strategy_file(name)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read: {error}"
        raise ConfigError(msg) from error
    except yaml.YAMLError as error:
        msg = f"{path} is not YAML: {error}"
        raise ConfigError(msg) from error
    if not isinstance(raw, dict):
        msg = f"{path} holds no strategy: a mapping with `name`, `prose` and `citation` is expected"
        raise ConfigError(msg)
    try:
        return Strategy.model_validate(raw)
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or path.stem}: {e['msg']}" for e in error.errors()
        )
        msg = f"{path}: {mistakes}"
        raise ConfigError(msg) from None


def read_table(path: Path) -> pd.DataFrame:
    """Read a ``desc-confounds_timeseries.tsv``; ``n/a`` becomes NaN.

    Raises
    ------
    DataError
        If it is no table of numbers.
    """
    with reading(path, "is no table of confounds"):
        table = pd.read_csv(path, sep="\t", na_values=["n/a"])
    texts = [str(c) for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
    if texts:
        msg = f"{path.name}: column {texts[0]!r} holds text where numbers are expected"
        raise DataError(msg)
    return table


def framewise_displacement(table: pd.DataFrame) -> np.ndarray:
    """Framewise displacement (mm) of every frame, (T,): as given, or from the motion parameters.

    All NaN where the table has neither.
    """
    if "framewise_displacement" in table:
        return table["framewise_displacement"].to_numpy(np.float64)
    if not set(motion.NAMES) <= set(table.columns):
        return np.full(len(table), np.nan)
    return motion.framewise_displacement(table[list(motion.NAMES)].to_numpy(np.float64))


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
    table = read_table(path)
    if len(table) != n_frames:
        msg = f"{path.name} has {len(table)} rows, the series {n_frames} frames: they are of different runs"
        raise DataError(msg)
    dropped = _leading_non_steady(table) if strategy.drop_frames else 0
    fd_mm = framewise_displacement(table)
    signals = _signals(strategy, table, path)
    names = tuple(signals)
    design = np.column_stack(list(signals.values())) if signals else np.zeros((n_frames, 0))
    design = design[dropped:]
    if design.size:
        undefined = np.isnan(design[0])
        design[0, undefined] = np.nanmean(design[1:, undefined], axis=0) if len(design) > 1 else 0
    if not np.isfinite(design).all():
        bad = names[int(np.flatnonzero(~np.isfinite(design).all(axis=0))[0])]
        msg = f"{path.name}: column {bad!r} is not finite in every frame"
        raise DataError(msg)
    keep = np.ones(n_frames - dropped, bool)
    if strategy.censor_fd_mm is not None:
        if not np.isfinite(fd_mm).any():
            msg = f"{path.name} has neither framewise_displacement nor motion parameters, so frames cannot be censored"
            raise DataError(msg)
        keep = ~(fd_mm[dropped:] > strategy.censor_fd_mm)
    without = tuple(name for name in strategy.optional if not _matching(name, table.columns))
    return Confounds(design, names, dropped, keep, fd_mm, without)


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
    return Confounds(np.zeros((n_frames, 0)), (), 0, np.ones(n_frames, bool), np.full(n_frames, np.nan))


def _signals(strategy: Strategy, table: pd.DataFrame, path: Path) -> dict[str, np.ndarray]:
    signals: dict[str, np.ndarray] = {}
    missing = []
    for wanted in strategy.columns:
        columns = _matching(wanted, table.columns)
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
        found = ", ".join(map(str, table.columns[:6])) + (", .." if table.shape[1] > 6 else "")
        old = " (names of fMRIPrep before 1.2: run a newer one)" if "FramewiseDisplacement" in table else ""
        msg = (
            f"{path.name} lacks {', '.join(missing)}, which strategy {strategy.name!r} needs; it has {found}{old}."
            " Choose a strategy without them, or name them as `optional` in its YAML"
        )
        raise DataError(msg)
    for column in _acompcor(strategy.acompcor, table, path):
        signals[column] = table[column].to_numpy(np.float64)
    return signals


def _matching(wanted: str, columns: Iterable[str]) -> list[str]:
    if not re.search(r"[*?\[]", wanted):
        return [c for c in columns if c == wanted]
    return sorted(c for c in columns if fnmatch.fnmatchcase(c, wanted))


def _acompcor(n: int, table: pd.DataFrame, path: Path) -> list[str]:
    """First `n` components of white matter and of CSF each."""
    if not n:
        return []
    by_mask: dict[str, list[str]] = {
        "WM": _matching("w_comp_cor_*", table.columns),
        "CSF": _matching("c_comp_cor_*", table.columns),
    }
    if not any(by_mask.values()):  # before fMRIPrep 21 the sidecar alone says which mask a component is of
        sidecar = path.with_suffix(".json")
        try:
            metadata = json.loads(sidecar.read_text(encoding="utf-8"))
            masks = {name: fields["Mask"] for name, fields in metadata.items() if "Mask" in fields}
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
            msg = (
                f"{path.name} has no w_comp_cor and c_comp_cor columns, and {sidecar.name}, which would name the masks of"
                " the others, cannot be read: put fMRIPrep's own beside it"
            )
            raise DataError(msg) from error
        for mask in by_mask:
            by_mask[mask] = [c for c in _matching("a_comp_cor_*", table.columns) if masks.get(c) == mask]
    for mask, columns in by_mask.items():
        if len(columns) < n:
            msg = f"{path.name} has {len(columns)} aCompCor components of {mask}, the strategy needs {n}"
            raise DataError(msg)
    return [c for columns in by_mask.values() for c in columns[:n]]


def _leading_non_steady(table: pd.DataFrame) -> int:
    """How many frames at the start are marked, each by a column of its own."""
    columns = _matching("non_steady_state_outlier*", table.columns)
    marked = table[columns].to_numpy(np.float64).sum(axis=1) > 0 if columns else np.zeros(len(table), bool)
    return int(np.argmin(marked)) if not marked.all() else len(table)
