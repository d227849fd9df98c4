"""Store the series of a BOLD run compactly: 16 bits a sample, scaled per ROI, compressed.

The step of an ROI is a power of two between 1/4096 and 1/2048 of the standard deviation of its series, so that no
sample moves by more than 1/4096 sd: a sixteenth of what bfloat16 rounds off values of 1 to 2 sd, and nothing that a
correlation or a quantile would show. It is larger only where an outlier would not fit into 16 bits otherwise, or where
float32 itself has no smaller step. Offsets of ten thousand, which float16 cannot hold, cost nothing.
"""

from __future__ import annotations

import hashlib

import numpy as np

from bhx_model.data import frames
from bhx_model.errors import DataError

#: Steps of a standard deviation, at least; twice as many at most.
MIN_STEPS_PER_SD = 2048


def encode(series: np.ndarray) -> bytes:
    """Round series and compress them.

    Parameters
    ----------
    series : (R, T) float32
        Any unit; rows of NaN are ROIs without coverage.

    Returns
    -------
    bytes
        Frame (`bhx_model.data.frames`) around (R,) records: ``offset`` and ``step`` (float32), and ``steps`` (T,), the first
        sample's distance from the offset in steps and then each one's from the one before, modulo 2^16.

    Raises
    ------
    DataError
        If an ROI is infinite or has no value in some of the frames only.
    """
    if series.ndim != 2 or not series.size or series.dtype != np.float32:
        raise DataError(f"series of {series.dtype} {series.shape}, expected float32 of ROIs x frames")
    covered = np.isnan(series).sum(axis=1) < series.shape[1]
    if not np.isfinite(series[covered]).all():
        raise DataError("the series holds infinite values, or none in some frames of a covered ROI")
    values = np.where(covered[:, None], series, 0).astype(np.float64)
    low, high = values.min(axis=1), values.max(axis=1)
    finest = np.spacing(np.maximum(-low, high).astype(np.float32))
    step = np.maximum(np.maximum(values.std(axis=1) / (2 * MIN_STEPS_PER_SD), (high - low) / 0xFFFF), finest)
    step = 2.0 ** np.ceil(np.log2(step))
    codes = np.rint((values - low[:, None]) / step[:, None]).astype(np.uint16)
    records = np.empty(len(series), _record(series.shape[1]))
    records["offset"], records["step"] = np.where(covered, low, np.nan), step
    records["steps"] = np.diff(codes, axis=1, prepend=np.uint16(0))
    return frames.pack(records, "zstd")


def decode(content: bytes | np.ndarray) -> np.ndarray:
    """Series as they were stored.

    Returns
    -------
    (R, T) float32

    Raises
    ------
    DataError
        If it is no stored run, or a damaged one.
    """
    try:
        records = frames.unpack(content)
    except DataError as error:
        raise DataError(f"no stored series ({error})") from error
    steps = records["steps"] if records.ndim == 1 and records.dtype.names else records
    if steps.ndim != 2 or records.dtype != _record(steps.shape[1]):
        raise DataError(f"no stored series (an array of {records.dtype} with {records.ndim} axes)")
    series = np.add.accumulate(steps, axis=1, dtype=np.uint16).astype(np.float32)
    series *= records["step"][:, None]
    series += records["offset"][:, None]
    return series


def content_sha256(series: np.ndarray) -> str:
    """Hash of a series (R, T) as little-endian float32, every NaN and zero written one way: equal for equal series."""
    values = np.where(np.isnan(series), np.float32(np.nan), series + np.float32(0)).astype("<f4")
    return hashlib.sha256(values.tobytes()).hexdigest()


def _record(n_frames: int) -> np.dtype:
    return np.dtype([("offset", "<f4"), ("step", "<f4"), ("steps", "<u2", (n_frames,))])
