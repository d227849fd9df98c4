"""Labels of made-up subjects, for the tests of the evaluation."""

from __future__ import annotations

import numpy as np

from bhx_model.evaluation.labels import Labels


def labels_of(target: np.ndarray, split: np.ndarray) -> Labels:
    """Labels of two classes if `target` is whole numbers, else of a regression."""
    classes = ["a", "b"] if target.dtype.kind == "i" else []
    return Labels(
        endpoint="x", cohort="c", kind="binary" if classes else "regression", classes=classes, seed=0,
        subjects=[str(i) for i in range(len(target))], target=target, split=split,
    )  # fmt: skip


def prediction_row(subject: str, cohort: str = "c", split: str = "test", truth: float = 1.0) -> dict:
    """A row of ``predictions.parquet`` of a regression."""
    row = {"subject": subject, "cohort": cohort, "split": split, "truth": truth}
    return {**row, "prediction": 0.0, "score": 0.0, "probabilities": []}


def split_of(train: int, val: int, test: int) -> np.ndarray:
    """So many subjects of each split."""
    return np.array(["train"] * train + ["val"] * val + ["test"] * test)
