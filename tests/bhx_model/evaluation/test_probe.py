"""The linear probe."""

from __future__ import annotations

import numpy as np
from endpoint_labels import labels_of, split_of

from bhx_model.evaluation.probe import probe
from bhx_model.evaluation.results import summarise


def test_the_probe_finds_what_is_there_and_nothing_else():
    random = np.random.default_rng(0)
    n = 120
    target = random.integers(0, 2, n)
    labels = labels_of(target, split_of(60, 30, 30))
    noise = random.normal(size=(n, 40))
    planted = noise + target[:, None] * np.linspace(0, 1, 40)
    summary, _ = summarise(labels, probe(labels, planted)[0])
    assert summary["metrics"]["auroc"] > 0.9
    summary, _ = summarise(labels, probe(labels, noise)[0])
    assert 0.25 < summary["metrics"]["auroc"] < 0.75


def test_what_is_chosen_does_not_depend_on_the_test_subjects():
    random = np.random.default_rng(1)
    target = random.integers(0, 2, 60)
    split = split_of(30, 15, 15)
    features = random.normal(size=(60, 30)) + target[:, None]
    flipped = np.where(split == "test", 1 - target, target)
    one, other = (probe(labels_of(y, split), features) for y in (target, flipped))
    np.testing.assert_array_equal(one[0], other[0])
    assert one[1] == other[1]
