"""The connectivity code: what it measures, of what is seen only, and what is asked of it in training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bhx_model.config import FunctionConfig, load_preset
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


def test_rounding_errors_are_no_series():
    """Those that are left where a device sums the mean of a constant series in another order."""
    code = ConnectivityCode(torch.randn(7, 3), 4, 8)
    content = torch.randn(2, 7, 4, K)
    content[0, 3] *= 1e-6
    found = code.correlations(content)
    assert found[0, 3].eq(0).all()
    assert found[1].ne(0).all()


@pytest.mark.parametrize("level", [-0.1, 12345.678])
def test_an_roi_that_never_changes_has_no_code_at_any_level(coded, make_rois, make_series, level):
    rois = make_rois()
    model = FunctionJEPA(coded, rois)
    series = make_series(rois, 8, 5 * K)
    series[:, 5] = level  # in all people
    series[0, 2] = level  # and in one of eight
    model.fit_connectivity(runs(series))
    codes = model.connectivity_code(series, K)
    assert codes.isfinite().all()
    assert codes[:, 5].eq(0).all()
    assert codes[0, 2].eq(0).all()
    assert codes[1:, 2].ne(0).any(dim=-1).all()


def step(model, config, series, patch_frames=K, autocast=False):
    """Objective and what is reported of a step, with gradients."""
    n = series.shape[-1] // patch_frames
    masks = jepa_masks(series.shape[1], n, config, 0, 0, range(len(series)))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        objective, stats = model(series, patch_frames, *map(torch.from_numpy, (masks.context, masks.target)))
    objective.backward()
    return objective.detach(), stats


def all_finite(model, objective, stats):
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return all(t.isfinite().all() for t in (objective, *stats.values(), *gradients))


@pytest.mark.parametrize("empty", [False, True])
def test_runs_of_one_patch_train(coded, make_rois, make_series, empty):
    """The context is then the only patch, and what is wanted is what is seen."""
    rois = make_rois()
    model = FunctionJEPA(coded, rois)
    series = make_series(rois, 6, K)
    if empty:
        series[0] = float("nan")  # and a run in which no ROI has coverage
    model.fit_connectivity(runs(series))
    assert all_finite(model, *step(model, coded, series))


def test_a_single_run_or_copies_of_one_leave_the_spread_at_1(coded, make_rois, make_series):
    """Rounding errors between equal runs are no spread."""
    rois = make_rois()
    series = make_series(rois, 1, 4 * K)
    for several in (series, series.expand(3, -1, -1), series.expand(7, -1, -1)):
        model = FunctionJEPA(coded, rois)
        model.fit_connectivity(runs(several))
        for encoder in (model.encoder, model.target):
            assert encoder.connectivity.spread == 1
        assert model.connectivity_code(series, K).abs().max() < 1e-5
        assert all_finite(model, *step(model, coded, series))


@pytest.mark.parametrize(("regions", "gradients", "components"), [(7, 1, 2), (3, 9, 3)])
def test_few_rois_or_columns_give_fewer_components(
    coded, make_rois, make_series, regions, gradients, components
):
    config = dataclasses.replace(coded, harmonics="none", connectivity_code=32)
    rois = make_rois(regions, gradients=gradients)
    model = FunctionJEPA(config, rois)
    series = make_series(rois, 6, 4 * K)
    model.fit_connectivity(runs(series))
    assert model.connectivity_code(series, K).shape == (6, regions, components)
    assert all_finite(model, *step(model, config, series))


@pytest.mark.parametrize("scale", [1e-12, 1e6, 1e12])
def test_population_scaling_in_any_units_is_finite(coded, make_rois, make_series, scale):
    config = dataclasses.replace(coded, scaling="population")
    rois = make_rois()
    model = FunctionJEPA(config, rois)
    series = make_series(rois, 6, 4 * K) * scale
    model.fit_connectivity(runs(series))
    assert all_finite(model, *step(model, config, series))


def test_bfloat16_computes_nearly_the_same(coded, make_rois, make_series):
    rois = make_rois()
    model = FunctionJEPA(coded, rois)
    series = make_series(rois, 6, 4 * K)
    model.fit_connectivity(runs(series))
    _, exact = step(model, coded, series)
    objective, rounded = step(model, coded, series, autocast=True)
    assert all_finite(model, objective, rounded)
    for name in ("connectivity_loss", "connectivity_mean_predictor_loss", "whitening_loss"):
        assert rounded[name].item() == pytest.approx(exact[name].item(), rel=0.02), name


@pytest.mark.parametrize("how", ["compiled", "checkpointing"])
def test_switches_that_change_no_result(coded, make_rois, make_series, how):
    rois = make_rois()
    series = make_series(rois, 4, 4 * K)
    found = []
    for changed in (False, True):
        config = dataclasses.replace(
            coded, depth=1, predictor_depth=1, checkpointing=changed and how == "checkpointing"
        )
        torch.manual_seed(1)
        model = FunctionJEPA(config, rois)
        model.fit_connectivity(runs(series))
        torch.nn.init.normal_(model.encoder.connectivity.map.weight)
        # without code generation, which takes long and is not ours
        objective = torch.compile(model, backend="eager") if changed and how == "compiled" else model
        loss, _ = step(objective, config, series)
        found.append({"loss": loss, **{n: p.grad for n, p in model.named_parameters() if p.requires_grad}})
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_every_trained_parameter_has_a_gradient(coded, make_rois, make_series, weight):
    """Which processes that exchange gradients rely on."""
    config = dataclasses.replace(coded, connectivity_weight=weight)
    rois = make_rois()
    model = FunctionJEPA(config, rois)
    step(model, config, make_series(rois, 2, K))
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_run_alone_has_the_code_that_it_has_among_others(coded, make_rois, make_series):
    """Mean and spread are those of the training, whatever else is embedded."""
    rois = make_rois()
    model = FunctionJEPA(coded, rois)
    series = make_series(rois, 9, 4 * K)
    model.fit_connectivity(runs(series[:5]))
    torch.nn.init.normal_(model.target.connectivity.map.weight)
    torch.testing.assert_close(
        model.encode(series, K)[6:7], model.encode(series[6:7], K), rtol=1e-4, atol=1e-5
    )
    assert model.connectivity_code(series[6:7], K).square().mean() > 0.1


def test_whitening_of_what_is_not_finite_is_nan_and_no_exception():
    patches = torch.randn(3, 28, 6)
    patches[1, 23, 4] = float("nan")
    assert whitening_loss(patches, torch.eye(6)).isnan().tolist() == [False, True, False]


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
    generator, kernel = torch.manual_seed(0), torch.eye(6)
    white = torch.randn(4, 210, 6, generator=generator)
    slow = white.cumsum(dim=-1)
    constant = white[..., :1].expand_as(white)
    assert (whitening_loss(white, kernel) < whitening_loss(slow, kernel)).all()
    assert (whitening_loss(slow, kernel) < whitening_loss(constant, kernel)).all()
    torch.testing.assert_close(whitening_loss(white, kernel), whitening_loss(1000 * white, kernel))
    # of d independent channels, log(1 + gain) each
    assert whitening_loss(white, kernel).mean().item() == pytest.approx(-np.log(11), abs=0.05)


def test_whitening_is_of_the_embedded_patches():
    """The covariance is made of that of the frames; it is that of what the kernel embeds, gradients too."""
    patches, kernel = torch.randn(2, 50, 4), torch.randn(9, 4, requires_grad=True)
    embedded = whitening_loss(patches @ kernel.T, torch.eye(9))
    torch.testing.assert_close(whitening_loss(patches, kernel), embedded)
    ours, theirs = (
        torch.autograd.grad(loss.sum(), kernel)[0] for loss in (whitening_loss(patches, kernel), embedded)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_weight_needs_a_code():
    with pytest.raises(ConfigError, match="give connectivity_code a number, or make it 0"):
        load_preset("function", "base").override({"model.connectivity_code": 0})
    with pytest.raises(ConfigError, match="connectivity_code"):
        FunctionConfig(connectivity_code=-1)
