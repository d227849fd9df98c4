"""Fit a baseline and score it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bhx_model.errors import DataError
from bhx_model.evaluation import feature_table, penalty, results
from bhx_model.evaluation.influence import is_constant
from bhx_model.evaluation.labels import Labels
from bhx_model.evaluation.methods import Method
from bhx_prep.evaluation import label_leakage
from bhx_prep.evaluation.baselines import (
    covariates,
    kernels,
    permuted_labels,
    span,
    tangent,
)
from bhx_prep.io.notes import brief


def evaluate(
    method: Method, labels: Labels, files: Collection[Path]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Fit a baseline and score it.

    Parameters
    ----------
    method : Method
    labels : Labels
    files : collection of Path
        What it reads, a file for each cohort of the labels.

    Returns
    -------
    summary, rows
        Contents of ``metrics.json`` and of the predictions.

    Raises
    ------
    DataError
        If labels and files do not belong together.
    """
    labels.check_splits("a label")
    read = _covariates if method.reads == "covariates" else _features
    features, synthetic, n_missing = read(method, labels, files)
    fitted = permuted_labels.permute(labels) if method.permuted else labels
    scores, chosen = fit(method, features, fitted)
    summary, rows = results.summarise(labels, scores)
    summary |= {"experiment": None, "method": method.name, "synthetic": synthetic}
    return summary | {"n_missing": n_missing, **chosen}, rows


def fit(method: Method, features: np.ndarray, labels: Labels) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit a baseline, its penalty chosen as the labels' protocol says.

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
    if method.array == "tangent":
        features = tangent.project(features, labels.fitted)
    centred = span.standardised(features, labels.fitted)
    if method.model == "svm":
        return kernels.support_vectors(centred, labels)
    if method.model == "kernel ridge":
        return kernels.kernel_ridge(centred, labels)
    scores, strength = penalty.fit(span.coordinates(centred, labels.fitted), labels)
    return scores, {"strength": strength}


def _features(method: Method, labels: Labels, files: Collection[Path]) -> tuple[np.ndarray, bool, int]:
    """Numbers of the subjects, whether any were made, and how many subjects have none."""
    table = feature_table.join([feature_table.read(file) for file in files])
    labels.check_cohorts(table.cohorts, "features")
    features = table.rows(labels.people, "run in the shards" if method.reads == "connectivity" else None)
    known = np.atleast_1d(np.isfinite(features).any(axis=1))
    if not known[labels.fitted].any():
        msg = f"no training subject of {labels.endpoint} has {table.what}: leave out method {method.name}"
        raise DataError(msg)
    if method.reads == "volumes" and (name := _is_label(table.columns, features, labels)):
        msg = (
            f"{brief(name)} of the table of volumes is the label of {labels.endpoint}, or tells it of everybody: take it "
            "out of the cohort's morphometry, or leave out method volumes"
        )
        raise DataError(msg)
    return features, table.synthetic, int((~known).sum())


def _is_label(columns: Sequence[str], features: np.ndarray, labels: Labels) -> str | None:
    """A column of (N, P) features that is the label itself, as of a table of phenotypes; None where there is none."""
    for name, column in zip(columns, features.T.astype(np.float64), strict=True):
        known = np.isfinite(column)
        values, label = column[known], labels.target[known]
        if len(values) < label_leakage.FEWEST or is_constant(values) or is_constant(label):
            continue
        if labels.n_classes:
            codes = np.unique(values)
            told = len(codes) <= labels.n_classes and all(
                np.ptp(label[values == code]) == 0 for code in codes
            )
        else:
            told = abs(np.corrcoef(values, label)[0, 1]) > label_leakage.SAME
        if told:
            return name
    return None


def _covariates(method: Method, labels: Labels, files: Collection[Path]) -> tuple[np.ndarray, bool, int]:
    table = covariates.join([covariates.read(file) for file in files])
    labels.check_cohorts(table.cohorts, "features")
    features, n_missing = covariates.encode(table, method.array, labels)
    return features, table.synthetic, n_missing
