"""Quality measures of a run, and the thresholds that exclude one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bhx_model.data.augment import patch_frames
from bhx_model.errors import DataError, LimitError
from bhx_prep.config.features import FeaturesSection


def motion(fd_mm: np.ndarray) -> tuple[float | None, float | None]:
    """Mean and largest framewise displacement (mm) of (T,) values; None where nothing is known."""
    known = fd_mm[np.isfinite(fd_mm)]
    return (float(known.mean()), float(known.max())) if known.size else (None, None)


def tsnr(series: np.ndarray) -> float | None:
    """Median over parcels of temporal mean / temporal sd, before denoising.

    Parameters
    ----------
    series : (R, T)
        As it stands in the file.

    Returns
    -------
    float or None
        None if the series were centred before (their means lie below a tenth of their sd): it then means nothing.
    """
    rows = series[np.isfinite(series).all(axis=1)].astype(np.float64)
    sd = rows.std(axis=1)
    rows, sd = rows[sd > 0], sd[sd > 0]
    if not rows.size:
        return None
    value = float(np.median(rows.mean(axis=1) / sd))
    return value if abs(value) >= 0.1 else None


def covered(series: np.ndarray) -> int:
    """How many of the rows of (R, T) series hold values."""
    return int(np.isfinite(series).all(axis=1).sum())


def check_run(n_covered: int, n_rois: int, mean_fd_mm: float | None, settings: FeaturesSection) -> None:
    """Compare a run with the thresholds on coverage and motion.

    Parameters
    ----------
    n_covered : int
        Parcels that hold values.
    n_rois : int
        Parcels of the atlas.
    mean_fd_mm : float, optional
        Mean framewise displacement (mm); None where it is not known, which excludes nothing.
    settings : FeaturesSection

    Raises
    ------
    LimitError
        With every threshold that the run fails.
    DataError
        If no parcel holds values.
    """
    reasons = []
    wanted = settings.min_rois * n_rois
    if n_covered < wanted:
        reasons.append(
            f"{n_covered} of {n_rois} parcels are covered, features.min_rois"
            f" ({settings.min_rois:g}) asks for {math.ceil(wanted - 1e-9)}"
        )
    if mean_fd_mm is not None and mean_fd_mm > settings.max_mean_fd_mm:
        reasons.append(
            f"mean framewise displacement {mean_fd_mm:.2f} mm is above features.max_mean_fd_mm,"
            f" {settings.max_mean_fd_mm:g}"
        )
    if reasons:
        raise (LimitError if n_covered else DataError)("; ".join(reasons))


def check_template(dice: float, correlation: float, settings: FeaturesSection) -> None:
    """Compare how well a T1 fits the template with the thresholds.

    Raises
    ------
    LimitError
        With both numbers, if one is below.
    """
    if dice < settings.t1w_min_dice or correlation < settings.t1w_min_correlation:
        hint = "is it in MNI space?" if dice < settings.t1w_min_dice else "is it a T1w image of a head?"
        msg = (
            f"it does not match the template: Dice {dice:.2f}, correlation {correlation:.2f} (features.t1w_min_dice"
            f" {settings.t1w_min_dice:g}, t1w_min_correlation {settings.t1w_min_correlation:g}); {hint}"
        )
        raise LimitError(msg)


def check_length(
    kept: np.ndarray, segments: Sequence[Sequence[int]] | None, tr_s: float, settings: FeaturesSection
) -> None:
    """Compare what is left of a run with the shortest length.

    Where frames were cut, what counts is what the model reads: whole patches between the cuts.

    Parameters
    ----------
    kept : (T,) bool
        Frames that are kept.
    segments : sequence of (int, int), optional
        Their ranges if there are several, see `bhx_model.data.segments`.
    tr_s : float
        Repetition time (s).
    settings : FeaturesSection

    Raises
    ------
    LimitError
        If it is shorter.
    DataError
        If it has not even one patch.
    """
    patch = patch_frames(tr_s, settings.patch_seconds)
    said, seconds = f"{kept.sum()} of {kept.size} frames are kept", kept.sum() * tr_s
    if segments is not None:
        longest = max(stop - first for first, stop in segments)
        said += (
            f", {seconds:.0f} s in {len(segments)} pieces, the longest {longest * tr_s:.0f} s;"
            f" in whole patches of {patch * tr_s:.0f} s that is"
        )
        seconds = sum((stop - first) // patch * patch for first, stop in segments) * tr_s
    else:
        said += ","
    if seconds < settings.min_seconds:
        msg = f"{said} {seconds:.0f} s: less than features.min_seconds, {settings.min_seconds:g}"
        raise (LimitError if seconds >= patch * tr_s else DataError)(msg)
