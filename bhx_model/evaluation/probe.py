"""Linear probe: a logistic or ridge regression on a readout of frozen tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from bhx_model.evaluation import penalty
from bhx_model.evaluation.labels import Labels


def probe(labels: Labels, features_ND: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit on the training subjects, with the penalty chosen as the labels' protocol says.

    Parameters
    ----------
    labels : Labels
    features_ND : ndarray, (n, D)
        Standardised here, by the subjects that the model is fitted to.

    Returns
    -------
    scores : ndarray, (n, classes) probabilities or (n, 1) predictions
    chosen : dict
        ``strength``, inverse of the penalty.
    """
    fitted = labels.fitted
    centre, scale = features_ND[fitted].mean(axis=0), features_ND[fitted].std(axis=0)
    scores, strength = penalty.fit((features_ND - centre) / np.where(scale > 0, scale, 1.0), labels)
    return scores, {"strength": strength}
