"""Write the results of an endpoint's evaluation: ``metrics.json`` and ``predictions.parquet``. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bhx_model.atomic_write import write_json
from bhx_model.errors import DataError
from bhx_model.evaluation import adjustments, metrics, prediction_file
from bhx_model.evaluation.labels import SPLITS, Labels
from bhx_model.made_with import made_with


def summarise(
    labels: Labels, scores: np.ndarray, *, batch_size: int | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compute the metrics of the test subjects, and list every subject's prediction.

    Parameters
    ----------
    labels : Labels
    scores : ndarray, (n, classes) probabilities or (n, 1) predictions
    batch_size : int, optional
        Average the metrics of batches of so many subjects, as the published code does; None takes all at once.

    Returns
    -------
    summary : dict
        For ``metrics.json``: names, numbers of subjects, ``metrics``, and ``constant``, those of a constant prediction.
    rows : list of dict
        For ``predictions.parquet``.

    Raises
    ------
    DataError
        If a score is infinite or none.
    """
    if unknown := int((~np.isfinite(scores)).any(axis=1).sum()):
        msg = (
            f"the scores of {unknown} of {len(scores)} subjects of {labels.endpoint}, seed {labels.seed}, are not finite: "
            "look for values of absurd size in what the method reads, and in the labels"
        )
        raise DataError(msg)
    target, test, n = labels.target, labels.of("test"), labels.n_classes
    scores, predicted, learned = adjustments.adjust(labels, scores)
    subjects = np.flatnonzero(test)
    size = batch_size or len(subjects)
    batches = [subjects[start : start + size] for start in range(0, len(subjects), size)]
    parts = [
        metrics.classification(target[b], predicted[b], scores[b], n)
        if n
        else metrics.regression(target[b], predicted[b])
        for b in batches
    ]
    sizes = [len(b) for b in batches]
    found = {name: _mean([part[name] for part in parts], sizes) for name in parts[0]}
    summary = {
        "endpoint": labels.endpoint,
        "seed": labels.seed,
        "kind": labels.kind,
        "classes": labels.classes,
        "split_sha256": labels.split_sha256,
        "people_sha256": prediction_file.people_sha256(labels.people),
        **{f"n_{split}": int(labels.of(split).sum()) for split in SPLITS},
        "protocol": labels.protocol,
        "metrics_first": list(labels.metrics_first),
        "adjustments": learned,
        "metrics": found,
        "f1_of_classes": metrics.f1_of_classes(target[test], predicted[test], labels.classes),
        "constant": metrics.constant_prediction(
            labels.kind, target[labels.of("train")].tolist(), target[test].tolist(), n
        ),
    }
    return summary, _rows(labels, scores, predicted)


def _rows(labels: Labels, scores: np.ndarray, predicted: np.ndarray) -> list[dict[str, Any]]:
    """Every subject's prediction, for ``predictions.parquet``."""
    n = labels.n_classes
    score = predicted if not n else scores[:, 1] if n == 2 else scores.max(axis=1)
    return [
        {
            "subject": subject,
            "cohort": labels.cohorts[i] if labels.cohorts else labels.cohort,
            "split": labels.split[i].item(),
            "truth": labels.target[i].item(),
            "prediction": predicted[i].item(),
            "score": score[i].item(),
            "probabilities": scores[i].tolist() if n else [],
        }
        for i, subject in enumerate(labels.subjects)
    ]


def _mean(values: Sequence[float | None], weights: Sequence[int]) -> float | None:
    """Mean of those that exist; None if none does."""
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    return sum(v * w for v, w in known) / sum(w for _, w in known) if known else None


def write(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write ``predictions.parquet`` and ``metrics.json``, the latter last and with what it was made with."""
    prediction_file.write(out / "predictions.parquet", rows)
    write_json(out / "metrics.json", {**summary, "made_with": made_with()})
