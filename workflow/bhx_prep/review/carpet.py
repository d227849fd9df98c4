"""Carpet plot data: a reduced copy of a run's series before denoising."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

#: Rows of a carpet at most: neighbouring parcels are averaged.
MOST_ROWS: Final = 200
#: Standard deviations at which a row is black and white.
LIMIT_SD: Final = 2.5

#: Columns of a batch's ``carpets.parquet``; `image` holds (n_rows, n_frames) bytes.
SCHEMA: Final = pa.schema(
    [("key", pa.string()), ("n_rows", pa.int64()), ("n_frames", pa.int64()), ("image", pa.binary())]
)


def reduce(series: np.ndarray) -> np.ndarray:
    """Rows of a carpet.

    Parameters
    ----------
    series : (R, T)
        Parcel means; NaN where a parcel is not covered.

    Returns
    -------
    (N, T) uint8
        Each parcel in its own standard deviations about its linear drift, from black (-`LIMIT_SD`) to white; in the order
        of the atlas, of many parcels neighbours averaged.
    """
    known = series[np.isfinite(series).all(axis=1)].astype(np.float64)
    time = np.linspace(-1, 1, series.shape[1])
    known -= known.mean(axis=1, keepdims=True)
    if time.any():  # a drift would hide everything else
        known -= np.outer(known @ time / (time @ time), time)
    sd = known.std(axis=1)
    known = known[sd > 0] / sd[sd > 0, None]
    if not known.size:
        return np.zeros((0, series.shape[1]), np.uint8)
    groups = np.array_split(known, min(len(known), MOST_ROWS))
    rows = np.array([group.mean(axis=0) for group in groups])
    return np.clip((rows / LIMIT_SD + 1) * 127.5, 0, 255).round().astype(np.uint8)


def row(key: str, rows: np.ndarray) -> dict[str, object]:
    """A row of `SCHEMA`."""
    return {"key": key, "n_rows": rows.shape[0], "n_frames": rows.shape[1], "image": rows.tobytes()}


def image(record: dict[str, object]) -> np.ndarray:
    """The carpet (N, T) of a row of `SCHEMA`."""
    n_rows, n_frames, data = record["n_rows"], record["n_frames"], record["image"]
    assert isinstance(n_rows, int)
    assert isinstance(n_frames, int)
    assert isinstance(data, bytes)
    return np.frombuffer(data, np.uint8).reshape(n_rows, n_frames)
