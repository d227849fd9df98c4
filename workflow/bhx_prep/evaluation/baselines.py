"""What a linear model makes of functional connectivity: the row of the table that every other has to beat.

Features are Fisher-z correlations of all pairs of ROIs, averaged over a person's runs, standardised on the training
people; a pair that a person lacks gets the training mean. Logistic regression or ridge regression with an L2
penalty that is chosen on the validation people and reported on the test people. With an L2 penalty the weights lie
in the span of the training people, so the fit is done in those few dimensions and is the same.

Examples
--------
::

    python -m bhx_prep.evaluation.baselines --labels results/endpoints/diagnosis/seed-0.json
        --shards results/patients/shards/index.json --out results/endpoints/diagnosis/fc_seed-0
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.errors import DataError
from bhx_model.evaluation import metrics
from bhx_prep.brain_maps import gradients
from bhx_prep.shards import read

#: Weight of the data against the penalty (1 / lambda); features are scaled to a kernel of mean 1 per person.
STRENGTHS = tuple(10.0**e for e in range(-4, 5))
SPLITS = ("train", "val", "test")


def features(cohort: read.PackedCohort, subjects: Sequence[str]) -> np.ndarray:
    """Mean Fisher-z connectivity of every person, upper triangle.

    Parameters
    ----------
    cohort : PackedCohort
    subjects : sequence of str
        N labels.

    Returns
    -------
    ndarray, (N, R (R - 1) / 2) float32
        NaN where none of a person's runs covers both ROIs.

    Raises
    ------
    ValueError
        If a person has no run in the shards.
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
        msg = f"{len(absent)} people of the split have no run in the shards, e.g. {absent[0]}: make the split again"
        raise DataError(msg)
    with np.errstate(invalid="ignore"):
        return np.stack([total[s] / count[s] for s in subjects])


def standardise(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Coordinates of all people in the span of the training people, on which an L2-penalised fit depends alone.

    Parameters
    ----------
    features : ndarray, (N, P)
        NaN for what is missing.
    train : ndarray, (N,) bool

    Returns
    -------
    ndarray, (N, n_train)
        Of squared length 1 on average over the training people.
    """
    known = features[train]
    count = np.isfinite(known).sum(axis=0)
    mean = np.divide(
        np.nansum(known, axis=0), count, out=np.zeros(features.shape[1], np.float32), where=count > 0
    )
    centred = np.nan_to_num(features - mean)
    sd = centred[train].std(axis=0)
    centred /= np.where(sd > 0, sd, 1)
    # the vectors of the training people's kernel span them; one is zero, which centring took away
    kernel = (centred @ centred[train].T).astype(np.float64)
    values, vectors = np.linalg.eigh(kernel[train])
    used = values > values[-1] * 1e-6
    coordinates = kernel @ (vectors[:, used] / np.sqrt(values[used]))
    return coordinates / np.sqrt((coordinates[train] ** 2).sum(axis=1).mean())


def fit(x: np.ndarray, label: np.ndarray, split: np.ndarray, kind: str) -> tuple[np.ndarray, float]:
    """Fit on the training people with the penalty that is best on the validation people.

    Parameters
    ----------
    x : ndarray, (N, D)
    label : ndarray, (N,)
    split : ndarray, (N,) str
    kind : str
        ``binary``, ``multiclass`` or ``regression``.

    Returns
    -------
    scores : ndarray, (N, C) or (N,)
        Probabilities, or predictions of a regression, of everybody.
    strength : float
        The chosen one of `STRENGTHS`, by the likelihood or the squared error on the validation people.
    """
    train, val = split == "train", split == "val"
    best: tuple[float, np.ndarray, float] | None = None
    for strength in STRENGTHS:
        if kind == "regression":
            scores = Ridge(alpha=1 / strength).fit(x[train], label[train]).predict(x)
            loss = float(((scores - label)[val] ** 2).mean())
        else:
            model = LogisticRegression(C=strength, max_iter=2000).fit(x[train], label[train])
            scores = model.predict_proba(x)
            loss = float(-np.log(np.clip(scores[val, label[val]], 1e-12, 1)).mean())
        if best is None or loss < best[0]:
            best = (loss, scores, strength)
    assert best is not None
    return best[1], best[2]


def evaluate(
    labels: dict[str, Any], cohort: read.PackedCohort
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Value of ``metrics.json`` and rows of ``predictions.csv``.

    Parameters
    ----------
    labels : dict
        A split file of `bhx_prep.evaluation.splits`.
    cohort : PackedCohort
    """
    if labels["cohort"] != cohort.name:
        msg = f"the labels are of cohort {labels['cohort']}, the shards of {cohort.name}: name the shards of the former"
        raise DataError(msg)
    rows, kind = labels["rows"], labels["kind"]
    split = np.array([row["split"] for row in rows])
    label = np.array([row["label"] for row in rows], np.float64 if kind == "regression" else np.int64)
    x = standardise(features(cohort, [row["subject"] for row in rows]), split == "train")
    scores, strength = fit(x, label, split, kind)
    n_classes = len(labels["classes"])
    predicted = scores if kind == "regression" else scores.argmax(axis=1)
    test = split == "test"
    if kind == "regression":
        found = metrics.regression(label[test], predicted[test])
        score = scores
    else:
        found = metrics.classification(label[test], predicted[test], scores[test], n_classes)
        score = scores[:, 1] if n_classes == 2 else scores.max(axis=1)
    value = {
        "experiment": None,
        "endpoint": labels["endpoint"],
        "method": "fc",
        "seed": labels["seed"],
        "kind": kind,
        "classes": labels["classes"],
        **{f"n_{name}": int((split == name).sum()) for name in SPLITS},
        "metrics": found,
        "trivial": metrics.trivial(kind, label[split == "train"].tolist(), label[test].tolist(), n_classes),
        "synthetic": cohort.index["synthetic"],
        "strength": strength,
    }
    predictions = [
        {
            "subject": row["subject"],
            "truth": row["label"],
            "prediction": predicted[i].item(),
            "score": round(score[i].item(), 6),
            "split": row["split"],
        }
        for i, row in enumerate(rows)
    ]
    return value, predictions


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate the baseline on one split."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.evaluation.baselines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--labels", required=True, type=Path, help="split file with labels")
    parser.add_argument("--shards", required=True, type=Path, help="index.json of the cohort")
    parser.add_argument("--out", required=True, type=Path, help="folder for metrics.json and predictions.csv")
    args = parser.parse_args(argv)
    try:
        value, predictions = evaluate(json.loads(args.labels.read_bytes()), read.read_index(args.shards))
        with (
            atomic_write(args.out / "predictions.csv") as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.DictWriter(file, list(predictions[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(predictions)
        write_json(args.out / "metrics.json", value, canonical=True)
    except (ValueError, OSError) as error:
        print(f"baseline: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
