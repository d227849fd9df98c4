"""Kernel baselines: support vector machines and kernel ridge regression.

Both say how far a subject is on the side of a class. Probabilities come from a softmax of that at one temperature, which
is chosen with the penalty on the validation subjects and moves no decision (Guo et al. 2017, arXiv 1706.04599). Where a
protocol has inner folds, the penalty is chosen by balanced accuracy over these, as of a logistic regression, and the
temperature by what they say of the subjects that they leave out.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from bhx_model.evaluation import metrics, penalty
from bhx_model.evaluation.labels import Labels
from bhx_model.evaluation.penalty import STRENGTHS, Predict

#: Width of the tube within which a regression's error costs nothing, in units of the spread of the labels.
_EPSILON: Final = 0.1
#: Inverse temperatures that are tried: from undecided to certain.
_SHARPNESS: Final = np.logspace(-3, 3, 121)


def support_vectors(centred: np.ndarray, labels: Labels) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit a linear support vector machine, or support vector regression.

    Parameters
    ----------
    centred : ndarray, (N, P)
        Features, standardised on the subjects that the model is fitted to.
    labels : Labels

    Returns
    -------
    scores : ndarray, (N, classes) probabilities or (N, 1) predictions
    chosen : dict
        ``strength``, weight of the data against the penalty, and for classes ``sharpness``, the inverse temperature.
    """
    from sklearn.svm import SVC, SVR

    pool = _pool(labels)
    whole = (centred @ centred[pool].T).astype(np.float64)
    whole /= _mean_length(whole[pool])

    def predict(fitted: np.ndarray, strength: float) -> np.ndarray:
        kernel, target = whole[:, fitted[pool]], labels.target[fitted]
        if not labels.n_classes:
            centre, scale = target.mean(), target.std() or 1.0
            line = SVR(C=strength, kernel="precomputed", epsilon=_EPSILON)
            said = line.fit(kernel[fitted], (target - centre) / scale).predict(kernel)
            return said[:, None] * scale + centre
        model = SVC(C=strength, kernel="precomputed", decision_function_shape="ovr")
        side = model.fit(kernel[fitted], target).decision_function(kernel)
        side = np.stack([-side, side], axis=1) if side.ndim == 1 else side
        found = np.full((len(kernel), labels.n_classes), side.min() - 1)
        found[:, model.classes_] = side
        return found

    return _chosen(predict, labels)


def kernel_ridge(centred: np.ndarray, labels: Labels) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit a kernel ridge regression, of the label or of the membership of each class.

    Subjects are alike as far as their features correlate (Li et al. 2019, doi:10.1016/j.neuroimage.2019.04.016).

    Parameters
    ----------
    centred : ndarray, (N, P)
        Features, standardised on the subjects that the model is fitted to.
    labels : Labels

    Returns
    -------
    scores, chosen
        As of `support_vectors`.
    """
    rows = centred - centred.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(length > 0, length, 1)
    pool = _pool(labels)
    whole = (rows @ rows[pool].T).astype(np.float64)
    target = np.eye(labels.n_classes)[labels.target] if labels.n_classes else labels.target[:, None]
    solved: dict[bytes, tuple[np.ndarray, ...]] = {}

    def solve(fitted: np.ndarray) -> tuple[np.ndarray, ...]:
        """Kernel and target centred on the subjects, which is an intercept, and the decomposition of the kernel."""
        kernel = whole[:, fitted[pool]]
        own = kernel[fitted]
        kernel = kernel - own.mean(axis=0) - kernel.mean(axis=1, keepdims=True) + own.mean()
        kernel /= _mean_length(kernel[fitted])
        mean = target[fitted].mean(axis=0)
        values, vectors = np.linalg.eigh(kernel[fitted])
        return kernel, mean, np.maximum(values, 0), vectors, vectors.T @ (target[fitted] - mean)

    def predict(fitted: np.ndarray, strength: float) -> np.ndarray:
        if (key := fitted.tobytes()) not in solved:
            solved[key] = solve(fitted)
        kernel, mean, values, vectors, projected = solved[key]
        return kernel @ (vectors @ (projected / (values + 1 / strength)[:, None])) + mean

    return _chosen(predict, labels)


def _pool(labels: Labels) -> np.ndarray:
    """Subjects that are fitted to at any time: (N,) bool."""
    return labels.of("train") | labels.of("val") if labels.inner_folds else labels.fitted


def _mean_length(kernel: np.ndarray) -> float:
    """Mean squared length of the subjects fitted to, so that a strength means the same for any number of features."""
    return float(np.diag(kernel).mean()) or 1.0


def _chosen(predict: Predict, labels: Labels) -> tuple[np.ndarray, dict[str, Any]]:
    """The prediction of the strength, and for classes of the temperature, that is best on validation or over inner folds."""
    if labels.inner_folds:
        return _chosen_inside(predict, labels)
    train, val = labels.of("train"), labels.of("val")
    target = labels.target[val]
    best: tuple[float, np.ndarray, float, float] | None = None
    for strength in STRENGTHS:
        said = predict(train, strength)
        for sharpness in _SHARPNESS if labels.n_classes else (1.0,):
            part = _softmax(said[val] * sharpness) if labels.n_classes else said[val]
            loss = metrics.selection_loss(target, part, labels.n_classes)
            if best is None or loss < best[0]:
                best = (loss, said, strength, float(sharpness))
    assert best is not None
    _, said, strength, sharpness = best
    if labels.refit:
        said = predict(labels.fitted, strength)
    if not labels.n_classes:
        return said, {"strength": strength}
    return _softmax(said * sharpness), {"strength": strength, "sharpness": sharpness}


def _chosen_inside(predict: Predict, labels: Labels) -> tuple[np.ndarray, dict[str, Any]]:
    """The same of the strength that is best over inner folds, and of the temperature that is best for who they leave out."""
    strength = penalty.chosen_inside(predict, labels)
    left_out = [(held_out, predict(fitted, strength)) for fitted, held_out in penalty.inner_divisions(labels)]
    target = np.concatenate([labels.target[held_out] for held_out, _ in left_out])
    sides = np.concatenate([said[held_out] for held_out, said in left_out])
    losses = [metrics.selection_loss(target, _softmax(sides * one), labels.n_classes) for one in _SHARPNESS]
    sharpness = float(_SHARPNESS[int(np.argmin(losses))])
    said = predict(labels.fitted, strength)
    return _softmax(said * sharpness), {"strength": strength, "sharpness": sharpness}


def _softmax(sides: np.ndarray) -> np.ndarray:
    from scipy.special import softmax

    return softmax(sides, axis=1)
