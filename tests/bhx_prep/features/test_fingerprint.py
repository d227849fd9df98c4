"""The same series are found under another scale, cut, shifted; other series are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from bhx_prep.features import fingerprint


def run(seed: int, frames: int = 150, n_rois: int = 60) -> np.ndarray:
    """Series of one subject: what all have in common, what is their own, and slow fluctuations."""
    shared = np.random.default_rng(0).standard_normal((n_rois, 12))
    rng = np.random.default_rng(seed)
    own = shared + 0.7 * rng.standard_normal(shared.shape)
    signal = gaussian_filter1d(rng.standard_normal((12, frames)), 1.5, axis=1)
    return (own @ signal + 0.3 * rng.standard_normal((n_rois, frames))).astype(np.float32)


SAME = {
    "equal": lambda x: x,
    "divided by its deviation, in 16 bits": lambda x: (x / x.std(axis=1, keepdims=True)).astype(np.float16),
    "another unit and baseline": lambda x: 300 * x + 10_000,
    "four frames dropped at the start": lambda x: x[:, 4:],
    "cut to half": lambda x: x[:, :75],
    "a little noise": lambda x: x + 0.02 * x.std() * np.random.default_rng(9).standard_normal(x.shape),
}


OTHERWISE_DENOISED = {
    "its mean taken out": lambda x: x - np.outer(x @ x.mean(0), x.mean(0)) / (x.mean(0) @ x.mean(0)),
    "a narrower band": lambda x: gaussian_filter1d(x, 1.0, axis=1),
    "half its deviation in noise": lambda x: x + 0.5 * x.std(axis=1, keepdims=True)
    * np.random.default_rng(3).standard_normal(x.shape),
}  # fmt: skip


@pytest.mark.parametrize("change", OTHERWISE_DENOISED)
def test_one_scan_denoised_in_two_ways_is_near_and_correlates_less(change: str) -> None:
    first = run(1)
    second = OTHERWISE_DENOISED[change](first)
    prints = np.stack([fingerprint.fingerprint(x) for x in (first, run(2), second)])
    assert list(fingerprint.near_pairs(prints)) == [(0, 2)]
    assert fingerprint.ONE_SCAN < fingerprint.correlate(first, second)[0] < fingerprint.SAME


@pytest.mark.parametrize("change", SAME)
def test_the_same_series_are_near_and_correlate(change: str) -> None:
    first = run(1)
    second = SAME[change](first)
    prints = np.stack([fingerprint.fingerprint(x) for x in (first, run(2), second)])
    assert (0, 2) in list(fingerprint.near_pairs(prints))
    r, lag, n = fingerprint.correlate(first, second)
    assert r > fingerprint.SAME
    assert lag == (4 if "four frames" in change else 0)
    assert n == second.shape[1]
    assert fingerprint.correlate(second, first)[1] == -lag


def test_other_series_are_not() -> None:
    runs = [run(seed) for seed in range(30)]
    assert list(fingerprint.near_pairs(np.stack([fingerprint.fingerprint(x) for x in runs]))) == []
    assert fingerprint.correlate(runs[0], runs[1])[0] < 0.5


def test_rois_without_coverage_and_constant_runs_match_nothing() -> None:
    covered = run(1)
    covered[3:9] = np.nan
    constant = np.full((60, 150), 7.1, np.float32)
    prints = np.stack([fingerprint.fingerprint(x) for x in (covered, covered, constant, constant)])
    assert np.isfinite(prints).all()
    assert list(fingerprint.near_pairs(prints)) == [(0, 1)]
    assert fingerprint.correlate(covered, covered)[0] > fingerprint.SAME
    assert fingerprint.correlate(constant, constant) == (-1.0, 0, 0)
    assert fingerprint.correlate(covered[:, :10], covered[:, :10]) == (-1.0, 0, 0)


def test_blocks_give_the_pairs_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = np.stack([fingerprint.fingerprint(run(seed % 13)) for seed in range(30)])
    whole = list(fingerprint.near_pairs(prints))
    monkeypatch.setattr(fingerprint, "_BLOCK", 7)
    assert sorted(fingerprint.near_pairs(prints)) == sorted(whole)
    assert sorted(whole) == [(i, j) for i in range(30) for j in range(i + 1, 30) if i % 13 == j % 13]


def test_a_fingerprint_is_the_same_everywhere() -> None:
    found = fingerprint.fingerprint(np.vander(np.linspace(-1, 1, 70), 4).T.astype(np.float32))
    assert found.shape == (2 * fingerprint.N_PROJECTIONS,)
    np.testing.assert_allclose(found[:3], [-0.70832, -0.29168, -0.70832], rtol=1e-4)


def test_in_abide_one_pair_of_subjects_is_the_same_and_no_other(shared) -> None:
    """835 real runs: 0050279 and 0050286 hold one series, as they were published."""
    stored = np.load(shared("data/abide_cc200/series.npz"))
    keys = list(stored.files)
    series = [np.asarray(stored[key], np.float32) for key in keys]
    near = list(fingerprint.near_pairs(np.stack([fingerprint.fingerprint(x) for x in series])))
    same = [(i, j) for i, j in near if fingerprint.correlate(series[i], series[j])[0] > fingerprint.ONE_SCAN]
    assert [{keys[i], keys[j]} for i, j in same] == [{"0050279", "0050286"}]
    assert len(near) < 5
