import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bhx_model.config import FunctionConfig
from bhx_model.data.masking import jepa_masks, mae_visible

CONFIG = FunctionConfig()


@given(
    n_rois=st.integers(2, 450),
    n_patches=st.integers(1, 20),
    seed=st.integers(0, 9),
    step=st.integers(0, 10**6),
)
@settings(max_examples=60)
def test_context_and_targets_are_disjoint_tokens_of_any_grid(n_rois, n_patches, seed, step):
    masks = jepa_masks(n_rois, n_patches, CONFIG, seed, step, [0, 7, 10**9])
    assert len(masks.context) == len(masks.target) == 3
    for context, target in zip(masks.context, masks.target, strict=True):
        both = np.concatenate([context, target])
        assert len(np.unique(both)) == len(both)
        assert len(context) > 0
        assert len(target) > 0
        assert both.min() >= 0
        assert both.max() < n_rois * n_patches
        assert (np.diff(context) > 0).all()
        assert (np.diff(target) > 0).all()


def test_targets_are_cross_roi_cross_time_and_double_cross():
    n_rois, n_patches = 40, 10
    masks = jepa_masks(n_rois, n_patches, CONFIG, 0, 0, [0])
    seen = np.zeros((n_rois, n_patches), bool)
    seen.flat[masks.context[0]] = True
    wanted = np.zeros_like(seen)
    wanted.flat[masks.target[0]] = True
    rois, times = seen.any(axis=1), seen.any(axis=0)
    assert seen.sum() == rois.sum() * times.sum(), "the context is a block"
    assert (np.diff(np.flatnonzero(times)) == 1).all(), "its window is contiguous"
    assert 0.45 * n_patches - 1 <= times.sum() <= 0.6 * n_patches + 1
    cross_roi, cross_time = wanted[~rois][:, times], wanted[rois][:, ~times]
    double_cross = wanted[~rois][:, ~times]
    assert cross_roi.any()
    assert cross_time.any()
    assert double_cross.any()
    assert not wanted[rois][:, times].any(), "nothing that is seen is predicted"
    held = cross_roi.all(axis=1).sum()
    assert 0.15 * n_rois - 1 <= held <= 0.3 * n_rois + 1


def test_masks_are_pure_functions_of_seed_step_and_sample():
    first = jepa_masks(30, 6, CONFIG, 1, 5, [3, 4])
    np.random.default_rng(0).random(100)
    np.random.seed(1)  # noqa: NPY002 - the point is that the global state does not matter
    again = jepa_masks(30, 6, CONFIG, 1, 5, [9, 4, 3])
    np.testing.assert_array_equal(first.context[0], again.context[2])
    np.testing.assert_array_equal(first.target[1], again.target[1])
    for other in (jepa_masks(30, 6, CONFIG, 2, 5, [3]), jepa_masks(30, 6, CONFIG, 1, 6, [3])):
        assert other.context.shape != first.context[:1].shape or (other.context != first.context[:1]).any()
    assert (first.context[0] != first.context[1]).any()


def test_visible_patches_are_a_pure_random_share():
    visible = mae_visible(1200, 0.75, 0, 0, [5, 6])
    assert visible.shape == (2, 300)
    np.testing.assert_array_equal(visible[1], mae_visible(1200, 0.75, 0, 0, [6])[0])
    assert (np.diff(visible, axis=1) > 0).all()
    assert (visible[0] != visible[1]).any()
    counts = np.bincount(mae_visible(20, 0.75, 0, 0, range(2000)).ravel(), minlength=20)
    assert counts.min() > 400, "each of 20 patches is seen in a quarter of 2000 draws, within 5 sigma"
    assert counts.max() < 600


@pytest.mark.parametrize("n", [2, 3])
def test_at_least_one_patch_is_seen_and_one_hidden(n):
    assert mae_visible(n, 0.99, 0, 0, [0]).shape == (1, 1)
    assert mae_visible(n, 0.01, 0, 0, [0]).shape == (1, n - 1)


def test_one_roi_cannot_be_masked():
    with pytest.raises(ValueError, match="at least 2 ROIs"):
        jepa_masks(1, 6, CONFIG, 0, 0, [0])
