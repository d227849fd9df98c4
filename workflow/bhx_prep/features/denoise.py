"""Denoise parcel series: despike, then nuisance regression and band-pass in one projection.

Regression and filter are linear and the same for every voxel, so they commute with the mean over a parcel: done on
400 series instead of some 200,000 voxels they give the same result. Despiking is not linear. It is done first, on the
parcel series, and therefore differs from despiking every voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal
from scipy.interpolate import CubicSpline

from bhx_model.errors import DataError
from bhx_prep.features.confounds import Confounds, Strategy

#: Order of the Butterworth filter, as in nilearn.
ORDER = 5

#: Deviations beyond the first bound (robust sd) are drawn in so that none exceeds the second; AFNI's 3dDespike has the same.
SPIKE_BOUNDS = (2.5, 4.0)

#: Length (s) of the running median that spikes are measured from.
SPIKE_WINDOW_S = 50.0


@dataclass(frozen=True)
class Denoised:
    """Series after denoising.

    Attributes
    ----------
    series : (R, K) float32
        Kept frames; rows that were NaN are NaN.
    kept : (T,) bool
        Which frames of the file they are.
    """

    series: np.ndarray
    kept: np.ndarray


def denoise(series: np.ndarray, tr_s: float, strategy: Strategy, confounds: Confounds) -> Denoised:
    """Apply a strategy to the series of one run.

    Equal to ``nilearn.signal.clean(series.T, detrend=.., standardize=None, confounds=.., sample_mask=.., t_r=..,
    low_pass=.., high_pass=..)``: censored frames are interpolated (cubic), signals and confounds are detrended and
    filtered alike, censored frames are removed, and the confounds' span is projected out.

    Parameters
    ----------
    series : (R, T)
        Any unit; rows of NaN are passed through.
    tr_s : float
        Repetition time (s).
    strategy : Strategy
    confounds : Confounds
        Of the same run.

    Raises
    ------
    DataError
        If no parcel has values, too few frames remain for the filter or the number of confounds, or the band lies
        above what the repetition time can hold.
    """
    n_frames = series.shape[1]
    valid = np.isfinite(series).all(axis=1)
    if not valid.any():
        raise DataError("no parcel has a value in every frame: there is nothing to denoise")
    x = series[valid, confounds.dropped :].T.astype(np.float64)
    design, keep = confounds.design.copy(), confounds.keep
    if keep.sum() < 2:
        msg = f"only {keep.sum()} of {n_frames} frames remain after dropping and censoring"
        raise DataError(msg)
    if strategy.despike:
        x = despike(x, tr_s)

    # frames censored at either end cannot be interpolated: the run starts and ends with a kept one
    inner = slice(int(np.argmax(keep)), len(keep) - int(np.argmax(keep[::-1])))
    x, design, inner_keep = x[inner], design[inner], keep[inner]
    sos = _band(strategy.band_pass_hz, tr_s, len(x))
    if sos is not None:
        x, design = _fill(x, inner_keep), _fill(design, inner_keep)
    else:
        x, design = x[inner_keep], design[inner_keep]
    if strategy.detrend:
        x, design = signal.detrend(x, axis=0), signal.detrend(design, axis=0) if design.size else design
    if sos is not None:
        x = signal.sosfiltfilt(sos, x, axis=0)[inner_keep]
        design = signal.sosfiltfilt(sos, design, axis=0)[inner_keep] if design.size else design[inner_keep]
    # what detrending and filter leave of a confound may be rounding noise: it must not be scaled up to a regressor
    design -= design.mean(axis=0)
    design = design[:, design.std(axis=0) > 1e-9 * np.abs(confounds.design).max(axis=0, initial=0)]
    if design.size:
        x = _project_out(x, design, _dimensions(strategy.band_pass_hz, tr_s, len(x)))

    out = np.full((series.shape[0], len(x)), np.nan, np.float32)
    out[valid] = x.T
    kept = np.zeros(n_frames, bool)
    kept[confounds.dropped :] = keep
    return Denoised(out, kept)


def despike(x: np.ndarray, tr_s: float) -> np.ndarray:
    """Draw outliers in towards the running median of their own series.

    With ``s`` the deviation from the median in robust standard deviations, ``|s| > 2.5`` becomes
    ``2.5 + 1.5 tanh((|s| - 2.5) / 1.5)``, the curve of AFNI's 3dDespike; smaller deviations stay untouched. Not linear.

    Parameters
    ----------
    x : (T, R)
    tr_s : float
        Repetition time (s).
    """
    width = min(2 * round(SPIKE_WINDOW_S / tr_s / 2) + 1, 2 * ((len(x) - 1) // 2) + 1)
    centre = ndimage.median_filter(x, size=(max(width, 3), 1), mode="reflect")
    deviation = x - centre
    scale = 1.4826 * np.median(np.abs(deviation), axis=0)
    low, high = SPIKE_BOUNDS
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.abs(deviation) / scale
    drawn = low + (high - low) * np.tanh((s - low) / (high - low))
    spike = (s > low) & (scale > 0)
    return np.where(spike, centre + np.sign(deviation) * drawn * scale, x)


def _band(band_hz: tuple[float | None, float | None], tr_s: float, n_frames: int) -> np.ndarray | None:
    """Second-order sections of the filter; None if no edge is below the Nyquist frequency of the run."""
    low, high = band_hz
    nyquist = 0.5 / tr_s
    if low is not None and low >= nyquist:
        msg = f"a band from {low} Hz cannot be kept at TR {tr_s:g} s, which holds frequencies up to {nyquist:.3g} Hz"
        raise DataError(msg)
    if high is not None and high >= nyquist:
        high = None  # nothing lies above it
    if low is None and high is None:
        return None
    edges, kind = (
        ([low, high], "bandpass") if low and high else ((low, "highpass") if low else (high, "lowpass"))
    )
    sos = signal.butter(ORDER, edges, kind, fs=1 / tr_s, output="sos")
    # what scipy's sosfiltfilt needs for its padding
    sections = np.asarray(sos)
    zeros = min((sections[:, 2] == 0).sum(), (sections[:, 5] == 0).sum())
    needed = 3 * (2 * len(sections) + 1 - zeros) + 1
    if n_frames < needed:
        msg = f"{n_frames} frames are too few to filter: {needed} are expected"
        raise DataError(msg)
    return sections


def _dimensions(band_hz: tuple[float | None, float | None], tr_s: float, n_frames: int) -> float:
    """How many independent values a series of `n_frames` has inside the band."""
    low, high = band_hz
    nyquist = 0.5 / tr_s
    width = min(high or nyquist, nyquist) - (low or 0.0)
    return n_frames * width / nyquist


def _fill(x: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Replace censored frames by a cubic spline through the kept ones."""
    if keep.all() or not x.size:
        return x
    if keep.sum() < 4:
        msg = f"only {keep.sum()} frames remain after censoring: too few to filter"
        raise DataError(msg)
    times = np.arange(len(x), dtype=np.float64)
    x = x.copy()
    x[~keep] = CubicSpline(times[keep], x[keep])(times[~keep])
    return x


def _project_out(x: np.ndarray, design: np.ndarray, dimensions: float) -> np.ndarray:
    """Residual of `x` (T, R) on the span of the standardised `design` (T, C)."""
    try:
        left, values, _ = np.linalg.svd(design / design.std(axis=0), full_matrices=False)
    except np.linalg.LinAlgError as error:
        raise DataError(
            "the confounds cannot be orthogonalised: are their values of very different size?"
        ) from error
    basis = left[:, values > 1e-10 * values[0]]
    if dimensions - basis.shape[1] < 1:
        msg = (
            f"{basis.shape[1]} confounds are as many as the {dimensions:.0f} independent values that the run has in"
            " the kept band: nothing would remain. Use a strategy with fewer, or longer runs"
        )
        raise DataError(msg)
    return x - basis @ (basis.T @ x)
