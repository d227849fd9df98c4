"""A linear model whose L2 penalty is chosen on the validation subjects. Needs no torch."""

from __future__ import annotations

from typing import Final

import numpy as np

from bhx_model.evaluation import metrics
from bhx_model.evaluation.labels import Labels

#: Weight of the data against the penalty: C of a logistic regression, 1 / alpha of a ridge regression. Features are
#: scaled to a mean squared length of 1 first, so that a strength means the same for the 79,800 connections of the
#: baseline as for the tens to hundreds of channels of a hub token; with features of unit variance it would shift by
#: their number, two to three decades. At one end the model is all but constant, at the other all but unpenalised.
STRENGTHS: Final = tuple(10.0**exponent for exponent in range(-4, 5))


def fit(features_ND: np.ndarray, labels: Labels) -> tuple[np.ndarray, float]:
    """Fit a logistic or ridge regression on the training subjects with the best penalty of `STRENGTHS`.

    Parameters
    ----------
    features_ND : ndarray, (N, D)
        Of the subjects of `labels`, centred; their common scale makes no difference.
    labels : Labels

    Returns
    -------
    scores : ndarray, (N, classes) probabilities or (N, 1) predictions
    strength : float
        The chosen one, by `metrics.selection_loss` of the validation subjects.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    train, val = labels.of("train"), labels.of("val")
    length = np.sqrt((features_ND[train] ** 2).sum(axis=1).mean())
    x, y = features_ND / (length if length > 0 else 1.0), labels.target
    best: tuple[float, np.ndarray, float] | None = None
    for strength in STRENGTHS:
        if labels.n_classes:
            model = LogisticRegression(C=strength, max_iter=2000).fit(x[train], y[train])
            scores = np.zeros((len(x), labels.n_classes))
            scores[:, model.classes_] = model.predict_proba(x)
        else:
            scores = Ridge(alpha=1 / strength).fit(x[train], y[train]).predict(x)[:, None]
        loss = metrics.selection_loss(y[val], scores[val], labels.n_classes)
        if best is None or loss < best[0]:
            best = (loss, scores, strength)
    assert best is not None
    return best[1], best[2]
