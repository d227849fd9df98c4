"""Short fingerprints of runs, near pairs among them, and the proof that two runs hold the same series.

A fingerprint is made of random projections of a run's connectivity, so that it does not change with the scale of an ROI,
and little when a few frames are dropped. Its first half is of all frames, its second of the first 64, so that a run that
was cut short is found too. Near fingerprints only name candidates: what counts is the correlation of the series.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Final

import numpy as np

#: Projections of each half.
N_PROJECTIONS: Final = 64
#: Frames of the second half.
START_FRAMES: Final = 64
#: Squared distance of two halves, relative to the shorter one's own, below which runs are candidates. The same run without
#: its first four frames is at .03 (all frames) and .29 (the first 64) at most; different subjects begin at .45 and .54.
NEAR: Final = (0.4, 0.5)
#: Mean correlation of the ROIs' series above which two runs are the same.
SAME: Final = 0.999
#: And above which they are one scan, denoised in two ways. In ABIDE-I (CC200, 835 runs) 4,000 pairs of runs of different
#: subjects are at .11 at most; a run and the same one with a narrower band, its global signal taken out or noise of half
#: its deviation added, at .79 at least.
ONE_SCAN: Final = 0.5
#: Frames by which two runs may be shifted, and the least number that they have to share.
MOST_LAG, LEAST_FRAMES = 10, 20

_BLOCK = 2048


def fingerprint(series: np.ndarray) -> np.ndarray:
    """Fingerprint of a run.

    Parameters
    ----------
    series : ndarray, (R, T)
        NaN where an ROI has no coverage.

    Returns
    -------
    ndarray, (2 * N_PROJECTIONS,) float32
        Zero if nothing varies.
    """
    return np.concatenate([_project(series), _project(series[:, :START_FRAMES])]).astype(np.float32)


def _project(series: np.ndarray) -> np.ndarray:
    """``u' C v`` for random signs u and v, where C is the correlation of the rows."""
    unit = _unit_rows(series)
    left, right = _signs(len(series))
    return ((left @ unit) * (right @ unit)).sum(axis=1) / len(series)


def _unit_rows(series: np.ndarray) -> np.ndarray:
    """Rows less their mean, of length 1; 0 where a row has no values or does not vary."""
    rows = np.nan_to_num(series.astype(np.float64), posinf=0, neginf=0)
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    varies = length > 1e-6 * largest * np.sqrt(rows.shape[1])
    return np.divide(rows, length, out=np.zeros_like(rows), where=varies)


@cache
def _signs(n_rois: int) -> np.ndarray:
    """Random signs (2, N_PROJECTIONS, R), the same with every version of NumPy."""
    n = 2 * N_PROJECTIONS * n_rois
    drawn = hashlib.shake_256(f"bhx fingerprint of {n_rois} ROIs".encode()).digest((n + 7) // 8)
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8))[:n]
    return (bits.reshape(2, N_PROJECTIONS, n_rois) * 2.0) - 1.0


def near_pairs(fingerprints: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of runs whose fingerprints are near each other in one of their halves.

    Parameters
    ----------
    fingerprints : ndarray, (N, 2 * N_PROJECTIONS) float32

    Yields
    ------
    tuple of int
        Numbers of two runs, the smaller first; each pair once.
    """
    halves = np.split(np.ascontiguousarray(fingerprints, np.float32), 2, axis=1)
    squares = [np.square(half).sum(axis=1) for half in halves]
    n = len(fingerprints)
    for a in range(0, n, _BLOCK):
        for b in range(a, n, _BLOCK):
            rows, columns = slice(a, a + _BLOCK), slice(b, b + _BLOCK)
            near = np.zeros((len(halves[0][rows]), len(halves[0][columns])), bool)
            for half, square, most in zip(halves, squares, NEAR, strict=True):
                dots = half[rows] @ half[columns].T
                sums = square[rows, None] + square[None, columns]
                shorter = np.minimum(square[rows, None], square[None, columns])
                near |= sums - 2 * dots < most * shorter
            for i, j in np.argwhere(near).tolist():
                if a + i < b + j:
                    yield a + i, b + j


def correlate(first: np.ndarray, second: np.ndarray) -> tuple[float, int, int]:
    """Mean correlation of the ROIs of two runs over the frames they share, at the shift that fits best.

    Parameters
    ----------
    first, second : ndarray, (R, T) and (R, T')
        Two runs; equal series are the same run even where two repetition times are stated.

    Returns
    -------
    r : float
        -1 where they share fewer than `LEAST_FRAMES` frames, or no ROI.
    lag : int
        Frames of `first` before the first one of `second`; negative where `second` begins earlier.
    n_frames : int
        Frames that they share.
    """
    best = (-1.0, 0, 0)
    for lag in sorted(range(-MOST_LAG, MOST_LAG + 1), key=abs):
        one, other = first[:, max(lag, 0) :], second[:, max(-lag, 0) :]
        n = min(one.shape[1], other.shape[1])
        if n < LEAST_FRAMES:
            continue
        products = (_unit_rows(one[:, :n]) * _unit_rows(other[:, :n])).sum(axis=1)
        known = products != 0
        r = float(products[known].mean()) if known.any() else -1.0
        if r > best[0]:
            best = (r, lag, n)
        if r > SAME:
            break
    return best
