"""The connectivity baseline: a linear model of functional connectivity, with which every result is compared.

Features are Fisher-z correlations of all pairs of ROIs, averaged over a subject's runs, standardised on the training
subjects; a pair that a subject lacks gets the training mean. Logistic regression or ridge regression with an L2
penalty that is chosen on the validation subjects and reported on the test subjects, as in the linear probe of hub
tokens. With an L2 penalty the weights lie in the span of the training subjects, so the fit is done in those few
dimensions and is the same.

Examples
--------
::

    python -m bhx_prep.evaluation.baselines --labels results/endpoints/diagnosis/seed-0.json
        --shards results/patients/shards/index.json --out results/endpoints/diagnosis/fc_seed-0
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bhx_model.command_line import run_command
from bhx_model.errors import DataError
from bhx_model.evaluation import penalty, results
from bhx_model.evaluation.labels import Labels, read_labels
from bhx_prep.brain_maps import gradients
from bhx_prep.shards import read


def features(cohort: read.PackedCohort, subjects: Sequence[str]) -> np.ndarray:
    """Mean Fisher-z connectivity of every subject, upper triangle.

    Parameters
    ----------
    cohort : PackedCohort
    subjects : sequence of str
        N labels.

    Returns
    -------
    ndarray, (N, R (R - 1) / 2) float32
        NaN where none of a subject's runs covers both ROIs.

    Raises
    ------
    DataError
        If a subject has no run in the shards.
    """
    n_rois = len(cohort.index["roi_names"])
    upper = np.triu_indices(n_rois, k=1)
    total = {s: np.zeros(len(upper[0]), np.float32) for s in subjects}
    count = {s: np.zeros(len(upper[0]), np.float32) for s in subjects}
    for run in read.iter_series([cohort], {f"{cohort.name}/{s}" for s in subjects}):
        z = gradients.connectivity(run.series)[upper]
        total[run.subject] += np.nan_to_num(z)
        count[run.subject] += np.isfinite(z)
    absent = [s for s in subjects if not count[s].any()]
    if absent:
        msg = f"{len(absent)} subjects of the split have no run in the shards, e.g. {absent[0]}: make the split again"
        raise DataError(msg)
    with np.errstate(invalid="ignore"):
        return np.stack([total[s] / count[s] for s in subjects])


def standardise(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Coordinates of all subjects in the span of the training subjects; an L2-penalised fit depends on these alone.

    Parameters
    ----------
    features : ndarray, (N, P)
        NaN for what is missing.
    train : ndarray, (N,) bool

    Returns
    -------
    ndarray, (N, n_train or less)
        Centred on the training subjects.
    """
    known = features[train]
    count = np.isfinite(known).sum(axis=0)
    mean = np.divide(
        np.nansum(known, axis=0), count, out=np.zeros(features.shape[1], np.float32), where=count > 0
    )
    centred = np.nan_to_num(features - mean)
    sd = centred[train].std(axis=0)
    centred /= np.where(sd > 0, sd, 1)
    # the vectors of the training subjects' kernel span them; one is zero, which centring took away
    kernel = (centred @ centred[train].T).astype(np.float64)
    values, vectors = np.linalg.eigh(kernel[train])
    used = values > values[-1] * 1e-6
    return kernel @ (vectors[:, used] / np.sqrt(values[used]))


def evaluate(labels: Labels, cohort: read.PackedCohort) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Fit the baseline and score it.

    Parameters
    ----------
    labels : Labels
    cohort : PackedCohort
        Its shards.

    Returns
    -------
    summary, rows
        Contents of ``metrics.json`` and ``predictions.parquet``.

    Raises
    ------
    DataError
        If labels and shards do not belong together.
    """
    if labels.cohort != cohort.name:
        msg = f"the labels are of cohort {labels.cohort}, the shards of {cohort.name}: name the shards of the former"
        raise DataError(msg)
    labels.check_splits("a label")
    x = standardise(features(cohort, labels.subjects), labels.of("train"))
    scores, strength = penalty.fit(x, labels)
    summary, rows = results.summarise(labels, scores)
    summary |= {
        "experiment": None,
        "method": "fc",
        "synthetic": cohort.index["synthetic"],
        "strength": strength,
    }
    return summary, rows


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate the baseline on one split; 0 when evaluated, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.evaluation.baselines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--labels", required=True, type=Path, help="split file with labels")
    parser.add_argument("--shards", required=True, type=Path, help="index.json of the cohort")
    parser.add_argument(
        "--out", required=True, type=Path, help="folder for metrics.json and predictions.parquet"
    )
    args = parser.parse_args(argv)
    return run_command(
        lambda: results.write(*evaluate(read_labels(args.labels), read.read_index(args.shards)), args.out)
    )


if __name__ == "__main__":
    sys.exit(main())
