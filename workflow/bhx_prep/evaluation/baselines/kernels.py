"""Baselines that read how alike subjects are: support vector machines, and kernel ridge regression.

Both say how far a subject is on the side of a class. Probabilities come from a softmax of that at one temperature, which
is chosen with the penalty on the validation subjects and moves no decision (Guo et al. 2017, arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from bhx_model.evaluation import metrics
from bhx_model.evaluation.labels import Labels
from bhx_model.evaluation.penalty import STRENGTHS

#: Width of the tube within which a regression's error costs nothing, in units of the spread of the labels.
_EPSILON: Final = 0.1
#: Temperatures that are tried: from certain to undecided.
_SHARPNESS: Final = np.logspace(-3, 3, 121)


def support_vectors(centred: np.ndarray, labels: Labels) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit a linear support vector machine, or support vector regression.

    Parameters
    ----------
    centred : ndarray, (N, P)
        Features, standardised on the training subjects.
    labels : Labels

    Returns
    -------
    scores : ndarray, (N, classes) probabilities or (N, 1) predictions
    chosen : dict
        ``strength``, weight of the data against the penalty, and for classes ``sharpness``, the inverse temperature.
    """
    from sklearn.svm import SVC, SVR

    train = labels.of("train")
    kernel = (centred @ centred[train].T).astype(np.float64)
    kernel /= _mean_length(kernel[train])
    target = labels.target[train]

    def classify(strength: float) -> np.ndarray:
        model = SVC(C=strength, kernel="precomputed", decision_function_shape="ovr").fit(
            kernel[train], target
        )
        side = model.decision_function(kernel)
        side = np.stack([-side, side], axis=1) if side.ndim == 1 else side
        found = np.full((len(kernel), labels.n_classes), side.min() - 1)
        found[:, model.classes_] = side
        return found

    def regress(strength: float) -> np.ndarray:
        centre, scale = target.mean(), target.std() or 1.0
        model = SVR(C=strength, kernel="precomputed", epsilon=_EPSILON)
        return model.fit(kernel[train], (target - centre) / scale).predict(kernel)[:, None] * scale + centre

    return _chosen(classify if labels.n_classes else regress, labels)


def kernel_ridge(centred: np.ndarray, labels: Labels) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit a kernel ridge regression, of the label or of the membership of each class.

    Subjects are alike as far as their features correlate (Li et al. 2019, doi:10.1016/j.neuroimage.2019.04.016).

    Parameters
    ----------
    centred : ndarray, (N, P)
        Features, standardised on the training subjects.
    labels : Labels

    Returns
    -------
    scores, chosen
        As of `support_vectors`.
    """
    train = labels.of("train")
    rows = centred - centred.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(length > 0, length, 1)
    kernel = (rows @ rows[train].T).astype(np.float64)
    # an intercept: means over the training subjects are taken off kernel and target
    own = kernel[train]
    kernel = kernel - own.mean(axis=0) - kernel.mean(axis=1, keepdims=True) + own.mean()
    kernel /= _mean_length(kernel[train])
    target = np.eye(labels.n_classes)[labels.target] if labels.n_classes else labels.target[:, None]
    mean = target[train].mean(axis=0)
    values, vectors = np.linalg.eigh(kernel[train])
    projected = vectors.T @ (target[train] - mean)

    def predict(strength: float) -> np.ndarray:
        weights = vectors @ (projected / (np.maximum(values, 0) + 1 / strength)[:, None])
        return kernel @ weights + mean

    return _chosen(predict, labels)


def _mean_length(kernel: np.ndarray) -> float:
    """Mean squared length of the training subjects, so that a strength means the same for any number of features."""
    return float(np.diag(kernel).mean()) or 1.0


def _chosen(predict: Callable[[float], np.ndarray], labels: Labels) -> tuple[np.ndarray, dict[str, Any]]:
    """The prediction of the strength, and for classes of the temperature, that is best on the validation subjects."""
    val = labels.of("val")
    target = labels.target[val]
    best: tuple[float, np.ndarray, dict[str, Any]] | None = None
    for strength in STRENGTHS:
        said = predict(strength)
        for sharpness in _SHARPNESS if labels.n_classes else (None,):
            part = said[val] if sharpness is None else _softmax(said[val] * sharpness)
            loss = metrics.selection_loss(target, part, labels.n_classes)
            if best is None or loss < best[0]:
                chosen = {"strength": strength} | (
                    {} if sharpness is None else {"sharpness": float(sharpness)}
                )
                best = (loss, said, chosen)
    assert best is not None
    _, said, chosen = best
    return (_softmax(said * chosen["sharpness"]) if labels.n_classes else said), chosen


def _softmax(sides: np.ndarray) -> np.ndarray:
    from scipy.special import softmax

    return softmax(sides, axis=1)
