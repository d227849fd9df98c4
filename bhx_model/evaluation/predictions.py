"""Predictions of a method for the subjects of an endpoint. Needs no torch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from bhx_model.evaluation.labels import Labels


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Of every subject that has labels and tokens."""

    labels: Labels
    scores: np.ndarray
    """(n, classes) probabilities or (n, 1) predictions."""
    chosen: dict[str, Any]
    """What was chosen on the validation subjects: a penalty or an epoch."""
    synthetic: bool
    """Whether any of the data were made, not measured."""
    excluded: list[dict[str, str]]
    """Subjects with a label but without tokens, and why."""
