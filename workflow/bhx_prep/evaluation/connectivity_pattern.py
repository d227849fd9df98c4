"""The connectivity pattern (Haufe et al. 2014) of an endpoint's linear connectivity baseline.

Weights of a linear model say how to tell labels apart in the presence of everything else, not where the difference is;
the covariance of each feature with the model's decision does (Haufe et al. 2014, doi:10.1016/j.neuroimage.2013.10.067).
Features are standardised, so that covariance is a correlation: of each pair's Fisher-z correlation with the decision, over
the training subjects, averaged over the splits.

Examples
--------
::

    python -m bhx_prep.evaluation.connectivity_pattern --features results/patients/connectivity/correlation.npz
        --predictions results/endpoints/diagnosis/fc_seed-0/predictions.parquet
        --out results/endpoints/diagnosis/connectivity_pattern.npz
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bhx_model.atomic_write import atomic_write
from bhx_model.command_line import run_command
from bhx_model.errors import DataError
from bhx_model.evaluation import feature_table, prediction_file
from bhx_model.evaluation.feature_table import FeatureTable
from bhx_model.evaluation.prediction_file import PredictionTable
from bhx_prep.evaluation.baselines import span

logger = logging.getLogger(__name__)

#: Probabilities are kept this far from 0 and 1.
_LEAST = 1e-7


def decision(scores: np.ndarray) -> np.ndarray:
    """What a linear model decides by: the value, or the log odds of the last class against the first.

    Parameters
    ----------
    scores : ndarray, (n, classes) probabilities or (n, 1) values

    Returns
    -------
    ndarray, (n,) float64
    """
    if scores.shape[1] == 1:
        return scores[:, 0].astype(np.float64)
    log = np.log(np.clip(scores.astype(np.float64), _LEAST, 1))
    return log[:, -1] - log[:, 0]


def pattern(table: FeatureTable, predictions: PredictionTable) -> np.ndarray:
    """Correlation of each feature with the decision over the training subjects of one split: (P,) float32.

    0 where a feature, or the decision, does not vary.

    Raises
    ------
    DataError
        If a subject has no features.
    """
    own = np.isin(predictions.cohort, table.cohorts) & predictions.of("train")
    features = table.rows(predictions.people[own].tolist(), "run in the shards")
    z = span.standardised(features, np.ones(len(features), bool))
    said = decision(predictions.scores[own])
    said = said - said.mean()
    spread = said.std()
    if spread == 0:
        return np.zeros(z.shape[1], np.float32)
    return (z * (said / spread)[:, None]).mean(axis=0).astype(np.float32)


def compute(table: FeatureTable, files: Sequence[Path]) -> tuple[np.ndarray, float | None]:
    """Mean pattern over splits, and how alike those of two splits are.

    Returns
    -------
    mean : ndarray, (P,) float32
    agreement : float or None
        Mean correlation between the patterns of two splits; None for one split.
    """
    found = np.stack([pattern(table, prediction_file.read(file)) for file in files])
    agreement = None
    if len(found) > 1:
        with np.errstate(invalid="ignore"):
            r = np.corrcoef(found)
        agreement = float(np.nanmean(r[np.triu_indices(len(r), k=1)]))
    return found.mean(axis=0), agreement


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pattern of an endpoint; 0 when written, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.evaluation.connectivity_pattern",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--predictions", required=True, type=Path, nargs="+", help="predictions.parquet of `fc`, one a split")
    add("--features", required=True, type=Path, help="correlations of the cohort")
    add("--out", required=True, type=Path, help=".npz to write")
    args = parser.parse_args(argv)
    return run_command(lambda: _write(args))


def _write(args: argparse.Namespace) -> None:
    table = feature_table.read(args.features)
    if table.values.shape[1] != len(table.columns) * (len(table.columns) - 1) // 2:
        raise DataError(f"{args.features} holds {table.what}, not correlations of pairs of ROIs: name those")
    mean, agreement = compute(table, args.predictions)
    about = {"cohort": table.cohorts[0], "synthetic": table.synthetic, "splits": len(args.predictions)}
    about_text = json.dumps({**about, "agreement": agreement}, sort_keys=True)
    with atomic_write(args.out) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            about=np.array(about_text),
            pattern=mean.astype(np.float16),
            roi_names=np.array(table.columns),
        )
    logger.info("wrote %s: %d splits", args.out, len(args.predictions))


if __name__ == "__main__":
    sys.exit(main())
