"""Scores within sites and of people who moved alike: what sites and motion alone make is gone."""

from __future__ import annotations

import numpy as np
import pytest

from bhx_model.evaluation import subgroups
from bhx_model.evaluation.intervals import Interval, Run, interval


def runs_of(truth, score, n_splits=3, share=0.5):
    rng = np.random.default_rng(0)
    people = np.array([f"c/{i}" for i in range(len(truth))])
    runs = []
    for _ in range(n_splits):
        order = rng.permutation(len(truth))
        test = order[: int(share * len(truth))]
        scores = np.column_stack([1 - score, score])[test]
        runs.append(Run(people[test], truth[test], scores.argmax(axis=1), scores, people[order[len(test) :]]))
    return people.tolist(), runs


def limits(found: Interval) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def test_a_score_that_knows_sites_alone_is_chance_within_them():
    rng = np.random.default_rng(1)
    site = rng.integers(0, 2, 400)
    truth = (rng.random(400) < np.where(site, 0.8, 0.2)).astype(int)
    people, runs = runs_of(truth, np.where(site, 0.9, 0.1) + 0.01 * rng.random(400))
    site_of = dict(zip(people, site.astype(str), strict=True))
    assert limits(interval(runs, "auroc"))[0] > 0.7
    found = subgroups.within(runs, site_of, "auroc")
    low, high = limits(found)
    assert low < 0.5 < high
    assert found.n_splits == found.n_defined == 3


def test_groups_without_the_metric_do_not_count():
    truth = np.array([0, 1, 0, 1, 1, 1])
    people, runs = runs_of(truth, np.array([0.1, 0.9, 0.2, 0.8, 0.3, 0.4]), n_splits=1, share=1)
    site_of = dict(zip(people, ["a", "a", "a", "a", "b", "b"], strict=True))
    assert subgroups.within(runs, site_of, "auroc").point == 1
    assert subgroups.within(runs, site_of, "accuracy").point == pytest.approx(4 / 6)
    assert subgroups.within(runs, {}, "auroc").point is None


def test_one_group_is_everybody():
    rng = np.random.default_rng(0)
    people, runs = runs_of(rng.integers(0, 2, 60), rng.random(60))
    for metric in ("auroc", "balanced_accuracy"):
        one, whole = subgroups.within(runs, dict.fromkeys(people, "a"), metric), interval(runs, metric)
        assert (one.point, one.low, one.high) == pytest.approx((whole.point, whole.low, whole.high))


@pytest.mark.parametrize("metric", ["auroc", "pearson_r"])
@pytest.mark.parametrize("of_site", [2, 3])
def test_intervals_cover_within_sites_of_few_test_people(metric, of_site):
    """Two people correlate by 1 or -1, and one pair is ranked right or wrong: sites, not people, are what is counted."""
    rng = np.random.default_rng(0)
    people = np.array([f"c/{i}" for i in range(12 * of_site)])
    site_of = {person: str(i % 12) for i, person in enumerate(people)}
    none, held = 0.0 if metric == "pearson_r" else 0.5, 0
    for _ in range(300):
        score, truth = rng.random(len(people)), rng.standard_normal(len(people))
        if metric == "auroc":
            truth = np.arange(len(people)) // 12 % 2
            scores = np.column_stack([1 - score, score])
            run = Run(people, truth, scores.argmax(axis=1), scores, people[:0])
        else:
            run = Run(people, truth, score, score[:, None], people[:0])
        found = subgroups.within([run], site_of, metric)
        low, high = limits(found)
        held += low <= none <= high
    assert 0.92 <= held / 300 <= 0.99


def test_matched_people_moved_alike():
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 2
    motion = np.exp(rng.standard_normal(300) * 0.5 + 0.5 * truth - 2)
    people, runs = runs_of(truth, 1 / (1 + np.exp(-(np.log(motion) + 1.75))))
    class_of = dict(zip(people, truth.tolist(), strict=True))
    fd = dict(zip(people, motion.tolist(), strict=True))
    matched = subgroups.motion_matched(class_of, fd)
    sides = [np.log([fd[p] for p in matched if class_of[p] == c]) for c in (0, 1)]
    assert len(sides[0]) == len(sides[1]) > 60
    assert abs(sides[0].mean() - sides[1].mean()) < 0.05
    assert limits(interval(runs, "auroc"))[0] > 0.6
    found = subgroups.of_subset(runs, matched, "auroc")
    low, high = limits(found)
    assert low < 0.5 < high
    assert subgroups.motion_matched(class_of, {}) == set()
    assert subgroups.of_subset(runs, (), "auroc").point is None


def test_thirds_by_motion():
    found = subgroups.motion_thirds({"a": 3.0, "b": 1.0, "c": 2.0})
    assert found == {"b": "low", "c": "middle", "a": "high"}
