"""Denoising: nilearn's projection, the same before and after the mean over parcels."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from bhx_prep.features import confounds, denoise
from bhx_prep.io import motion


def strategy(**fields):
    return confounds.Strategy.model_validate({"name": "t", "prose": "p", "citation": ["c"], **fields})


def signals(design, keep=None, dropped=0):
    keep = np.ones(len(design), bool) if keep is None else keep
    names = tuple(f"c{i}" for i in range(design.shape[1]))
    return confounds.Confounds(design, names, dropped, keep, np.full(len(keep) + dropped, np.nan))


def nilearn_clean(x, tr_s, band, detrend, design, keep=None):
    from nilearn.signal import clean

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clean(
            x.T,
            detrend=detrend,
            standardize=None,
            confounds=design if design.size else None,
            sample_mask=keep,
            t_r=tr_s,
            high_pass=band[0],
            low_pass=band[1],
            filter="butterworth" if any(band) else False,
        ).T


@pytest.fixture
def run(rng):
    """Series (R, T) with drift, oscillations, offsets and a shared nuisance, and the nuisance (T, C)."""
    n = 160
    t = np.arange(n)
    design = np.c_[rng.standard_normal((n, 5)).cumsum(0), rng.standard_normal((n, 3))] * 10.0 ** rng.integers(
        -4, 3, 8
    )
    series = 1000 + 0.3 * t + 5 * np.sin(t / rng.uniform(2, 20, (12, 1))) + rng.standard_normal((12, n))
    return series + (design / design.std(0) @ rng.standard_normal((8, 12))).T, design


@pytest.mark.parametrize("band", [(0.009, 0.08), (0.01, None), (None, 0.1), (None, None)])
@pytest.mark.parametrize("detrend", [True, False])
@pytest.mark.parametrize("n_confounds", [8, 0])
@pytest.mark.parametrize("tr_s", [0.735, 2.0, 3.0])
def test_equal_to_nilearn(run, band, detrend, n_confounds, tr_s):
    series, design = run[0], run[1][:, :n_confounds]
    found = denoise.denoise(series, tr_s, strategy(band_pass_hz=band, detrend=detrend), signals(design))
    expected = nilearn_clean(series, tr_s, band, detrend, design)
    np.testing.assert_allclose(found.series, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("band", [(0.009, 0.08), (None, None)])
def test_censoring_equals_nilearn(run, band):
    series, design = run
    keep = np.ones(160, bool)
    # no frame's mirror image is censored too: nilearn 0.13 fills frames by ~indices, which takes one for the other
    keep[[0, 1, 40, 41, 42, 100]] = False
    found = denoise.denoise(series, 2.0, strategy(band_pass_hz=band, detrend=True), signals(design, keep))
    expected = nilearn_clean(series, 2.0, band, True, design, keep)
    np.testing.assert_allclose(found.series, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(found.kept, keep)
    assert found.series.shape == (12, keep.sum())


@pytest.mark.parametrize("censor_fd_mm", [None, 0.5])
@pytest.mark.parametrize("name", ["paper", "24p+gsr", "acompcor", "none"])
def test_parcel_then_denoise_equals_denoise_then_parcel(rng, tmp_path, name, censor_fd_mm):
    """The linear part, on voxels: 300 of them in 6 parcels, with the strategy's own columns of a table."""
    voxels = 800 + 40 * rng.standard_normal((300, 220)) + rng.standard_normal((300, 1)) * np.arange(220)
    parcels = rng.permutation(np.arange(300) % 6)
    names = ["global_signal", "white_matter", "csf", *motion.NAMES]
    names += [f"{tissue}_comp_cor_{i:02d}" for tissue in "wc" for i in range(6)]
    table = pd.DataFrame(rng.standard_normal((220, len(names))).cumsum(0), columns=names)
    table["cosine00"] = np.cos(np.pi * (np.arange(220) + 0.5) / 220)
    table["framewise_displacement"] = np.where(rng.random(220) > 0.05, 0.1, 0.9)
    table["non_steady_state_outlier00"] = np.eye(220)[0]
    table.to_csv(tmp_path / "c.tsv", sep="\t", index=False)
    changes = {"despike": False, "censor_fd_mm": censor_fd_mm}
    chosen = confounds.load_strategy(name).model_copy(update=changes)
    nuisance = confounds.select(chosen, tmp_path / "c.tsv", 220)
    assert (nuisance.design.shape[1] == 0) == (name == "none")
    assert nuisance.keep.all() == (censor_fd_mm is None)

    def mean(x):
        return np.stack([x[parcels == p].mean(axis=0, dtype=np.float64) for p in range(6)])

    before = denoise.denoise(mean(voxels), 2.0, chosen, nuisance).series
    after = mean(denoise.denoise(voxels, 2.0, chosen, nuisance).series)
    np.testing.assert_allclose(before, after, atol=1e-5 * np.abs(after).max())


def test_dropped_frames_and_nan_rows(run):
    series, design = run
    series[3] = np.nan
    found = denoise.denoise(series, 2.0, strategy(detrend=True), signals(design[4:], dropped=4))
    assert found.series.shape == (12, 156)
    assert np.isnan(found.series[3]).all()
    assert np.isfinite(np.delete(found.series, 3, axis=0)).all()
    np.testing.assert_array_equal(np.flatnonzero(~found.kept), range(4))
    expected = nilearn_clean(np.delete(series, 3, axis=0)[:, 4:], 2.0, (None, None), True, design[4:])
    np.testing.assert_allclose(np.delete(found.series, 3, axis=0), expected, atol=1e-3)


def test_none_changes_nothing(run):
    found = denoise.denoise(run[0], 2.0, confounds.load_strategy("none"), signals(np.zeros((160, 0))))
    np.testing.assert_array_equal(found.series, run[0].astype(np.float32))


def test_constant_and_repeated_confounds_do_no_harm(run):
    series, design = run
    chosen = strategy(detrend=True, band_pass_hz=(0.009, 0.08))
    clean = denoise.denoise(series, 2.0, chosen, signals(design)).series
    doubled = np.c_[design, design[:, :2] * 3, np.full(160, 1234.5), np.arange(160.0)]
    again = denoise.denoise(series, 2.0, chosen, signals(doubled)).series
    np.testing.assert_allclose(again, clean, atol=1e-4 * np.abs(clean).max())


def test_upper_edge_above_what_the_sampling_holds_is_left_open(run):
    series, design = run
    wide = denoise.denoise(series, 3.0, strategy(band_pass_hz=(0.009, 0.2)), signals(design)).series
    high = denoise.denoise(series, 3.0, strategy(band_pass_hz=(0.009, None)), signals(design)).series
    np.testing.assert_array_equal(wide, high)
    with pytest.raises(ValueError, match=r"band from 0\.3 Hz cannot be kept at TR 3 s"):
        denoise.denoise(series, 3.0, strategy(band_pass_hz=(0.3, 0.4)), signals(design))


def test_too_little_is_a_sentence(run, rng):
    series, design = run
    band = strategy(band_pass_hz=(0.009, 0.08))
    with pytest.raises(ValueError, match="20 frames are too few to filter"):
        denoise.denoise(series[:, :20], 2.0, band, signals(design[:20]))
    with pytest.raises(ValueError, match="nothing would remain"):
        denoise.denoise(series, 0.735, band, signals(rng.standard_normal((160, 18))))
    keep = np.zeros(160, bool)
    keep[5] = True
    with pytest.raises(ValueError, match="only 1 of 160 frames remain"):
        denoise.denoise(series, 2.0, band, signals(design, keep))
    keep[[9, 100]] = True
    with pytest.raises(ValueError, match="only 3 frames remain after censoring"):
        denoise.denoise(series, 2.0, band, signals(design, keep))


def test_despiking_draws_in_outliers_and_nothing_else(rng):
    x = rng.standard_normal((300, 4)) + 50
    spiked = x.copy()
    spiked[[30, 200], 1] += [40, -25]
    found = denoise.despike(spiked, 2.0)
    plain = denoise.despike(x, 2.0)
    assert np.abs(found[[30, 200], 1] - 50).max() < 6
    small = np.abs(x - 50) < 1.5
    np.testing.assert_array_equal(plain[small], x[small])
    assert np.abs(plain - x).max() < 2
    order = np.argsort(x[:, 0])
    assert (np.diff(plain[order, 0]) > -1.5).all()
    constant = np.full((50, 2), 3.0)
    np.testing.assert_array_equal(denoise.despike(constant, 2.0), constant)
