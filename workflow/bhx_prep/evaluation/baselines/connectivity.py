"""Compute functional connectivity of every subject of a cohort, for the connectivity baselines.

`correlation` is Fisher-z correlation of all pairs of ROIs. `partial` is Fisher-z partial correlation, from the inverse
of a covariance with Ledoit and Wolf's shrinkage. `tangent` is that covariance itself, of standardised series: what is
projected to a tangent space once it is known who is trained on. Runs of a subject are averaged.

Ledoit and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4.

Examples
--------
::

    python -m bhx_prep.evaluation.baselines.connectivity --kind correlation
        --shards results/patients/shards/index.json --out results/patients/connectivity/correlation.npz
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from bhx_model.command_line import run_command
from bhx_model.errors import DataError
from bhx_model.evaluation import feature_table
from bhx_model.evaluation.feature_table import FeatureTable
from bhx_prep.brain_maps import gradients
from bhx_prep.shards import read

#: Partial correlations are clipped to this, as Fisher's z is infinite at 1.
_MAX_R = 1 - 1e-7


def correlation(series: np.ndarray) -> np.ndarray:
    """Fisher-z correlation of the rows of a run: (R (R - 1) / 2,), NaN for rows without coverage or variation.

    Parameters
    ----------
    series : ndarray, (R, T)
    """
    z = gradients.connectivity(series)
    return z[np.triu_indices(len(z), k=1)]


def covariance(series: np.ndarray) -> np.ndarray:
    """Shrunk covariance of the standardised rows of a run: (R (R + 1) / 2,), NaN as in `correlation`.

    Parameters
    ----------
    series : ndarray, (R, T)
    """
    shrunk = _shrunk(series)
    return shrunk[np.triu_indices(len(shrunk))]


def partial(series: np.ndarray) -> np.ndarray:
    """Fisher-z partial correlation of the rows of a run, given all others with coverage: as `correlation`.

    Parameters
    ----------
    series : ndarray, (R, T)
    """
    shrunk = _shrunk(series)
    there = np.isfinite(np.diag(shrunk))
    found = np.full_like(shrunk, np.nan)
    if there.any():
        inverse = np.linalg.inv(shrunk[np.ix_(there, there)])
        scale = np.sqrt(np.diag(inverse))
        found[np.ix_(there, there)] = np.arctanh(np.clip(-inverse / np.outer(scale, scale), -_MAX_R, _MAX_R))
    return found[np.triu_indices(len(found), k=1)]


def _shrunk(series: np.ndarray) -> np.ndarray:
    """Shrunk covariance of standardised rows: (R, R), NaN for rows without coverage or variation."""
    from sklearn.covariance import ledoit_wolf

    there = gradients.varying(series)
    found = np.full((len(series), len(series)), np.nan)
    if there.any():
        rows = series[there].astype(np.float64)
        rows = (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)
        found[np.ix_(there, there)] = ledoit_wolf(rows.T, assume_centered=True)[0]
    return found


#: What is computed of a run.
KINDS: Final[dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "correlation": correlation,
    "partial": partial,
    "tangent": covariance,
}


def compute(cohort: read.PackedCohort, kind: str) -> FeatureTable:
    """Connectivity of every subject with a run, a mean over the runs in which both ROIs have values.

    Parameters
    ----------
    cohort : PackedCohort
    kind : str
        One of `KINDS`.

    Raises
    ------
    DataError
        If the shards hold no run.
    """
    subjects = sorted(read.subjects(cohort, "bold"))
    if not subjects:
        msg = f"the shards of {cohort.name} hold no BOLD run: see why its runs are excluded, or leave out its `fc` rows"
        raise DataError(msg)
    n_rois = len(cohort.index["roi_names"])
    width = n_rois * (n_rois - 1) // 2 + (n_rois if kind == "tangent" else 0)
    place = {subject: i for i, subject in enumerate(subjects)}
    total = np.zeros((len(subjects), width), np.float32)
    count = np.zeros((len(subjects), width), np.uint16)
    for run in read.iter_series([cohort]):
        values = KINDS[kind](run.series)
        total[place[run.subject]] += np.nan_to_num(values)
        count[place[run.subject]] += np.isfinite(values)
    with np.errstate(invalid="ignore"):
        for i in range(len(total)):  # row by row: a cohort may fill much of the memory
            total[i] /= count[i]
    known = [i for i in range(len(total)) if count[i].any()]
    if len(known) < len(subjects):
        total = total[known]
    people = [f"{cohort.name}/{subjects[i]}" for i in known]
    synthetic = bool(cohort.index["synthetic"])
    return FeatureTable(kind, synthetic, (cohort.name,), people, cohort.index["roi_names"], total)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the connectivity of a cohort; 0 when written, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.evaluation.baselines.connectivity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", required=True, choices=KINDS)
    parser.add_argument("--shards", required=True, type=Path, help="index.json of the cohort")
    parser.add_argument("--out", required=True, type=Path, help=".npz to write")
    args = parser.parse_args(argv)
    return run_command(
        lambda: feature_table.write(compute(read.read_index(args.shards), args.kind), args.out)
    )


if __name__ == "__main__":
    sys.exit(main())
