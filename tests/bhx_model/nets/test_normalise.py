"""The normaliser has its parentheses where they belong."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bhx_model.nets.normalise import Normaliser

QUARTILES = (0.25, 0.5, 0.75)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    offsets=st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3),
    spreads=st.lists(st.floats(1.0, 100.0), min_size=3, max_size=3),
    seed=st.integers(0, 2**31),
)
def test_every_roi_gets_median_0_and_iqr_1(make_rois, offsets, spreads, seed):
    """``x - median / iqr`` (BrainLM's mistake) would leave the offset in place, and the spread."""
    noise = np.random.default_rng(seed).standard_normal((3, 60))
    series = (np.c_[spreads] * noise + np.c_[offsets]).astype(np.float32)
    low, median, high = np.quantile(series, QUARTILES, axis=1).astype(np.float32)
    rois = dataclasses.replace(make_rois(3), median=median, iqr=high - low)
    scaled = Normaliser(rois, "population")(torch.from_numpy(series)[None])[0].numpy()
    low, median, high = np.quantile(scaled, QUARTILES, axis=1)
    np.testing.assert_allclose(median, 0, atol=5e-3)
    np.testing.assert_allclose(high - low, 1, atol=5e-3)


def test_units_of_any_size_cost_no_digit(make_rois):
    """By powers of two to the bit; squares of very small and large numbers are 0 and infinite in float32."""
    normaliser = Normaliser(make_rois(3), "run")
    series = torch.from_numpy(np.random.default_rng(0).normal(100, 1, (1, 3, 60)).astype(np.float32))
    expected = normaliser(series)
    for power in (-100, -40, 40, 100):
        assert torch.equal(normaliser(series * 2.0**power), expected)
    assert not normaliser(torch.zeros(1, 3, 60)).any()
    assert not normaliser(torch.full((1, 3, 60), torch.nan)).any()
