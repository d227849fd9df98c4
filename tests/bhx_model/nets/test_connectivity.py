"""The connectivity code: what it measures, of what is seen only, and what is asked of it in training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bhx_model.config import FunctionConfig
from bhx_model.data.masking import jepa_masks
from bhx_model.errors import ConfigError
from bhx_model.nets.connectivity import ConnectivityCode, whitening_loss
from bhx_model.nets.jepa import FunctionJEPA

K = 6


@pytest.fixture
def coded(function_config) -> FunctionConfig:
    return dataclasses.replace(
        function_config, connectivity_code=4, connectivity_weight=1.0, whitening_weight=0.3
    )


def runs(series, patch_frames=K):
    return [(one, patch_frames) for one in series]


def test_the_code_is_the_correlation_with_components(make_rois):
    """Of patches that are embedded by the identity, exactly numpy's correlation with a weighted mean of the rows."""
    random = np.random.default_rng(0)
    columns = torch.from_numpy(random.standard_normal((7, 3)).astype(np.float32))
    code = ConnectivityCode(columns, 3, 8)
    series = random.standard_normal((2, 7, 4 * K))
    series -= series.mean(axis=-1, keepdims=True)
    found = code.correlations(torch.from_numpy(series).unflatten(-1, (4, K)).float())
    for one, got in zip(series, found, strict=True):
        unit = one / np.linalg.norm(one, axis=1, keepdims=True)
        components = code.components_RM.numpy().T @ unit
        wanted = [[np.corrcoef(row, component)[0, 1] for component in components] for row in one]
        np.testing.assert_allclose(got.numpy(), wanted, atol=1e-5)


def test_components_are_orthonormal_and_as_many_as_the_columns_give():
    code = ConnectivityCode(torch.randn(7, 3, generator=torch.manual_seed(0)), 32, 8)
    assert code.components_RM.shape == (7, 4)
    torch.testing.assert_close(code.components_RM.T @ code.components_RM, torch.eye(4))


def test_fitted_codes_differ_between_runs_by_one(coded, make_rois, make_series):
    rois = make_rois()
    model = FunctionJEPA(coded, rois)
    series = make_series(rois, 30, 3 * K)
    model.fit_connectivity(runs(series))
    codes = model.connectivity_code(series, K)
    torch.testing.assert_close(codes.mean(dim=0), torch.zeros(7, 4), atol=1e-5, rtol=0)
    assert codes.square().mean(dim=0).sqrt().mean().item() == pytest.approx(1, abs=1e-4)


def test_an_untrained_encoder_is_that_without_a_code(coded, make_rois, make_series):
    rois = make_rois()
    series = make_series(rois, 2, 3 * K)
    model = FunctionJEPA(coded, rois)
    model.fit_connectivity(runs(series))
    plain = FunctionJEPA(dataclasses.replace(coded, connectivity_code=0, connectivity_weight=0.0), rois)
    known = plain.state_dict().keys()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name in known})
    torch.testing.assert_close(plain.encode(series, K), model.encode(series, K))


def test_context_tokens_see_the_connectivity_of_what_is_seen_only(coded, make_rois, make_series):
    rois = make_rois()
    model = FunctionJEPA(dataclasses.replace(coded, scaling="population"), rois)
    torch.nn.init.normal_(model.encoder.connectivity.map.weight)
    masks = jepa_masks(7, 4, coded, 0, 0, [0])
    context, target = (torch.from_numpy(index) for index in (masks.context, masks.target))
    series = make_series(rois, 1, 4 * K)
    hidden = torch.ones(7 * 4, dtype=torch.bool)
    hidden[context[0]] = False
    changed = series.clone().unflatten(-1, (4, K))
    changed[0][hidden.unflatten(0, (7, 4))] += torch.randn(K)
    before, after = (model.predict(s, K, context, target)[0] for s in (series, changed.flatten(-2)))
    torch.testing.assert_close(before, after)
    seen = series.clone().unflatten(-1, (4, K))
    seen[0][~hidden.unflatten(0, (7, 4))] += torch.randn(K)
    assert not torch.allclose(before, model.predict(seen.flatten(-2), K, context, target)[0])


def test_rois_without_data_or_variation_have_no_code_and_do_not_count(coded, make_rois, make_series):
    rois = make_rois()
    model = FunctionJEPA(coded, rois)
    series = make_series(rois, 8, 4 * K)
    series[:, 2] = float("nan")
    series[:, 5] = 3.0
    model.fit_connectivity(runs(series))
    codes = model.connectivity_code(series, K)
    assert codes.isfinite().all()
    assert codes[:, [2, 5]].eq(0).all()
    assert codes[:, [0, 1, 3, 4, 6]].ne(0).any(dim=-1).all()
    masks = jepa_masks(7, 4, coded, 0, 0, range(8))
    objective, stats = model(series, K, *map(torch.from_numpy, (masks.context, masks.target)))
    objective.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert stats["connectivity_loss"].isfinite()


def test_the_objective_is_the_sum_of_its_terms(coded, make_rois, make_series):
    rois = make_rois()
    model = FunctionJEPA(dataclasses.replace(coded, connectivity_weight=2.0, whitening_weight=0.5), rois)
    series = make_series(rois, 3, 4 * K)
    model.fit_connectivity(runs(series))
    masks = jepa_masks(7, 4, coded, 0, 0, [0, 1, 2])
    objective, stats = model(series, K, *map(torch.from_numpy, (masks.context, masks.target)))
    wanted = stats["loss"] + 2 * stats["connectivity_loss"] + 0.5 * stats["whitening_loss"]
    torch.testing.assert_close(objective.detach(), wanted)
    objective.backward()
    for name in ("connectivity_head.weight", "encoder.connectivity.map.weight", "encoder.patch_embed.weight"):
        assert model.get_parameter(name).grad.ne(0).any(), name


def test_training_the_code_predicts_the_whole_run_better_than_its_mean(coded, make_rois):
    """Runs of two networks that go together in half of the subjects."""
    rois = make_rois()
    generator = torch.manual_seed(0)
    n, frames = 64, 4 * K
    together = (torch.arange(n) % 2).float()[:, None, None]
    own, shared = torch.randn(2, n, 7, frames, generator=generator)
    common = shared[:, :1]
    series = own + 2 * common * torch.cat([torch.ones(n, 4, 1), together.expand(-1, 3, -1)], dim=1)
    series = series * torch.from_numpy(rois.iqr)[:, None] + torch.from_numpy(rois.median)[:, None]
    torch.manual_seed(0)
    model = FunctionJEPA(coded, rois)
    model.fit_connectivity(runs(series))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(80):
        masks = jepa_masks(7, 4, coded, 0, step, range(n))
        objective, stats = model(series, K, *map(torch.from_numpy, (masks.context, masks.target)))
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
        losses.append(stats["connectivity_loss"].item())
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    assert model.encoder.connectivity.map.weight.ne(0).any()


def test_whitening_is_best_where_all_channels_fluctuate_apart():
    generator = torch.manual_seed(0)
    white = torch.randn(4, 7, 30, 6, generator=generator)
    slow = white.cumsum(dim=-1)
    constant = white[..., :1].expand_as(white)
    assert (whitening_loss(white) < whitening_loss(slow)).all()
    assert (whitening_loss(slow) < whitening_loss(constant)).all()
    torch.testing.assert_close(whitening_loss(white), whitening_loss(1000 * white))
    # of d independent channels, log(1 + gain) each
    assert whitening_loss(white).mean().item() == pytest.approx(-np.log(11), abs=0.05)


def test_a_weight_needs_a_code():
    with pytest.raises(ConfigError, match="connectivity_code"):
        FunctionConfig(connectivity_weight=1.0)
    with pytest.raises(ConfigError, match="connectivity_code"):
        FunctionConfig(connectivity_code=-1)
