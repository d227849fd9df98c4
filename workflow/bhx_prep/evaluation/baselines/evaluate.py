"""Fit a baseline and score it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from bhx_model.errors import DataError
from bhx_model.evaluation import penalty, results
from bhx_model.evaluation.labels import Labels
from bhx_model.evaluation.methods import Method
from bhx_prep.evaluation.baselines import kernels, permuted_labels, span, tangent
from bhx_prep.evaluation.baselines.feature_table import FeatureTable

#: What the baselines here read, and what a subject of the split may not lack of it.
READS: Final = {"connectivity": "run in the shards", "volumes": None, "covariates": None}


def evaluate(
    method: Method, labels: Labels, table: FeatureTable
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Fit a baseline and score it.

    Parameters
    ----------
    method : Method
    labels : Labels
    table : FeatureTable
        What it reads, of the cohort of the labels.

    Returns
    -------
    summary, rows
        Contents of ``metrics.json`` and of the predictions.

    Raises
    ------
    DataError
        If labels and features do not belong together.
    """
    if labels.cohort != table.cohort:
        msg = f"the labels are of cohort {labels.cohort}, the features of {table.cohort}: name those of the former"
        raise DataError(msg)
    labels.check_splits("a label")
    features = table.rows(labels.subjects, READS[method.reads])
    fitted = permuted_labels.permute(labels) if method.permuted else labels
    scores, chosen = fit(method, features, fitted)
    summary, rows = results.summarise(labels, scores)
    summary |= {"experiment": None, "method": method.name, "synthetic": table.synthetic, **chosen}
    return summary, rows


def fit(method: Method, features: np.ndarray, labels: Labels) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit a baseline on the training subjects, its penalty chosen on the validation subjects.

    Parameters
    ----------
    method : Method
    features : ndarray, (N, P) float32
        Of the subjects of `labels`, NaN for what is missing.
    labels : Labels

    Returns
    -------
    scores : ndarray, (N, classes) probabilities or (N, 1) predictions
    chosen : dict
        ``strength``, inverse of the penalty.
    """
    train = labels.of("train")
    if method.array == "tangent":
        features = tangent.project(features, train)
    centred = span.standardised(features, train)
    if method.model == "svm":
        return kernels.support_vectors(centred, labels)
    if method.model == "kernel ridge":
        return kernels.kernel_ridge(centred, labels)
    scores, strength = penalty.fit(span.coordinates(centred, train), labels)
    return scores, {"strength": strength}
