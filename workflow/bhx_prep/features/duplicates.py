"""Find runs of a study that hold one scan twice: candidates by fingerprint, then compared sample by sample."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from bhx_prep.features import fingerprint
from bhx_prep.features.series_files import StoredRun, StoredRuns

logger = logging.getLogger(__name__)

#: Pairs that are compared at most.
MOST_CANDIDATES: Final = 20_000


@dataclass(frozen=True)
class SamePair:
    """Two runs that hold the same series, or one scan denoised in two ways.

    Attributes
    ----------
    first, second : str
        Keys, the earlier one in the list of runs first.
    r : float
        Mean correlation of the ROIs' series over the frames that both have.
    lag : int
        Frames of `first` before the first one of `second`; negative where `second` begins earlier.
    n_frames : int
        Frames that both have.
    """

    first: str
    second: str
    r: float
    lag: int
    n_frames: int

    @property
    def is_equal(self) -> bool:
        """Whether the series are the same; else they are of one scan, denoised in two ways."""
        return self.r > fingerprint.SAME

    def to_json(self) -> dict[str, Any]:
        """Fields of the report."""
        return {
            "runs": [self.first, self.second],
            "r": round(self.r, 6),
            "lag": self.lag,
            "n_frames": self.n_frames,
        }


def find_same(parts: Sequence[StoredRuns]) -> list[SamePair]:
    """Pairs of runs, also of different cohorts, that hold the same series, or one scan denoised in two ways.

    Parameters
    ----------
    parts : sequence of StoredRuns
        Cohorts with the same ROIs; others are left out with a warning.

    Raises
    ------
    DataError
        If series cannot be read.
    """
    parts = [part for part in parts if part.runs]
    if not parts:
        return []
    usable = [part for part in parts if part.roi_sha256 == parts[0].roi_sha256]
    if len(usable) < len(parts):
        logger.warning("features of several atlases: only those of %s are compared", parts[0].atlas)
    runs = [run for part in usable for run in part.runs]
    fingerprints = np.concatenate([part.fingerprints for part in usable])
    series = lru_cache(maxsize=64)(StoredRun.series)
    pairs = []
    for n_compared, (i, j) in enumerate(fingerprint.near_pairs(fingerprints)):
        if n_compared == MOST_CANDIDATES:
            logger.warning("%d pairs of runs were compared, further ones were not", n_compared)
            break
        r, lag, n = fingerprint.correlate(series(runs[i]), series(runs[j]))
        if r > fingerprint.ONE_SCAN:
            pairs.append(SamePair(runs[i].key, runs[j].key, r, lag, n))
    return pairs
