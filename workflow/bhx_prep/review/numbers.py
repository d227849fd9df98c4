"""Quality measures of a run under XCP-D's names (``desc-linc_qc`` tables)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

#: XCP-D's names, with what they are here. Those of registration come from ``desc-quality`` files.
XCPD: Final = {
    "mean_fd": "mean framewise displacement (mm), without frames before the signal is steady",
    "mean_fd_post_censoring": "the same of the frames that are used",
    "mean_relative_rms": "mean displacement from frame to frame (mm, FSL's rmsd) of the frames that are used",
    "max_relative_rms": "the largest of them",
    "mean_dvars_initial": "mean DVARS before denoising, without frames before the signal is steady",
    "mean_dvars_final": "mean DVARS after denoising, of voxels: not computed, denoising works on parcels",
    "num_dummy_volumes": "frames before the signal is steady",
    "num_censored_volumes": "further frames that are not used",
    "num_retained_volumes": "frames that are used",
    "fd_dvars_correlation_initial": "correlation of framewise displacement and DVARS before denoising",
    "fd_dvars_correlation_final": "the same after denoising, of voxels: not computed",
    "coreg_dice": "Dice of the brain masks of BOLD and T1w, in the space of the T1w",
    "coreg_correlation": "correlation of the same masks",
    "coreg_overlap": "overlap of the same masks: of the smaller one",
    "norm_dice": "Dice of the brain masks of the scan and of the template",
    "norm_correlation": "correlation of the same masks",
    "norm_overlap": "overlap of the same masks: of the smaller one",
}


def of_run(
    table: pd.DataFrame | None, fd_mm: Sequence[float | None] | None, kept: Sequence[bool] | None
) -> dict[str, float | None]:
    """Numbers of a run's motion and intensities.

    Parameters
    ----------
    table : DataFrame, optional
        Its confounds, with columns in fMRIPrep's names.
    fd_mm : sequence of T numbers, optional
        Framewise displacement; None or NaN where it is not known.
    kept : sequence of T bool, optional
        Frames that are used.

    Returns
    -------
    dict
        Of `XCPD` what can be known; None where a column is missing.
    """
    n_frames = next((len(values) for values in (kept, fd_mm, table) if values is not None), 0)
    if not n_frames:
        return {}
    fd = _column(fd_mm, n_frames)
    used = np.ones(n_frames, bool) if kept is None else np.asarray(kept, bool)
    dummies = np.zeros(n_frames, bool)
    if table is not None and len(table) == n_frames:
        outliers = [name for name in table.columns if str(name).startswith("non_steady_state_outlier")]
        dummies = (table[outliers].to_numpy() > 0).any(axis=1) if outliers else dummies
        dvars, rms = (
            table[name].to_numpy(np.float64) if name in table else _column(None, n_frames)
            for name in ("dvars", "rmsd")
        )
    else:
        dvars = rms = _column(None, n_frames)
    found: dict[str, float | None] = {
        "mean_fd": _mean(fd[~dummies]),
        "mean_fd_post_censoring": _mean(fd[used & ~dummies]) if kept is not None else None,
        "mean_relative_rms": _mean(rms[used & ~dummies]),
        "max_relative_rms": _largest(rms[used & ~dummies]),
        "mean_dvars_initial": _mean(dvars[~dummies]),
        "num_dummy_volumes": float(dummies.sum()) if table is not None else None,
        "fd_dvars_correlation_initial": _correlation(fd[~dummies], dvars[~dummies]),
    }
    if kept is not None:
        found["num_retained_volumes"] = float(used.sum())
        found["num_censored_volumes"] = float((~used & ~dummies).sum())
    return found


def _column(values: Sequence[float | None] | None, n_frames: int) -> np.ndarray:
    if values is None or len(values) != n_frames:
        return np.full(n_frames, np.nan)
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _largest(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else None


def _correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Correlation of what both have; None of fewer than three values, or of a constant."""
    both = np.isfinite(one) & np.isfinite(other)
    one, other = one[both], other[both]
    if one.size < 3 or not one.std() or not other.std():
        return None
    return float(np.corrcoef(one, other)[0, 1])
