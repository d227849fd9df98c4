"""Intervals from people and splits: never empty, about as often right as they say, and never sure of noise."""

from __future__ import annotations

import numpy as np
import pytest
from endpoint_labels import prediction_row
from interval_worlds import World, coverage, fitted_runs

from bhx_model.errors import DataError
from bhx_model.evaluation import intervals, metrics, prediction_file
from bhx_model.evaluation.influence import INFLUENCES
from bhx_model.evaluation.intervals import Run, difference, holm, interval


def run_of(truth, predicted, scores=None, people=None, train=("x",)) -> Run:
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if scores is None:
        scores = np.eye(max(2, truth.max() + 1))[predicted] if truth.dtype.kind == "i" else predicted[:, None]
    people = np.arange(len(truth)).astype(str) if people is None else np.asarray(people)
    return Run(people, truth, predicted, scores, np.asarray(train, str))


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_points_are_the_metrics(kind):
    rng = np.random.default_rng(0)
    classes = {"binary": 2, "multiclass": 3, "regression": 0}[kind]
    truth = rng.integers(0, classes, 30) if classes else rng.standard_normal(30)
    scores = rng.dirichlet(np.ones(classes), 30) if classes else rng.standard_normal((30, 1))
    predicted = scores.argmax(axis=1) if classes else scores[:, 0]
    found = (
        metrics.classification(truth, predicted, scores, classes)
        if classes
        else metrics.regression(truth, predicted)
    )
    assert found.keys() == set(metrics.metrics_of(kind)) <= INFLUENCES.keys()
    for name, one in intervals.intervals([run_of(truth, predicted, scores)], list(found)).items():
        assert one.point == pytest.approx(found[name])
        assert one.low < one.point < one.high


@pytest.mark.parametrize("name", INFLUENCES)
def test_an_influence_is_what_weighing_a_person_changes(name):
    rng = np.random.default_rng(1)
    of_classes = metrics.METRICS[name].endpoints != "regression"
    truth = rng.integers(0, 2, 400) if of_classes else rng.standard_normal(400)
    scores = (
        rng.random((400, 2)) + 0.4 * np.eye(2)[truth]
        if of_classes
        else (truth + rng.standard_normal(400))[:, None]
    )
    predicted = scores.argmax(axis=1) if of_classes else scores[:, 0]
    value, u = INFLUENCES[name](truth, predicted, scores)
    assert u.mean() == pytest.approx(0, abs=1e-12)
    without = [
        INFLUENCES[name](*(np.delete(a, i, axis=0) for a in (truth, predicted, scores)))[0] for i in range(20)
    ]
    np.testing.assert_allclose(399 * (value - np.array(without)), u[:20], atol=0.05 * np.abs(u).max())


@pytest.mark.parametrize("n_splits", [1, 3, 20])
def test_all_right_of_eight_people_is_not_certain(n_splits):
    """Splits of the same people who are always predicted right have no spread at all."""
    truth = np.array([0, 1] * 4)
    runs = [run_of(truth, truth) for _ in range(n_splits)]
    for name, one in intervals.intervals(runs, metrics.metrics_of("binary")).items():
        assert one.point == one.high == 1, name
        assert 0.4 < one.low < 0.8, name
    assert interval(runs, "accuracy").low == pytest.approx(8 / (8 + 1.959964**2))


def test_one_test_set_scored_many_times_is_no_more_people():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 2, (2, 40))
    one, many = (interval([run_of(truth, predicted)] * n, "accuracy") for n in (1, 30))
    assert (many.low, many.high) == pytest.approx((one.low, one.high), abs=0.02)


def test_a_constant_prediction_has_no_correlation():
    run = run_of([1.0, 2.0, 4.0], [2.0, 2.0, 2.0])
    assert interval([run], "pearson_r").point is None
    assert interval([run], "calibration_slope").low is None
    other = run_of([1.0, 2.0, 4.0, 3.0], [2.0, 2.5, 3.0, 2.0])
    found = interval([run, other], "pearson_r")
    assert (found.n_splits, found.n_defined) == (2, 1)
    assert found.point == pytest.approx(
        INFLUENCES["pearson_r"](other.truth, other.predicted, other.scores)[0]
    )


def test_one_test_person_or_one_class():
    one = run_of([2.0], [3.0])
    assert (interval([one], "mae").point, interval([one], "mae").low) == (1, None)
    assert interval([one], "r2").point is None
    ones = run_of([1, 1, 1], [1, 0, 1])
    assert interval([ones], "auroc").point is None
    assert interval([ones], "accuracy").low > 0.1
    assert interval([run_of([1], [1])], "accuracy").low < 0.3


def test_perfect_values_are_not_certain():
    truth = np.array([1.0, 2.0, 4.0, 3.0, 7.0])
    for name in metrics.metrics_of("regression"):
        found = interval([run_of(truth, truth)], name)
        assert found.high > found.low, name
        assert found.low <= found.point <= found.high, name
        assert metrics.METRICS[name].lowest <= found.low, name
        assert found.high <= metrics.METRICS[name].highest, name


def test_errors_that_are_all_the_same_have_no_interval_of_width_zero():
    runs = [run_of(np.full(6, 3.0), np.full(6, wrong)) for wrong in (2.3, 2.1)]
    found = interval(runs, "mae")
    assert (found.point, found.low, found.high) == (pytest.approx(0.8), None, None)


def test_batched_values_move_the_interval():
    truth = np.array([0, 1] * 8)
    run = run_of(truth, truth ^ (np.arange(16) < 4))
    found = interval([run], "f1", values=[0.6])
    assert found.point == 0.6
    assert found.low < 0.6 < found.high


def test_a_difference_of_equal_predictions_is_nothing_with_a_width():
    truth = np.array([0, 1] * 4)
    runs = [run_of(truth, truth ^ (np.arange(8) < 2))] * 3
    for name in metrics.metrics_of("binary"):
        found = difference(runs, runs, name)
        assert found.point == 0
        assert found.low < -0.05 < 0.05 < found.high
        assert found.p == 1


def test_a_difference_pairs_people_whatever_their_order():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(60)
    good, bad = (run_of(truth, truth + s * rng.standard_normal(60)) for s in (0.3, 3.0))
    order = rng.permutation(60)
    shuffled = run_of(truth[order], bad.predicted[order], people=bad.people[order])
    found, same = difference([good], [bad], "pearson_r"), difference([good], [shuffled], "pearson_r")
    assert found == same
    assert found.low > 0
    assert found.p < 0.001
    assert difference([bad], [good], "pearson_r").point == pytest.approx(-found.point)
    assert difference([bad], [good], "mae").low > 0


def test_rows_of_other_people_have_no_difference():
    one, other = run_of([0, 1], [0, 1]), run_of([0, 1], [0, 1], people=["8", "9"])
    for runs, others in (([one], [other]), ([one, one], [one])):
        with pytest.raises(DataError, match="cannot be compared"):
            difference(runs, others, "accuracy")


def test_holm():
    # 4 x .01, 3 x .02, then no less than before; 1 at most
    assert holm([0.02, 0.01, None, 0.03, 0.9]) == pytest.approx([0.06, 0.04, None, 0.06, 0.9], nan_ok=True)
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_runs_are_read_with_who_trained(tmp_path):
    rows = [prediction_row(str(i), split=split) for i, split in enumerate(["train", "val", "test", "test"])]
    prediction_file.write(tmp_path / "p.parquet", rows)
    run = intervals.read_run(tmp_path / "p.parquet")
    assert (list(run.people), list(run.train)) == (["c/2", "c/3"], ["c/0"])


@pytest.mark.parametrize("n_splits", [1, 3, 20])
def test_noise_of_55_people_holds_no_correlation(n_splits):
    """A row of features without any signal: of 40 such studies, almost every interval holds 0."""
    rng = np.random.default_rng(5)
    held = [
        found.low <= 0 <= found.high
        for _ in range(40)
        if (found := interval(fitted_runs(World("regression", 0.0, 5), 55, n_splits, rng), "pearson_r")).low
        is not None
    ]
    assert np.mean(held) >= 0.9


def test_a_small_simulation_covers():
    """What tests/benchmarks/intervals.py shows with 1,000 repeats of every size, at its smallest: 8 test people."""
    for world in (World("binary", 1.2, 5), World("regression", 0.5, 5)):
        for found in coverage(world, n=40, n_splits=(3, 20), repeats=60, seed=0):
            assert 0.87 <= found.covered <= 1, found


@pytest.mark.parametrize("name", metrics.metrics_of("multiclass"))
def test_classes_of_a_file_are_numbers_with_a_point(name):
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 3, 30), rng.dirichlet(np.ones(3), 30)
    as_made = interval([run_of(truth, scores.argmax(axis=1), scores)], name)
    as_read = interval([run_of(truth.astype(float), scores.argmax(axis=1).astype(float), scores)], name)
    assert as_read == as_made


def test_people_of_another_cohort_than_is_tested_make_nothing_more_certain():
    truth = np.tile([0.0, 1.0], 25)
    table = prediction_file.PredictionTable(
        subject=np.array([str(i) for i in range(50)]),
        cohort=np.array(["own"] * 40 + ["other"] * 10),
        split=np.array(["train"] * 30 + ["val"] * 10 + ["test"] * 10),
        truth=truth,
        prediction=np.zeros(50),
        scores=np.tile([1.0, 0.0], (50, 1)),
    )
    found = interval([intervals.run_of(table)], "accuracy")
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.25  # 5 of 10; all 50 people would give .37
    assert found.high > 0.75
