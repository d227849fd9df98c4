"""Linear probe: a logistic or ridge regression on a readout of frozen tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from bhx_model.evaluation import penalty
from bhx_model.evaluation.labels import Labels


def probe(labels: Labels, features_ND: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit on the training subjects, with the penalty chosen on the validation subjects.

    Parameters
    ----------
    labels : Labels
    features_ND : ndarray, (n, D)
        Standardised here, by the training subjects.

    Returns
    -------
    scores : ndarray, (n, classes) probabilities or (n, 1) predictions
    chosen : dict
        ``strength``, inverse of the penalty.
    """
    train = labels.of("train")
    centre, scale = features_ND[train].mean(axis=0), features_ND[train].std(axis=0)
    scores, strength = penalty.fit((features_ND - centre) / np.where(scale > 0, scale, 1.0), labels)
    return scores, {"strength": strength}
