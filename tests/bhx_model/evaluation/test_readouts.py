"""Readouts of tokens: what each is, by numpy, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bhx_model.evaluation import readouts
from bhx_model.nets.jepa import FunctionJEPA

B, R, N, D = 3, 20, 5, 8


@pytest.fixture
def tokens():
    return torch.randn(B, R, N, D)


@pytest.fixture
def components():
    return readouts.orthonormal_components(torch.randn(R, 6), readouts.MOST_COMPONENTS)


def test_mean_and_regions_are_means_over_tokens(tokens):
    np.testing.assert_allclose(readouts.mean(tokens), tokens.numpy().mean(axis=(1, 2)), atol=1e-6)
    parts = np.array_split(tokens.numpy().mean(axis=2), 16, axis=1)
    wanted = np.concatenate([part.mean(axis=1) for part in parts], axis=1)
    np.testing.assert_allclose(readouts.regions(tokens), wanted, atol=1e-6)
    assert readouts.rois(tokens).shape == (B, R, D)


def test_fewer_rois_than_regions_are_a_region_each(tokens):
    few = tokens[:, :5]
    torch.testing.assert_close(readouts.regions(few), readouts.rois(few).flatten(1))


def test_covariance_is_the_second_moment_of_component_series(tokens, components):
    found = readouts.covariance(tokens, components).numpy()
    assert found.shape == (B, 7 * 8 // 2)
    weights = components.double().numpy()
    for one, got in zip(tokens.double().numpy(), found, strict=True):
        moving = one - one.mean(axis=1, keepdims=True)
        series = np.tensordot(weights.T, moving, axes=1).reshape(7, -1)
        wanted = (series @ series.T)[np.triu_indices(7)] / N
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_covariance_does_not_depend_on_what_stays_over_time(tokens, components):
    shifted = tokens + torch.randn(B, R, 1, D)
    torch.testing.assert_close(
        readouts.covariance(shifted, components),
        readouts.covariance(tokens, components),
        atol=1e-4,
        rtol=1e-4,
    )


def test_covariance_of_one_patch_is_zero(tokens, components):
    found = readouts.covariance(tokens[:, :, :1], components)
    torch.testing.assert_close(found, torch.zeros(B, 28))


@pytest.mark.parametrize(
    ("width", "available", "wanted"), [(64, 100, 44), (64, 7, 7), (2, 100, 7), (768, 100, 44), (64, 1, 1)]
)
def test_covariance_has_no_more_numbers_than_regions(width, available, wanted):
    k = readouts.n_components(width, available)
    assert k == wanted
    assert k * (k + 1) // 2 <= readouts.REGIONS * width


def test_covariance_of_hub_tokens_is_their_gram_matrix():
    hub = torch.randn(B, 4, D)
    wanted = [(one @ one.T)[np.triu_indices(4)] / D for one in hub.numpy()]
    np.testing.assert_allclose(readouts.hub_covariance(hub), wanted, atol=1e-5)


def test_rois_without_coverage_leave_no_nan(function_config, make_rois, make_series):
    rois = make_rois(7)
    model = FunctionJEPA(function_config, rois)
    series = make_series(rois, 2, 18)
    series[:, 3] = torch.nan
    tokens = model.encode(series, 6).unflatten(1, (7, 3))
    found = [readouts.mean(tokens), readouts.regions(tokens)]
    found.append(readouts.covariance(tokens, readouts.components_of(model)))
    assert all(one.isfinite().all() for one in found)
