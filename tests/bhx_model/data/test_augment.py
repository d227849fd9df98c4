import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bhx_model.config import FunctionConfig
from bhx_model.data.augment import (
    apply_plan,
    check_series,
    downsample,
    patch_frames,
    pick_frames,
    plan_series,
)
from bhx_model.errors import ConfigError, DataError

CONFIG = FunctionConfig()
PAPER = {
    0.735: 48, 0.8: 44, 1.47: 24, 1.5: 24, 1.6: 22, 1.67: 21, 2.0: 18, 2.2: 16, 2.205: 16, 2.4: 15, 2.5: 14,
    2.94: 12, 3.0: 12,
}  # fmt: skip


@pytest.mark.parametrize(("tr_s", "frames"), PAPER.items())
def test_patch_lengths_are_the_papers(tr_s, frames):
    assert patch_frames(tr_s) == frames


@pytest.mark.parametrize("tr_s", [0.0, -2.0, float("nan"), float("inf")])
def test_a_tr_must_be_positive(tr_s):
    with pytest.raises(ValueError, match="positive number of seconds"):
        patch_frames(tr_s)


def test_evaluation_reads_the_series_as_it_is():
    plan = plan_series(0.735, 490, CONFIG)
    assert (plan.factor, plan.start, plan.n_frames, plan.bucket) == (1, 0, 490, (48, 11))
    assert plan_series(0.735, 2000, CONFIG).n_frames == 18 * 48


def test_ukb_draws_the_four_trs_of_the_paper_and_abcd_three():
    ukb = {plan_series(0.735, 490, CONFIG, sample=s).tr_s for s in range(60)}
    abcd = {plan_series(0.8, 383, CONFIG, sample=s).tr_s for s in range(60)}
    assert sorted(ukb) == pytest.approx([0.735, 1.47, 2.205, 2.94])
    assert sorted(abcd) == pytest.approx([0.8, 1.6, 2.4])


def test_plans_are_pure_and_change_from_epoch_to_epoch():
    plans = [plan_series(0.735, 2000, CONFIG, seed=1, epoch=e, sample=4) for e in range(8)]
    assert plans[3] == plan_series(0.735, 2000, CONFIG, seed=1, epoch=3, sample=4)
    assert len(set(plans)) > 1


@given(tr_s=st.floats(0.3, 4.0), extra=st.integers(0, 900), sample=st.integers(0, 50))
@settings(max_examples=60)
def test_what_is_planned_is_cut(tr_s, extra, sample):
    n_frames = patch_frames(tr_s) + extra
    plan = plan_series(tr_s, n_frames, CONFIG, sample=sample)
    assert plan.tr_s <= max(tr_s, CONFIG.max_tr_s) + 1e-5
    assert plan.n_frames >= plan.patch_frames
    assert 1 <= plan.n_patches <= CONFIG.time_patches
    series = np.random.default_rng(0).normal(size=(2, n_frames)).astype(np.float32)
    cut = apply_plan(series, plan, CONFIG)
    assert cut.shape == (2, plan.n_patches * plan.patch_frames)
    assert np.isfinite(cut[:, : plan.n_frames]).all()
    assert np.isnan(cut[:, plan.n_frames :]).all()
    if plan.factor == 1:
        np.testing.assert_array_equal(
            cut[:, : plan.n_frames], series[:, plan.start : plan.start + plan.n_frames]
        )


def test_a_series_shorter_than_a_patch_is_refused():
    with pytest.raises(ValueError, match="shorter than one patch of 18 frames"):
        plan_series(2.0, 17, CONFIG)


def test_an_array_shorter_than_its_list_says_is_refused():
    plan = plan_series(2.0, 40, CONFIG)
    with pytest.raises(ValueError, match="list and its array disagree"):
        apply_plan(np.zeros((2, 39)), plan, CONFIG)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_downsampling_keeps_slow_waves_in_place_and_removes_fast_ones(factor):
    t = np.arange(600) * 0.735
    nyquist = 0.5 / (0.735 * factor)
    slow = np.stack([np.sin(2 * np.pi * f * t + 0.4) for f in (0.01, 0.05, 0.7 * nyquist)])
    fast = np.stack([np.sin(2 * np.pi * f * t + 0.4) for f in (1.2 * nyquist, 1.6 * nyquist)])
    inner = slice(20, 600 // factor - 20)
    kept = downsample(slow, factor)
    assert kept.shape == (3, 600 // factor)
    np.testing.assert_allclose(kept[:, inner], slow[:, ::factor][:, inner], atol=0.02)
    assert np.abs(downsample(fast, factor)[:, inner]).max() < 0.02
    folded = np.abs(pick_frames(fast, factor)[:, inner]).max()
    assert folded > 0.5, "the reference folds fast waves onto slow ones"


def test_downsampling_keeps_level_slope_and_absent_rois():
    line = np.linspace(100, 130, 200)
    np.testing.assert_allclose(downsample(line[None], 4)[0], line[::4], atol=1e-4)
    assert np.isnan(downsample(np.full((1, 100), np.nan), 2)).all()
    short = downsample(np.ones((1, 9)), 4)
    np.testing.assert_allclose(short, np.ones((1, 2)), atol=1e-6)


def test_reference_frames_are_unevenly_spaced():
    taken = pick_frames(np.arange(490.0)[None], 2)[0]
    assert len(taken) == 245
    assert set(np.diff(taken)) == {2.0, 3.0}
    reference = dataclasses.replace(CONFIG, downsampling="reference")
    plan = next(p for s in range(99) if (p := plan_series(0.735, 490, reference, sample=s)).factor == 2)
    cut = apply_plan(np.arange(490.0)[None], plan, reference)
    np.testing.assert_array_equal(cut[0, : plan.n_frames], taken)


def test_a_series_longer_than_the_model_is_cut_at_random_in_training_and_at_its_start_else():
    k, longest = 18, CONFIG.time_patches
    n = (longest + 2) * k
    config = dataclasses.replace(CONFIG, tr_augment=False)
    plans = [plan_series(2.0, n, config, seed=1, epoch=e, sample=s) for e in range(20) for s in range(20)]
    starts = {plan.start for plan in plans}
    assert starts == set(range(2 * k + 1)), "every place, in 400 draws of 37"
    assert {(plan.n_frames, plan.n_patches) for plan in plans} == {(longest * k, longest)}
    assert plan_series(2.0, n, config).start == 0
    series = np.arange(float(n))[None]
    np.testing.assert_array_equal(
        apply_plan(series, plans[0], config)[0], series[0, plans[0].start :][: longest * k]
    )


GOOD = np.random.default_rng(0).normal(size=(3, 60))


def test_a_good_series_with_an_absent_roi_passes():
    series = GOOD.copy()
    series[1] = np.nan
    check_series(series, 2.0, 3, CONFIG)


@pytest.mark.parametrize(
    ("change", "tr_s", "message"),
    [
        (lambda x: x[:2], 2.0, "needs .3 ROIs"),
        (lambda x: x.T, 2.0, "check atlas and axes"),
        (lambda x: x[:, :5], 2.0, "shorter than one patch"),
        (lambda x: x, 0.0, "positive number of seconds"),
        (lambda x: x * np.nan, 2.0, "NaN throughout"),
        (lambda x: np.where(np.arange(180).reshape(3, 60) == 70, np.nan, x), 2.0, "ROI row 1 is NaN"),
        (
            lambda x: np.where(np.arange(180).reshape(3, 60) == 130, np.inf, x),
            2.0,
            "ROI row 2 is NaN or infinite",
        ),
        (lambda x: np.where(np.arange(3)[:, None] == 1, 7.0, x), 2.0, "ROI row 1 never changes"),
    ],
)
def test_bad_series_are_refused_with_a_sentence(change, tr_s, message):
    with pytest.raises(ValueError, match=message):
        check_series(change(GOOD), tr_s, 3, CONFIG)


def cut(lengths, gap=3):
    """Segments of these lengths with gaps between, and a series whose value is the number of the original frame."""
    ranges, first = [], 4
    for length in lengths:
        ranges.append((first, first + length))
        first += length + gap
    return tuple(ranges), np.concatenate([np.arange(*r) for r in ranges]).astype(np.float32)[None]


def test_no_patch_crosses_a_cut():
    segments, series = cut([40, 17, 18, 90])  # 2, 0, 1 and 5 patches of 18
    plan = plan_series(2.0, 165, CONFIG, segments=segments)
    assert (plan.factor, plan.start, plan.n_frames, plan.bucket) == (1, 0, 144, (18, 8))
    patches = apply_plan(series, plan, CONFIG).reshape(8, 18)
    np.testing.assert_array_equal(patches[:, 0], [4, 22, *[67], *range(88, 178, 18)])
    assert (np.diff(patches, axis=1) == 1).all()
    check_series(np.vstack([series] * 3), 2.0, 3, CONFIG, segments)
    with pytest.raises(ValueError, match="3 segments, the longest of 17 frames"):
        plan_series(2.0, 44, CONFIG, segments=cut([10, 17, 17])[0])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 200), min_size=2, max_size=6),
    st.sampled_from([0.5, 0.8, 2.0]),
    st.integers(0, 9),
    st.sampled_from(["antialiased", "reference"]),
)
def test_no_patch_of_a_down_sampled_run_knows_of_another_segment(lengths, tr_s, sample, downsampling):
    config = FunctionConfig(downsampling=downsampling)
    k = patch_frames(tr_s)
    lengths[1] += k
    segments, series = cut(lengths)
    n = series.shape[1]
    plan = plan_series(tr_s, n, config, segments=segments, sample=sample)
    assert plan == plan_series(tr_s, n, config, segments=segments, sample=sample)
    assert plan.n_frames == plan.n_patches * plan.patch_frames
    assert 1 <= plan.n_patches <= config.time_patches
    whole = apply_plan(series, plan, config)
    assert np.isfinite(whole).all()
    alone = []
    for place, (first, stop) in enumerate(segments):
        part = np.full_like(series, 1e6)  # what stands in other segments changes nothing
        start = sum(lengths[:place])
        part[:, start : start + stop - first] = series[:, start : start + stop - first]
        alone.append(apply_plan(part, plan, config))
    patches = whole.reshape(plan.n_patches, plan.patch_frames)
    each = [a.reshape(plan.n_patches, plan.patch_frames) for a in alone]
    for number, patch in enumerate(patches):
        assert any(np.array_equal(patch, of_one[number]) for of_one in each)


def test_the_choice_of_patches_is_by_chance_and_whole():
    segments, series = cut([300, 200, 100])  # 16, 11 and 5 patches: 32 where 18 fit
    plans = [plan_series(2.0, 600, CONFIG, segments=segments, sample=s) for s in range(60)]
    starts = {plan.start for plan in plans}
    assert {start % 18 for start in starts} == {0}
    assert min(starts) == 0
    assert max(starts) == 14 * 18
    for plan in plans[:9]:
        patches = apply_plan(series, plan, CONFIG).reshape(18, 18)
        assert (np.diff(patches, axis=1) == 1).all()


@pytest.mark.parametrize(
    ("tr_s", "n_frames", "factor", "kept"),
    [(0.735, 490, 3, 163), (2.0, 200, 1, 200), (3.0, 100, 1, 100), (1.1, 100, 2, 50)],
)
def test_a_fixed_repetition_time_counts_frames_whatever_they_last(tr_s, n_frames, factor, kept):
    config = FunctionConfig(tr="fixed", tr_augment=False, base_patch=16, base_tr_s=2.205)
    for plan in (plan_series(tr_s, n_frames, config), plan_series(tr_s, n_frames, config, sample=1)):
        assert (plan.factor, plan.patch_frames, plan.n_frames, plan.tr_s) == (factor, 16, kept, 2.205)
    cut = plan_series(tr_s, n_frames, config, segments=[(0, n_frames // 2), (n_frames // 2, n_frames)])
    assert (cut.factor, cut.patch_frames) == (factor, 16)
    assert apply_plan(np.zeros((2, n_frames)), plan, config).shape == (2, 16 * plan.n_patches)


def test_a_fixed_repetition_time_is_not_augmented_and_needs_a_patch_of_frames():
    with pytest.raises(ConfigError, match="set tr_augment: false with it"):
        FunctionConfig(tr="fixed")
    config = FunctionConfig(tr="fixed", tr_augment=False, base_patch=16, base_tr_s=2.205)
    with pytest.raises(DataError, match=r"47 frames at TR 0.735 s is shorter than one patch of 48 frames"):
        plan_series(0.735, 47, config)
