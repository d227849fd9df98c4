"""Series as they are stored: 16 bits a sample, in steps far below what anything downstream can distinguish."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bhx_model.data import frames, timeseries

SERIES = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(-1e6, 1e6, width=32),
)


@given(SERIES)
def test_no_sample_moves_by_more_than_half_a_step(series):
    stored = timeseries.decode(timeseries.encode(series))
    spread, span = series.std(axis=1, dtype=np.float64), np.ptp(series.astype(np.float64), axis=1)
    # steps are powers of two, so up to twice what is asked for; and float32 has its own
    finest = np.spacing(np.abs(series).max(axis=1))
    step = 2 * np.maximum(np.maximum(spread / 4096, span / 65535), finest)
    assert (np.abs(stored - series.astype(np.float64)) <= (step / 2 + finest)[:, None]).all()


def bold(rois: int = 20, frames: int = 490, *, mean: float = 9000, sd: float = 60) -> np.ndarray:
    """Drawn series below 0.08 Hz at a TR of 0.735 s."""
    noise = np.random.default_rng(0).standard_normal((rois, frames))
    spectrum = np.fft.rfft(noise)
    spectrum[:, np.fft.rfftfreq(frames, 0.735) > 0.08] = 0
    slow = np.fft.irfft(spectrum, frames)
    return (mean + sd * slow / slow.std(axis=1, keepdims=True)).astype(np.float32)


def test_offsets_of_ten_thousand_cost_no_precision():
    stored = timeseries.decode(timeseries.encode(bold()))
    assert np.abs(stored - bold()).max() < bold().std(axis=1).max() / 4000
    np.testing.assert_allclose(np.corrcoef(stored), np.corrcoef(bold()), atol=2e-5)


def test_equal_series_give_equal_bytes_below_a_half_of_float32():
    content = timeseries.encode(bold())
    assert timeseries.encode(np.asfortranarray(bold())) == content
    assert len(content) < 0.45 * bold().nbytes


def test_rois_without_coverage_and_constant_ones_survive():
    series = bold(6)
    series[1], series[2], series[3] = np.nan, 0, 8765.4321
    stored = timeseries.decode(timeseries.encode(series))
    np.testing.assert_array_equal(stored[1:4], series[1:4])


def test_an_outlier_widens_the_step_of_its_roi_only():
    series = bold(2)
    series[1, 100] += 60 * 500
    stored = timeseries.decode(timeseries.encode(series))
    error = np.abs(stored - series).max(axis=1)
    assert error[0] < 60 / 4000
    assert error[0] < error[1] < 60 * 500 / 65535


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_is_refused(value):
    series = bold(3)
    series[2, 7] = value
    with pytest.raises(ValueError, match="infinite values, or none in some frames"):
        timeseries.encode(series)


@pytest.mark.parametrize("series", [np.zeros((3, 4)), np.zeros(4, np.float32), np.zeros((0, 4), np.float32)])
def test_what_is_no_table_of_float32_is_refused(series):
    with pytest.raises(ValueError, match="expected float32 of ROIs x frames"):
        timeseries.encode(series)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"no frame of Blosc at all, though long enough",
        lambda content: frames.pack(np.zeros((4, 4), np.float32), "zstd"),
        lambda content: frames.pack(np.zeros(4, [("steps", "<u2", (3,))]), "zstd"),
    ],
    ids=["half", "text", "numbers", "other records"],
)
def test_what_is_no_stored_run_is_refused(damage):
    with pytest.raises(ValueError, match="no stored series"):
        timeseries.decode(damage(timeseries.encode(bold())))


def test_equal_series_have_equal_hashes_whatever_their_nan_and_zero_are():
    series = bold(frames=30)
    series[3], series[4] = np.nan, 0
    other = series.copy()
    other[3].view(np.uint32)[:] = 0xFFC00001
    other[4] = -0.0
    assert timeseries.content_sha256(other) == timeseries.content_sha256(series)
    other[0, 0] += 1
    assert timeseries.content_sha256(other) != timeseries.content_sha256(series)
