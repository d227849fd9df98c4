"""Metrics of a data set, on answers small enough to count by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bhx_model.evaluation import metrics


def test_two_classes_counted_by_hand():
    truth, score = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.6, 0.3, 0.6, 0.2])
    found = metrics.classification(truth, (score > 0.5).astype(int), np.column_stack([1 - score, score]), 2)
    # one of two patients and one of three controls are called patients
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert found["f1_negative"] == pytest.approx(2 * 2 / (3 + 3))
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    # of six pairs 0.6 wins two and ties one, 0.2 wins one
    assert found["auroc"] == pytest.approx(3.5 / 6)


def test_several_classes_are_weighted_and_absent_ones_do_not_count():
    truth, predicted = np.array([0, 0, 2, 2, 2]), np.array([0, 1, 2, 2, 0])
    found = metrics.classification(truth, predicted, np.eye(4)[predicted], 4)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["f1"] == pytest.approx(0.4 * (2 / 4) + 0.6 * (4 / 5))
    # class 1 was named once, and nobody is of it
    assert found["macro_f1"] == pytest.approx((2 / 4 + 0 + 4 / 5) / 3)
    assert "f1_negative" not in found
    # class 0 against the rest: 3.5 of 6 pairs; class 2: 5 of 6
    assert found["auroc"] == pytest.approx((3.5 / 6 + 5 / 6) / 2)


def test_one_class_only_gives_no_ranks():
    found = metrics.classification(np.ones(3, int), np.zeros(3, int), np.eye(2)[[0, 0, 0]], 2)
    assert found == {
        "accuracy": 0.0, "balanced_accuracy": 0.0, "f1": 0.0, "f1_negative": 0.0, "macro_f1": 0.0, "auroc": None,
    }  # fmt: skip


def test_a_regression_by_hand():
    found = metrics.regression(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 5.0]))
    assert found["mae"] == pytest.approx(1.0)
    assert found["r2"] == pytest.approx(1 - 5 / 2)
    assert found["pearson_r"] == pytest.approx(3 / np.sqrt(2 * 6))
    assert found["calibration_slope"] == pytest.approx(3 / 6)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 + 0.1])
def test_a_constant_has_no_correlation(constant):
    found = metrics.regression(np.array([1.0, 2.0, 4.0]), np.full(3, constant))
    assert found["pearson_r"] is found["calibration_slope"] is None
    assert found["r2"] is not None


def test_predictions_of_nearly_the_mean_have_no_calibration_slope():
    truth = np.array([1.0, 3, 2, 5, 4, 6])
    traces = truth * 1e-5 + 3.5
    assert metrics.regression(truth, traces)["calibration_slope"] is None
    assert metrics.regression(truth, traces)["pearson_r"] == pytest.approx(1)
    assert metrics.regression(truth, truth * 0.1)["calibration_slope"] == pytest.approx(10)


def test_one_person_has_an_error_and_nothing_else():
    found = metrics.regression(np.array([1.0]), np.array([3.0]))
    assert found == {"mae": 2.0, "pearson_r": None, "r2": None, "calibration_slope": None}


def test_every_class_has_an_f1():
    found = metrics.f1_of_classes(np.array([0, 0, 2]), np.array([0, 2, 2]), ["a", "b", "c"])
    assert found == pytest.approx({"a": 2 / 3, "b": 0, "c": 2 / 3})


def test_who_calls_everybody_positive_has_an_f1_without_data():
    found = metrics.constant_prediction("binary", [0, 0, 1], [1, 1, 0, 1], 2)
    assert (found["f1"], found["f1_all_positive"]) == (0, pytest.approx(2 * 3 / (4 + 3)))


@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1e-6, 1.0, 1e30])
def test_the_unit_of_a_label_changes_no_correlation(scale):
    truth, predicted = np.array([1.0, 2.0, 4.0, 3.0]), np.array([1.5, 1.0, 3.0, 3.5])
    found, scaled = (metrics.regression(s * truth, s * predicted) for s in (1.0, scale))
    assert scaled["mae"] == pytest.approx(scale * found["mae"])
    for name in ("pearson_r", "r2", "calibration_slope"):
        assert scaled[name] == pytest.approx(found[name])
    constant = metrics.regression(scale * truth, scale * (1e-17 * predicted))
    assert constant["pearson_r"] is None


def test_the_constant_predictor_knows_the_training_subjects_only():
    assert metrics.constant_prediction("binary", [0, 0, 1], [1, 1, 0, 1], 2)["accuracy"] == pytest.approx(
        1 / 4
    )
    assert metrics.constant_prediction("regression", [1.0, 3.0], [2.0, 5.0], 0)["mae"] == pytest.approx(3 / 2)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_every_metric_that_is_computed_is_known_to_the_tables(kind):
    """A metric that only one of the two knows would be computed and never shown, as R2 once was."""
    n_classes = {"binary": 2, "multiclass": 3, "regression": 0}[kind]
    found = metrics.constant_prediction(kind, [0, 1, 0], [0, 1, 2 if n_classes != 2 else 1], n_classes)
    assert found.keys() - {"f1_all_positive"} == set(metrics.metrics_of(kind))
    for name in metrics.metrics_of(kind):
        value = found[name]
        metric = metrics.METRICS[name]
        assert metric.name == name
        if metric.of_constants:
            assert metric.lowest <= metric.factor * value <= metric.highest
        else:
            assert value is None


def test_metrics_need_neither_torch_nor_scikit_learn_to_be_listed():
    code = "import sys, bhx_model.evaluation.metrics; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
