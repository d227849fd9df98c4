"""Numbers on the quality of a run. Figures are made from them elsewhere."""

from __future__ import annotations

import numpy as np


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
