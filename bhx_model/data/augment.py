"""Prepare a stored series for the function encoder: TR down-sampling, crop, patch length. Needs no torch.

Of a run from which frames were cut, every segment is down-sampled by itself and gives whole patches only: neither filter
nor patch ever crosses a cut.

`plan_series` needs the length and the TR of a run only, so batches can be bucketed by (patch length,
patches) before anything is read; `apply_plan` then cuts the series.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bhx_model.config import FunctionConfig
from bhx_model.data import segments as cut_runs
from bhx_model.data.segments import Segments
from bhx_model.errors import DataError

_STREAM: Final = 4  # keeps these random numbers apart from those of the masks


def patch_frames(tr_s: float, window_s: float = 35.28) -> int:
    """Frames per temporal patch of a series with repetition time `tr_s`.

    Parameters
    ----------
    tr_s
        Repetition time, s.
    window_s
        Duration of a patch, s; 48 frames of UK Biobank in the paper.

    Returns
    -------
    int
        ``round(window_s / tr_s)``, at least 1: 48 at 0.735 s, 18 at 2 s (which last 36 s, 2 % more).

    Raises
    ------
    DataError
        If `tr_s` is not positive.
    """
    if not (math.isfinite(tr_s) and tr_s > 0):
        msg = f"TR is {tr_s} s: give a positive number of seconds"
        raise DataError(msg)
    return max(round(window_s / tr_s), 1)


@dataclasses.dataclass(frozen=True, slots=True)
class SeriesPlan:
    """Which frames of a stored series are read, and how."""

    factor: int
    """Down-sampling factor, 1 for none."""
    start: int
    """First frame, counted after down-sampling."""
    n_frames: int
    """Frames kept, counted after down-sampling."""
    tr_s: float
    """Repetition time after down-sampling, s; where it is fixed, the one that the series is taken to have."""
    patch_frames: int
    """k, frames per patch."""
    n_patches: int
    """Patches that hold data; the last may be partial."""
    parts: Segments = ()
    """Ranges of stored frames, each of which gives whole patches by itself; empty for a run without a cut."""

    @property
    def bucket(self) -> tuple[int, int]:
        """Series of equal bucket stack into one batch."""
        return self.patch_frames, self.n_patches


def plan_series(
    tr_s: float,
    n_frames: int,
    config: FunctionConfig,
    *,
    segments: Segments | None = None,
    seed: int = 0,
    epoch: int = 0,
    sample: int | None = None,
) -> SeriesPlan:
    """Decide what is read of a run of `n_frames` frames.

    Parameters
    ----------
    tr_s, n_frames
        Repetition time (s) and length of the stored series.
    config
        Window, longest series, augmentation.
    segments
        Of a run from which frames were cut, see `bhx_model.data.segments`.
    seed, epoch, sample
        In training, the numbers that fix the random choices; `sample` None (evaluation) draws nothing:
        no down-sampling, and the first `time_patches` patches.

    Raises
    ------
    DataError
        If the TR is not positive, or the series, or its longest segment, is shorter than one patch.
    """
    places = cut_runs.places(segments, n_frames)
    longest = max(stop - start for start, stop in places)
    factor, k = 1, patch_frames(tr_s, config.window_s)
    if config.tr == "fixed":
        factor, k = max(round(config.base_tr_s / tr_s), 1), config.base_patch
    if longest // factor < k:
        what = "series" if segments is None else f"series cut into {len(places)} segments, the longest"
        msg = (
            f"{what} of {longest} frames at TR {tr_s} s is shorter than one patch of {k * factor} frames "
            f"({config.window_s:g} s): exclude it"
        )
        raise DataError(msg)
    rng = None if sample is None else np.random.default_rng([_STREAM, seed, epoch, sample])
    if rng is not None and config.tr_augment:  # never with a fixed TR
        fits = _factors(tr_s, longest, config.max_tr_s, config.window_s)
        factor = fits[int(rng.integers(len(fits)))]
    tr_s = config.base_tr_s if config.tr == "fixed" else tr_s * factor
    k = patch_frames(tr_s, config.window_s)
    if segments is not None:
        return _plan_parts(places, factor, tr_s, k, config.time_patches, rng)
    available = n_frames // factor if factor > 1 else n_frames
    kept = min(available, config.time_patches * k)
    spare = available - kept
    start = int(rng.integers(spare + 1)) if rng is not None and spare else 0
    return SeriesPlan(factor, start, kept, tr_s, k, math.ceil(kept / k))


@functools.lru_cache(maxsize=1024)
def _factors(tr_s: float, n_frames: int, max_tr_s: float, window_s: float) -> tuple[int, ...]:
    """Down-sampling factors up to a TR of `max_tr_s`; one may round a short series below one patch of its own."""
    most = max(int(max_tr_s / tr_s + 1e-6), 1)
    return tuple(f for f in range(1, most + 1) if n_frames // f >= patch_frames(tr_s * f, window_s))


def _plan_parts(
    places: Segments, factor: int, tr_s: float, k: int, time_patches: int, rng: np.random.Generator | None
) -> SeriesPlan:
    """Plan of a run with cuts: whole patches of every segment, as many as fit, from a random one on in training."""
    patches = [(stop - start) // factor // k for start, stop in places]
    parts = tuple(place for place, n in zip(places, patches, strict=True) if n)
    kept = min(sum(patches), time_patches)
    spare = sum(patches) - kept
    first = int(rng.integers(spare + 1)) if rng is not None and spare else 0
    return SeriesPlan(factor, first * k, kept * k, tr_s, k, kept, parts)


def apply_plan(
    series_RT: NDArray[np.floating],
    plan: SeriesPlan,
    config: FunctionConfig,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Cut a stored series as planned.

    Parameters
    ----------
    series_RT
        (R, T) stored series; rows of NaN are ROIs without coverage.
    plan
        From `plan_series` with this T.
    config
        Its `downsampling` decides how frames are dropped.
    out
        Where to put it; new memory without it.

    Returns
    -------
    (R, n_patches * patch_frames) float32
        NaN beyond the last frame: the model turns NaN into 0 after normalisation and knows by it what is padding.

    Raises
    ------
    DataError
        If the series is shorter than planned.
    """
    x = np.asarray(series_RT, dtype=np.float32)
    if plan.parts:
        k = plan.patch_frames
        parts = [_thinned(x[:, start:stop], plan.factor, config) for start, stop in plan.parts]
        x = np.concatenate([part[:, : part.shape[1] // k * k] for part in parts], axis=1)
    else:
        x = _thinned(x, plan.factor, config)
    x = x[:, plan.start : plan.start + plan.n_frames]
    if x.shape[1] != plan.n_frames:
        msg = f"series has {series_RT.shape[1]} frames, fewer than planned: its list and its array disagree"
        raise DataError(msg)
    if out is None:
        out = np.empty((len(x), plan.n_patches * plan.patch_frames), np.float32)
    out[:, : plan.n_frames] = x
    out[:, plan.n_frames :] = np.nan
    return out


def _thinned(x: NDArray[np.float32], factor: int, config: FunctionConfig) -> NDArray[np.float32]:
    if factor == 1:
        return x
    return downsample(x, factor) if config.downsampling == "antialiased" else pick_frames(x, factor)


def downsample(series_RT: NDArray[np.floating], factor: int) -> NDArray[np.float32]:
    """Keep every `factor`-th frame of a series after removing what the new rate cannot carry.

    Zero-phase low-pass (Hann-windowed sinc, cut-off at 0.9 of the new Nyquist frequency), evaluated at frames
    0, factor, 2 factor, ... only. Ends are continued by odd reflection, which keeps level and slope.

    Parameters
    ----------
    series_RT
        (R, T); a row of NaN stays one.
    factor
        1 or more.

    Returns
    -------
    (R, T // factor) float32
    """
    x = np.asarray(series_RT, dtype=np.float64)
    kernel = _low_pass(factor)
    half = min(len(kernel) // 2, x.shape[1] - 1)
    kernel = kernel[len(kernel) // 2 - half : len(kernel) // 2 + half + 1]
    kernel = kernel / kernel.sum()
    left = 2 * x[:, :1] - x[:, half:0:-1]
    right = 2 * x[:, -1:] - x[:, -2 : -half - 2 : -1]
    padded = np.concatenate([left, x, right], axis=1)
    n = x.shape[1] // factor
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=1)[:, : n * factor : factor]
    return (frames @ kernel).astype(np.float32)


def pick_frames(series_RT: NDArray[np.floating], factor: int) -> NDArray[np.float32]:
    """Drop frames as the reference does: ``floor(linspace(0, factor * n - 1, n))``, unevenly and without a filter.

    Kept for preset `reference`. Returns (R, T // factor) float32.
    """
    n = series_RT.shape[1] // factor
    return np.asarray(series_RT[:, np.linspace(0, factor * n - 1, n).astype(int)], dtype=np.float32)


@functools.cache
def _low_pass(factor: int) -> NDArray[np.float64]:
    half = (
        8 * factor
    )  # 8 zero crossings a side: pass band flat to 1 % up to 0.75 of the new Nyquist frequency
    t = np.arange(-half, half + 1)
    if factor == 1:
        return (t == 0).astype(np.float64)
    return np.sinc(0.9 * t / factor) * np.hanning(2 * half + 3)[1:-1]


def check_series(
    series_RT: NDArray[np.floating],
    tr_s: float,
    n_rois: int,
    config: FunctionConfig,
    segments: Segments | None = None,
) -> None:
    """Refuse a series that the model cannot embed.

    Parameters
    ----------
    series_RT
        (R, T) parcel means; a row of NaN is an ROI without coverage.
    tr_s
        Repetition time, s.
    n_rois
        ROIs of the model.
    config
        Of the function encoder.
    segments
        Of a run from which frames were cut.

    Raises
    ------
    DataError
        With what is wrong and how to fix it.
    """
    if series_RT.ndim != 2 or series_RT.shape[0] != n_rois:
        msg = f"series has shape {series_RT.shape}, the model needs ({n_rois} ROIs, frames): check atlas and axes"
        raise DataError(msg)
    plan_series(tr_s, series_RT.shape[1], config, segments=segments)
    check_values(series_RT)


def check_values(series_RT: NDArray[np.floating]) -> None:
    """Refuse a series (R, T) with missing or infinite values in an ROI that has others, or with a constant ROI.

    Raises
    ------
    DataError
        With the row, and how to fix it.
    """
    absent = np.isnan(series_RT).all(axis=1)
    if absent.all():
        msg = "series is NaN throughout: exclude it"
        raise DataError(msg)
    present = series_RT[~absent]
    if not np.isfinite(present).all():
        row = int(np.flatnonzero(~absent)[np.argmin(np.isfinite(present).all(axis=1))])
        msg = (
            f"ROI row {row} is NaN or infinite in some frames: interpolate them, or set the whole row to NaN"
        )
        raise DataError(msg)
    still = present.max(axis=1) == present.min(axis=1)
    if still.any():
        row = int(np.flatnonzero(~absent)[np.argmax(still)])
        msg = (
            f"ROI row {row} never changes: a constant is no signal, set the row to NaN if it has no coverage"
        )
        raise DataError(msg)
