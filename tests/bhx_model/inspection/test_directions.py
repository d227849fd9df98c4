"""The direction that tells labels apart, and the plane in which subjects differ most."""

from __future__ import annotations

import numpy as np
import pytest

from bhx_model.evaluation.labels import Labels
from bhx_model.inspection.directions import label_direction, principal_plane

N = 60


def labels(kind: str, target: np.ndarray) -> Labels:
    classes = [] if kind == "regression" else [str(c) for c in np.unique(target)]
    split = np.array(["train", "train", "val", "test"] * (N // 4))
    return Labels("e", "c", kind, classes, 0, [f"{i:03d}" for i in range(N)], target, split)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_it_points_to_the_feature_that_differs_between_labels(kind: str):
    random = np.random.default_rng(0)
    target = {
        "binary": np.arange(N) // 30 % 2,
        "multiclass": np.arange(N) % 3,
        "regression": random.normal(size=N),
    }[kind]
    x = random.normal(size=(N, 5)) * [1, 100, 1, 1, 0]
    x[:, 2] += 3 * target
    direction = label_direction(x, labels(kind, target))
    assert np.isfinite(direction).all()
    moved = direction * x.std(axis=0)
    assert np.abs(moved).argmax() == 2
    assert moved[2] > 0


def test_only_training_subjects_decide():
    random = np.random.default_rng(1)
    target = np.arange(N) // 30 % 2
    x = random.normal(size=(N, 3))
    before = label_direction(x, labels("binary", target))
    others = labels("binary", target).split != "train"
    x[others] += 100 * target[others, None]
    np.testing.assert_array_equal(label_direction(x, labels("binary", target)), before)


def test_the_plane_holds_the_largest_variance():
    random = np.random.default_rng(2)
    latent = random.normal(size=(N, 2))
    mixing = np.repeat(np.eye(2), 4, axis=1)
    x = latent @ mixing + 0.01 * random.normal(size=(N, 8))
    plane, explained = principal_plane(x)
    assert plane.shape == (N, 2)
    assert explained.sum() > 0.99
    assert np.abs(np.corrcoef(plane.T, latent.T)[:2, 2:]).max(axis=1).min() > 0.5
    turned, _ = principal_plane(-x)
    np.testing.assert_allclose(np.abs(turned), np.abs(plane), atol=1e-4)


def test_one_feature_gives_a_line():
    plane, explained = principal_plane(np.arange(4.0)[:, None])
    assert (plane[:, 1] == 0).all()
    assert explained.tolist() == [1.0, 0.0]
