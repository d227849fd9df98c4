"""Support vector machines and kernel ridge regression: what is chosen on whom."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from endpoint_labels import labels_of, split_of

from bhx_model.evaluation import penalty
from bhx_prep.evaluation.baselines import kernels


@pytest.fixture(params=["support_vectors", "kernel_ridge"])
def fit(request):
    return getattr(kernels, request.param)


def folded(target: np.ndarray):
    plain = labels_of(target, split_of(40, 20, 20))
    return dataclasses.replace(plain, inner_folds=5, refit=True)


def test_inner_folds_choose_without_the_test_subjects_and_the_model_is_of_train_and_validation(fit):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((80, 6))
    target = (x[:, 0] + 0.3 * rng.standard_normal(80) > 0).astype(int)
    labels = folded(target)
    scores, chosen = fit(x, labels)
    test = labels.of("test")
    assert (scores[test].argmax(axis=1) == target[test]).mean() > 0.7
    moved = np.where(test[:, None], x[:, ::-1], x)
    again, same = fit(moved, dataclasses.replace(labels, target=np.where(test, 1 - target, target)))
    assert same == chosen
    np.testing.assert_allclose(again[~test], scores[~test])
    flipped = dataclasses.replace(labels, target=np.where(labels.of("val"), 1 - target, target))
    assert np.abs(fit(x, flipped)[0] - scores).max() > 0.1


def test_the_folds_of_all_linear_rows_are_the_same_and_decide_by_balanced_accuracy(fit, monkeypatch):
    rng = np.random.default_rng(6)
    labels = folded((np.arange(80) % 4 == 0).astype(int))
    asked = []
    inside = penalty.chosen_inside

    def chosen_inside(predict, given):
        asked.append(given)
        return inside(predict, given)

    monkeypatch.setattr(penalty, "chosen_inside", chosen_inside)
    x = rng.standard_normal((80, 6))
    x[:, 0] += 2 * labels.target  # classes that overlap as noise does take support vectors 15 s
    scores, chosen = fit(x, labels)
    assert asked == [labels]
    assert chosen["strength"] in penalty.STRENGTHS
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    for fitted, held_out in penalty.inner_divisions(labels):
        assert (fitted.sum(), len(held_out)) == (40, 20)
        assert not fitted[held_out].any()
        assert not labels.of("test")[fitted].any()
        assert not labels.of("test")[held_out].any()
