"""A linear model whose L2 penalty is chosen on the validation subjects, or by inner cross-validation. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from bhx_model.errors import DataError
from bhx_model.evaluation import metrics
from bhx_model.evaluation.labels import Labels

#: Weight of the data against the penalty: C of a logistic regression, 1 / alpha of a ridge regression. Features are
#: scaled to a mean squared length of 1 first, so that a strength means the same for the 79,800 connections of the
#: baseline as for the tens to hundreds of channels of a hub token; with features of unit variance it would shift by
#: their number, two to three decades. At one end the model is all but constant, at the other all but unpenalised.
STRENGTHS: Final = tuple(10.0**exponent for exponent in range(-4, 5))


#: (N,) bool of the subjects to fit to, and the strength: what is said of all subjects, (N, classes) or (N, 1).
Predict = Callable[[np.ndarray, float], np.ndarray]


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
        The chosen one, by `metrics.selection_loss` of the validation subjects; with inner folds by the mean balanced
        accuracy over these, and the model is that of all train and validation subjects.
    """
    train, val = labels.of("train"), labels.of("val")
    length = np.sqrt((features_ND[labels.fitted] ** 2).sum(axis=1).mean())
    x = features_ND / (length if length > 0 else 1.0)
    if labels.inner_folds:
        strength = chosen_inside(lambda fitted, weight: _predict(x, labels, fitted, weight), labels)
        return _predict(x, labels, labels.fitted, strength), strength
    best: tuple[float, np.ndarray, float] | None = None
    for strength in STRENGTHS:
        scores = _predict(x, labels, train, strength)
        loss = metrics.selection_loss(labels.target[val], scores[val], labels.n_classes)
        if best is None or loss < best[0]:
            best = (loss, scores, strength)
    assert best is not None
    if labels.refit:
        return _predict(x, labels, labels.fitted, best[2]), best[2]
    return best[1], best[2]


def _predict(x: np.ndarray, labels: Labels, fitted: np.ndarray, strength: float) -> np.ndarray:
    """Scores of all subjects by a model that is fitted to some."""
    from sklearn.linear_model import LogisticRegression, Ridge

    y = labels.target
    if not labels.n_classes:
        return Ridge(alpha=1 / strength).fit(x[fitted], y[fitted]).predict(x)[:, None]
    model = LogisticRegression(C=strength, max_iter=2000).fit(x[fitted], y[fitted])
    scores = np.zeros((len(x), labels.n_classes))
    scores[:, model.classes_] = model.predict_proba(x)
    return scores


def inner_divisions(labels: Labels) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Divisions of the train and validation subjects, of the sizes of the two and with the classes of the whole.

    Yields
    ------
    fitted : ndarray, (N,) bool
        Subjects to fit to.
    held_out : ndarray, (n,) int
        Those to choose on.

    Raises
    ------
    DataError
        If a class has too few subjects to be in both.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    own = np.flatnonzero(labels.of("train") | labels.of("val"))
    counts = np.bincount(labels.target[own], minlength=labels.n_classes)
    if counts.min() < 2 or labels.of("val").sum() < labels.n_classes:
        msg = (
            f"{labels.endpoint}, seed {labels.seed}: inner divisions need 2 subjects of every class in train and validation "
            f"({counts.min()} of class {labels.classes[int(counts.argmin())]!r}), and as many in validation as classes: use "
            "`protocol: paper`"
        )
        raise DataError(msg)
    divide = StratifiedShuffleSplit(
        labels.inner_folds, test_size=int(labels.of("val").sum()), random_state=labels.seed
    )
    for train, val in divide.split(own, labels.target[own]):
        yield np.isin(np.arange(len(labels.subjects)), own[train]), own[val]


def chosen_inside(predict: Predict, labels: Labels) -> float:
    """The strength with the best mean balanced accuracy over inner divisions; the strongest penalty of equally good ones.

    Parameters
    ----------
    predict : callable
        Of who is fitted to, (N,) bool, and the strength: what is said of all subjects, (N, classes); the largest is named.
    labels : Labels
        Of classes, with inner folds.
    """
    from sklearn.metrics import balanced_accuracy_score

    total = np.zeros(len(STRENGTHS))
    for fitted, held_out in inner_divisions(labels):
        for place, strength in enumerate(STRENGTHS):
            said = predict(fitted, strength)[held_out].argmax(axis=1)
            total[place] += balanced_accuracy_score(labels.target[held_out], said)
    return STRENGTHS[int(total.argmax())]
