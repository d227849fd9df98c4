"""The penalty of linear models: one search for the connectivity baseline and the probe."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from endpoint_labels import labels_of, split_of

from bhx_model.errors import DataError
from bhx_model.evaluation import penalty


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_the_test_subjects_choose_nothing(kind):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 5))
    target = rng.integers(0, 2, 30) if kind == "binary" else rng.standard_normal(30)
    split = split_of(15, 7, 8)
    scores, strength = penalty.fit(x, labels_of(target, split))
    other = np.where(split == "test", 1 - target if kind == "binary" else target + 100, target)
    again, same = penalty.fit(x, labels_of(other, split))
    assert strength == same
    np.testing.assert_array_equal(scores, again)


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_neither_scale_nor_repeated_features_change_the_fit(kind):
    """So one grid serves 64 channels of a token and 79,800 connections."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 4))
    target = (x[:, 0] + rng.standard_normal(60) > 0).astype(int) if kind == "binary" else x[:, 0]
    labels = labels_of(target, split_of(40, 10, 10))
    scores, strength = penalty.fit(x, labels)
    for changed in (1000 * x, np.tile(x, 50)):
        found, same = penalty.fit(changed, labels)
        assert same == strength
        np.testing.assert_allclose(found, scores, atol=1e-3)


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_the_grid_reaches_from_a_constant_to_almost_no_penalty(kind):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((300, 3))
    labels = labels_of(
        rng.integers(0, 2, 300) if kind == "binary" else rng.standard_normal(300), split_of(100, 100, 100)
    )
    scores, strength = penalty.fit(x, labels)
    if strength == penalty.STRENGTHS[0]:
        assert np.ptp(scores[:, -1]) < 0.01
    exact = labels_of((x[:, 0] > 0).astype(int) if kind == "binary" else x[:, 0], labels.split)
    scores, strength = penalty.fit(x, exact)
    assert strength == penalty.STRENGTHS[-1]
    wanted = exact.target if kind == "regression" else None
    if wanted is not None:
        np.testing.assert_allclose(scores[:, 0], wanted, atol=1e-4)


def test_features_that_tell_nothing_give_a_constant():
    labels = labels_of(np.arange(20) % 2, split_of(10, 5, 5))
    scores, _ = penalty.fit(np.zeros((20, 3)), labels)
    np.testing.assert_allclose(scores, 0.5, atol=1e-6)


def test_a_class_without_training_subjects_has_no_probability():
    rng = np.random.default_rng(5)
    labels = labels_of(np.arange(20) % 2, split_of(10, 5, 5))
    three = type(labels)(**{**vars(labels), "kind": "multiclass", "classes": ["a", "b", "c"]})
    scores, _ = penalty.fit(rng.standard_normal((20, 3)), three)
    assert scores.shape == (20, 3)
    assert (scores[:, 2] == 0).all()


def test_the_search_needs_no_torch():
    code = "import sys, bhx_model.evaluation.penalty, bhx_model.evaluation.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_inner_folds_choose_without_the_test_subjects_and_the_model_is_of_train_and_validation():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((80, 6))
    target = (x[:, 0] + 0.3 * rng.standard_normal(80) > 0).astype(int)
    plain = labels_of(target, split_of(40, 20, 20))
    labels = dataclasses.replace(plain, inner_folds=5, refit=True)
    assert labels.fitted.sum() == 60
    scores, strength = penalty.fit(x, labels)
    test = labels.of("test")
    moved = x.copy()
    moved[test] += 7
    again, same = penalty.fit(moved, dataclasses.replace(labels, target=np.where(test, 1 - target, target)))
    assert same == strength
    np.testing.assert_array_equal(again[~test], scores[~test])
    # who was validated on counts for the fit, as train does
    flipped = dataclasses.replace(labels, target=np.where(labels.of("val"), 1 - target, target))
    assert np.abs(penalty.fit(x, flipped)[0] - scores).max() > 0.1


@pytest.mark.parametrize(
    ("target", "split"),
    [
        ([1] + [0] * 11, split_of(6, 2, 4)),  # one subject of class b
        ([0, 1] * 6, split_of(7, 1, 4)),  # one to choose on, of two classes
    ],
)
def test_inner_folds_of_too_few_are_a_sentence(target, split):
    labels = dataclasses.replace(labels_of(np.array(target), split), inner_folds=5, refit=True)
    with pytest.raises(DataError, match="inner divisions need 2 subjects of every class"):
        penalty.fit(np.random.default_rng(0).standard_normal((12, 3)), labels)
