"""Slice times of a frame, and resampling of series to one time. numpy and scipy only."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import BSpline

from bhx_model.errors import DataError

Floats = NDArray[np.floating]

#: Degree of the splines in time. The fifth loses nothing that matters below 0.7 of the Nyquist frequency.
DEGREE = 5
#: A frame takes longer than this (s); what spans less is in another unit.
_LEAST_SPAN_S = 0.02
_SAME_S = 1e-4  # times that differ by less are one


@dataclass(frozen=True)
class SliceTimes:
    """Acquisition times of the slices of a frame.

    Attributes
    ----------
    times_s : tuple of floats
        Of slices 0, 1, ... along `axis`; s after the start of the frame.
    axis : int
        Of the array: 0, 1 or 2.
    """

    times_s: tuple[float, ...]
    axis: int = 2

    @property
    def reference_s(self) -> float:
        """The time to which all slices are resampled: the middle of the first and the last, as in fMRIPrep."""
        return round((min(self.times_s) + max(self.times_s)) / 2, 3)

    @property
    def span_s(self) -> float:
        """From the first slice to the last, s."""
        return max(self.times_s) - min(self.times_s)


def slice_times(sidecar: Mapping[str, Any], shape: Sequence[int], tr_s: float) -> SliceTimes | None:
    """Slice times of a run, from ``SliceTiming`` and ``SliceEncodingDirection``.

    Parameters
    ----------
    sidecar : mapping
        Fields of the run's sidecars.
    shape : sequence of int
        Voxels along the three axes.
    tr_s : float
        Repetition time, s.

    Returns
    -------
    SliceTimes or None
        None if the sidecar states no times.

    Raises
    ------
    DataError
        If what it states cannot be times of this run's slices.
    """
    given = sidecar.get("SliceTiming")
    if given is None:
        return None
    direction = sidecar.get("SliceEncodingDirection", "k")
    if direction not in ("i", "j", "k", "i-", "j-", "k-"):
        msg = f"SliceEncodingDirection is {direction!r}: expected i, j or k, or one of them with a minus"
        raise DataError(msg)
    if not isinstance(given, list) or not all(
        isinstance(time, (int, float)) and not isinstance(time, bool) and not abs(time) > sys.float_info.max
        for time in given
    ):
        msg = "SliceTiming is no list of numbers: expected the seconds from the start of a frame, per slice"
        raise DataError(msg)
    axis = "ijk".index(direction[0])
    if len(given) != shape[axis]:
        msg = f"SliceTiming has {len(given)} times, the image {shape[axis]} slices along {direction[0]}: correct the sidecar"
        raise DataError(msg)
    times = [float(time) for time in given]
    _check(times, tr_s, sidecar.get("MultibandAccelerationFactor"))
    _check_delay(max(times), tr_s, sidecar.get("DelayTime"))
    return SliceTimes(tuple(times[::-1] if direction.endswith("-") else times), axis)


def _check(times: list[float], tr_s: float, factor: object) -> None:
    """Raise if these are not the times (s) of slices within `tr_s`."""
    if not all(map(math.isfinite, times)):
        n = sum(not math.isfinite(time) for time in times)
        msg = f"SliceTiming has {n} values that are not finite: correct the sidecar"
        raise DataError(msg)
    if min(times) < 0:
        msg = f"SliceTiming begins at {min(times):g} s: expected times from 0 to the repetition time"
        raise DataError(msg)
    last = max(times)
    ranks = sorted(times)
    if len(times) > 2 and ranks in (list(range(len(times))), list(range(1, len(times) + 1))):
        msg = f"SliceTiming holds the order of the slices ({ranks[0]:g} to {last:g}): expected their times in seconds"
        raise DataError(msg)
    if last > tr_s + _SAME_S:
        unit = (
            ": it is in milliseconds, write seconds"
            if tr_s * 20 < last <= 1000 * tr_s + 1
            else ": correct the sidecar"
        )
        msg = f"SliceTiming reaches {last:g} s, beyond the repetition time of {tr_s:g} s{unit}"
        raise DataError(msg)
    span = last - min(times)
    if _SAME_S < span < _LEAST_SPAN_S:
        msg = f"SliceTiming spans {1000 * span:.3g} ms: no frame is that fast, write the times in seconds"
        raise DataError(msg)
    if span <= _SAME_S:
        return  # all slices at once
    steps = np.abs(np.diff(times))
    if (steps < _SAME_S).any():
        at = int(np.argmax(steps < _SAME_S))
        msg = f"SliceTiming has one time for the adjacent slices {at} and {at + 1}, never acquired at once: is it sorted?"
        raise DataError(msg)
    if isinstance(factor, int) and not isinstance(factor, bool) and factor >= 1:
        at_once = int(np.unique(np.round(np.asarray(times) / 5e-3), return_counts=True)[1].max())
        if at_once > 2 * factor:
            msg = f"SliceTiming has {at_once} slices at one time where MultibandAccelerationFactor is {factor}: correct it"
            raise DataError(msg)


def _check_delay(last_s: float, tr_s: float, delay_s: object) -> None:
    """Raise if the last slice (s) is acquired in the pause that follows each frame."""
    if not isinstance(delay_s, (int, float)) or isinstance(delay_s, bool) or not 0 < delay_s < tr_s:
        return
    if last_s > tr_s - delay_s + _SAME_S:
        rest = f"a DelayTime of {delay_s:g} s leaves {tr_s - delay_s:g} s of the repetition time"
        msg = f"SliceTiming reaches {last_s:g} s, but {rest} of {tr_s:g} s: correct one of them"
        raise DataError(msg)


def move(series: Floats, delay: float) -> Floats:
    """Series as they would be if they had been sampled later.

    Parameters
    ----------
    series : array, (V, T)
        Evenly sampled; mirrored at both ends.
    delay : float
        Samples, between -1 and 1: positive for later.

    Returns
    -------
    array, (V, T), float32
        Values of the interpolating spline at ``t + delay``.

    Raises
    ------
    ValueError
        If the delay is more than one sample.
    """
    if not -1 <= delay <= 1:
        msg = f"a delay of {delay} samples is more than one"
        raise ValueError(msg)
    if delay == 0 or series.shape[1] < 2:
        return np.asarray(series, np.float32)
    coefficients = ndimage.spline_filter1d(series, DEGREE, axis=1, output=np.float64, mode="mirror")  # pyright: ignore[reportArgumentType]
    half = (DEGREE + 1) // 2
    kernel = BSpline.basis_element(np.arange(-half, half + 1), extrapolate=False)
    reach = np.arange(-half - 1, half + 2)
    weights = np.nan_to_num(np.asarray(kernel(reach - delay)))
    return ndimage.correlate1d(coefficients, weights, axis=1, output=np.float32, mode="mirror")  # pyright: ignore[reportArgumentType]


def correct(slab: Floats, times: SliceTimes, first_slice: int, tr_s: float, n_dummies: int) -> Floats:
    """Bring the series of a part of the image to the reference time.

    Parameters
    ----------
    slab : array, (X, Y, Z, T)
        Part along the third axis.
    times : SliceTimes
        Of the whole image.
    first_slice : int
        Where the part begins along the third axis.
    tr_s : float
        Repetition time, s.
    n_dummies : int
        Frames at the start before the signal is steady: they stay as they are, and no other frame is made of them.

    Returns
    -------
    array, (X, Y, Z, T), float32
    """
    out = np.array(slab, np.float32)
    start = first_slice if times.axis == 2 else 0
    for i in range(slab.shape[times.axis]):
        delay = (times.reference_s - times.times_s[start + i]) / tr_s
        part: list[Any] = [slice(None)] * 4
        part[times.axis], part[3] = i, slice(n_dummies, None)
        series = slab[tuple(part)]
        out[tuple(part)] = move(series.reshape(-1, series.shape[-1]), delay).reshape(series.shape)
    return out
