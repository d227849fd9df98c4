"""Segments: the stretches of a run between censored frames. Needs no torch.

A shard's list and a sample's JSON hold them as ranges of frames of the original file, ``[[4, 20], [23, 60]]``: frames 4 to
19 and 23 to 59 were kept, counted from 0. Where one range begins at the other's end, two runs are joined in the file.
Null stands for a run in one piece, wherever it starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from bhx_model.errors import DataError

#: Ranges of frames, first and one behind the last.
Segments = tuple[tuple[int, int], ...]


def of_kept(kept: np.ndarray, joins: Sequence[int] = ()) -> list[list[int]] | None:
    """Segments of (T,) bool, True for kept frames; None if they are one.

    `joins` are frames at which another run begins.
    """
    bounds = [0, *sorted(joins), len(kept)]
    ranges = []
    for start, stop in itertools.pairwise(bounds):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], kept[start:stop], [False]]).astype(np.int8)))
        ranges += (edges.reshape(-1, 2) + start).tolist()
    return ranges if len(ranges) > 1 else None


def checked(segments: Any, n_frames: int) -> Segments | None:
    """Segments of a run of `n_frames` stored frames, as tuples.

    Raises
    ------
    DataError
        If they are not ascending, at least two and without overlap, or of another number of frames.
    """
    if segments is None:
        return None
    wrong = (
        f"its segments {str(segments)[:40]} are not ascending ranges of {n_frames} frames in all: give the series without "
        "the frames between them, and two ranges or more (None for one)"
    )
    try:
        ranges = tuple((int(first), int(stop)) for first, stop in segments)
    except (TypeError, ValueError) as error:
        raise DataError(wrong) from error
    apart = all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))
    filled = all(0 <= first < stop for first, stop in ranges)
    if len(ranges) < 2 or not apart or not filled or sum(stop - first for first, stop in ranges) != n_frames:
        raise DataError(wrong)
    return ranges


def places(segments: Sequence[Sequence[int]] | None, n_frames: int) -> Segments:
    """Positions of segments in the stored series: ranges of its frames, without gaps."""
    if segments is None:
        return ((0, n_frames),)
    ends = tuple(itertools.accumulate(stop - first for first, stop in segments))
    return tuple(zip((0, *ends), ends, strict=False))
