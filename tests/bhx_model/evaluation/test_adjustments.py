"""Adjustments of scores: what each changes, and that none knows the test subjects."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from endpoint_labels import labels_of, split_of

from bhx_model.evaluation.adjustments import adjust, best_threshold, calibration
from bhx_model.evaluation.results import summarise


def two(p: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - p, p])


def test_none_are_the_default():
    labels = labels_of(np.array([0, 1] * 5), split_of(4, 2, 4))
    scores = two(np.linspace(0, 1, 10))
    found, predicted, learned = adjust(labels, scores)
    assert found is scores
    assert (predicted == scores.argmax(axis=1)).all()
    assert learned == {}


def test_class_weights_are_of_the_training_subjects():
    labels = labels_of(np.array([0, 0, 0, 1, 0, 1, 1, 1]), split_of(4, 2, 2))
    labels = dataclasses.replace(labels, adjustments=("class_weights",))
    scores, _, learned = adjust(labels, two(np.full(8, 0.25)))
    assert learned["class_weights"] == pytest.approx([4 / 6, 4 / 2])
    assert scores == pytest.approx(np.full((8, 2), 0.5))
    assert adjust(labels, two(np.full(8, 0.3)))[1].all()


def test_a_threshold_is_that_of_the_validation_subjects():
    labels = labels_of(np.array([0, 1, 0, 1, 0, 1, 0, 0]), split_of(2, 4, 2))
    labels = dataclasses.replace(labels, adjustments=("threshold",))
    scores = two(np.array([0.9, 0.9, 0.1, 0.3, 0.1, 0.4, 0.19, 0.21]))
    _, predicted, learned = adjust(labels, scores)
    assert learned["threshold"] == pytest.approx(0.2)
    assert predicted[-2:].tolist() == [0, 1]
    summary, rows = summarise(labels, scores)
    assert summary["metrics"]["accuracy"] == 0.5
    assert summary["adjustments"] == learned
    assert [row["prediction"] for row in rows[-2:]] == [0, 1]


def test_of_equal_thresholds_the_one_next_to_a_half():
    truth = np.array([0, 0, 1, 1])
    assert best_threshold(truth, np.array([0.1, 0.2, 0.8, 0.9])) == 0.5
    assert best_threshold(truth, np.full(4, 0.3)) == 0.5
    assert best_threshold(np.ones(3), np.array([0.1, 0.2, 0.3])) == 0.5


def test_calibration_mends_scale_and_offset_and_keeps_the_order():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(60)
    labels = dataclasses.replace(labels_of(truth, split_of(20, 20, 20)), adjustments=("calibrate",))
    scores = (10 + 5 * (truth + 0.3 * rng.standard_normal(60)))[:, None]
    before, after = (
        summarise(one, scores)[0]["metrics"] for one in (dataclasses.replace(labels, adjustments=()), labels)
    )
    assert after["mae"] < 0.4 < 5 < before["mae"]
    assert after["pearson_r"] == pytest.approx(before["pearson_r"])
    assert after["calibration_slope"] == pytest.approx(1, abs=0.2)
    changed = np.where(labels.of("test"), 100.0, truth)
    assert adjust(dataclasses.replace(labels, target=changed), scores)[2] == adjust(labels, scores)[2]


def test_constant_predictions_are_moved_only():
    assert calibration(np.array([1.0, 3.0]), np.array([5.0, 5.0])) == (1.0, -3.0)


def test_predictions_that_are_nearly_constant_are_not_stretched():
    """A trace of noise would be made as large as the truth, with a sign that is chance."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(50)
    trace = 2 + 1e-4 * rng.standard_normal(50)
    slope, offset = calibration(truth, trace)
    assert slope == 1
    assert offset == pytest.approx(truth.mean() - trace.mean())
    shrunk = 2 + 0.05 * truth  # what a strong penalty makes is undone
    assert calibration(truth, shrunk)[0] == pytest.approx(20)
