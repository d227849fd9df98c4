import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bhx_model.config import FusionInputs
from bhx_model.data.masking import jepa_masks, mae_visible
from bhx_model.data.token_index import even_samples
from bhx_model.nets.attention import attend, key_weights
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.heads import AttentiveProbe, EndpointModel, HubHead, endpoint_loss, n_outputs
from bhx_model.nets.jepa import FunctionJEPA, effective_rank
from bhx_model.nets.mae import StructureMAE, complement
from bhx_model.nets.pos_embed import RoiPosition, sincos, sincos_grid
from bhx_model.nets.vit import Blocks, hold_in_bfloat16, init_weights

K = 18


def tensors(masks):
    return torch.from_numpy(masks.context), torch.from_numpy(masks.target)


def gradients_of(model):
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def flops(work):
    """Floating-point operations of matrix products, those of attention included, forward and backward."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()


# --- blocks


def test_ranges_of_queries_and_keys_are_masks():
    blocks = Blocks(16, 2, 2, 2.0)
    x = torch.randn(2, 9, 16)
    every = blocks(x)
    torch.testing.assert_close(blocks(x, queries=slice(2, 6)), every[:, 2:6], rtol=1e-4, atol=1e-5)
    beside = torch.cat([x, torch.randn(2, 4, 16)], dim=1)
    torch.testing.assert_close(blocks(beside, keys=slice(0, 9))[:, :9], every, rtol=1e-4, atol=1e-5)


def test_checkpointing_changes_no_gradient():
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        blocks = Blocks(16, 3, 2, 2.0, checkpointing=checkpointing)
        blocks(torch.randn(2, 5, 16, requires_grad=True)).square().sum().backward()
        grads.append(gradients_of(blocks))
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad)


def test_branches_are_damped_by_depth():
    blocks = Blocks(64, 4, 2, 4.0)
    init_weights(blocks)
    spread = [float(block.mlp.fc2.weight.detach().std()) for block in blocks]
    np.testing.assert_allclose(spread, 0.02 * np.sqrt(768 / 256) / np.sqrt(2 * np.arange(1, 5)), rtol=0.1)


@pytest.mark.parametrize("width", [32, 64, 768])
def test_narrow_blocks_pass_on_as_much_as_wide_ones(width):
    torch.manual_seed(0)
    blocks = Blocks(width, 1, 2, 4.0)
    init_weights(blocks)
    for layer in (blocks[0].attn.qkv, blocks[0].mlp.fc1):
        gain = float(layer(torch.randn(512, width)).detach().std())
        assert gain == pytest.approx(0.02 * 768**0.5, rel=0.1)


def test_drop_path_skips_whole_samples_in_training_only():
    blocks = Blocks(16, 2, 2, 2.0, drop_path=0.5)
    assert [block.drop_path for block in blocks] == [0.0, 0.5]
    x = torch.randn(64, 3, 16)
    torch.testing.assert_close(blocks.eval()(x), blocks(x))
    last = blocks[1].train()
    skipped = (last(x) == x).all(dim=(1, 2)).float().mean()
    assert 0.1 < skipped < 0.4, "both branches are skipped in a quarter of the samples"


# --- structure


def test_structure_tokens_and_loss_at_any_size(structure_config):
    for grid, patch in (((8, 12, 4), 4), ((6, 6, 9), 3)):
        model = StructureMAE(dataclasses.replace(structure_config, patch=patch), grid)
        volume = torch.randn(2, *grid)
        n = model.n_tokens
        assert model.encode(volume).shape == (2, n, 24)
        loss, stats = model(volume, torch.from_numpy(mae_visible(n, 0.75, 0, 0, [0, 1])))
        loss.backward()
        assert all(grad is not None for grad in gradients_of(model).values())
        assert stats["mean_predictor_loss"] == pytest.approx(1.0, abs=0.2), "targets are standardised"


def test_structure_loss_is_over_hidden_patches_only(structure_config):
    config = dataclasses.replace(structure_config, norm_pix_loss=False)
    model = StructureMAE(config, (8, 12, 4))
    visible = torch.tensor([[0, 3]])
    hidden = complement(visible, 6)
    torch.testing.assert_close(hidden, torch.tensor([[1, 2, 4, 5]]))
    with torch.no_grad():  # a decoder that says 0 everywhere
        model.decoder_pred.weight.zero_()
        model.decoder_pred.bias.zero_()
    volume = torch.randn(1, 8, 12, 4)
    patches = model.encoder.patch_embed.cut(volume)
    loss, _ = model(volume, visible)
    torch.testing.assert_close(loss, patches[:, hidden[0]].square().mean())


def test_structure_encoder_sees_visible_patches_only(structure_config):
    model = StructureMAE(structure_config, (8, 12, 4)).eval()
    patches = torch.randn(1, 6, 64)
    visible = torch.tensor([[1, 4]])

    def encode(patches, visible=None):
        return model.encoder(model.encoder.embed(patches, visible))

    seen = encode(patches, visible)
    changed = patches.clone()
    changed[:, [0, 2, 3, 5]] += 1
    torch.testing.assert_close(encode(changed, visible), seen)
    torch.testing.assert_close(encode(patches, torch.arange(6)[None]), encode(patches))


def test_half_precision_volumes_are_read(structure_config):
    model = StructureMAE(structure_config, (8, 12, 4))
    volume = torch.randn(1, 8, 12, 4).half()
    torch.testing.assert_close(model.encode(volume), model.encode(volume.float()))


# --- function


@pytest.mark.parametrize(
    "switches", [{}, {"harmonics": "reference", "position_scale": "minmax", "resize": "reference"}]
)
def test_valid_tokens_are_equal_whatever_the_padding(function_config, make_rois, make_series, switches):
    rois = make_rois()
    model = FunctionJEPA(dataclasses.replace(function_config, **switches), rois).eval()
    series = make_series(rois, 2, 3 * K)
    tokens = model.encode(series, K)
    assert tokens.shape == (2, 7 * 3, 16)
    for pad_to in (3, 4, 9):
        padded = model.encode(series, K, pad_to=pad_to).unflatten(1, (7, pad_to))
        torch.testing.assert_close(padded[:, :, :3].flatten(1, 2), tokens, rtol=1e-4, atol=1e-5)


def test_nothing_is_computed_for_padding(
    function_config, fusion_config, fusion_inputs, make_rois, make_series
):
    """However long a series the models know, a short one costs what its own tokens cost."""
    rois, n, n_rois = make_rois(), 2, 7
    series, t1 = make_series(rois, 2, n * K), torch.randn(2, 12, 16)
    context, target = tensors(jepa_masks(n_rois, n, function_config, 0, 0, [0, 1]))
    costs = []
    for longest in (n, 5, 18):
        config = dataclasses.replace(function_config, time_patches=longest)
        function = FunctionJEPA(config, rois)
        fusion = FusionModel(fusion_config, dataclasses.replace(fusion_inputs, time_patches=longest))
        tokens = function.encode(series, K).detach()
        assert tokens.shape == (2, n_rois * n, 16)
        costs.append(
            {
                "tokens": flops(lambda f=function: f.encode(series, K)),
                "jepa": flops(lambda f=function: f(series, K, context, target)[0].backward()),
                "fusion": flops(lambda f=fusion, x=tokens: f(t1, x, n)[0].backward()),
            }
        )
        padded = flops(lambda f=function, m=longest: f.encode(series, K, pad_to=m))
        assert (padded > costs[-1]["tokens"]) == (longest > n), "the count sees padding where there is some"
    assert costs[0] == costs[1] == costs[2]

    width, depth, tokens_ = 16, 2, n_rois * n
    block = 2 * tokens_ * (3 + 1 + 4 + 4) * width**2 + 4 * tokens_**2 * width
    position = 2 * n_rois * (rois.gradients.shape[1] + rois.harmonics.shape[1]) * width // 2
    embedding = 2 * 2 * tokens_ * K * width + 2 * width * 48 * K
    assert costs[0]["tokens"] == 2 * depth * block + position + embedding


@pytest.mark.parametrize(("n_rois", "k", "n_patches"), [(7, 18, 5), (2, 48, 1), (11, 12, 3)])
def test_function_tokens_and_loss_at_any_size(function_config, make_rois, make_series, n_rois, k, n_patches):
    rois = make_rois(n_rois)
    model = FunctionJEPA(function_config, rois)
    masks = jepa_masks(n_rois, n_patches, function_config, 0, 0, [0, 1, 2])
    loss, stats = model(make_series(rois, 3, k * n_patches), k, *tensors(masks), diagnose=True)
    loss.backward()
    assert all(grad is not None for grad in gradients_of(model).values())
    assert torch.isfinite(loss)
    assert set(stats) == {"loss", "mean_predictor_loss", "target_std", "target_rank"}


def test_context_tokens_do_not_depend_on_the_targets_data(function_config, make_rois, make_series):
    rois = make_rois()
    # with `run`, level and spread of the whole run scale all of its frames, hidden or not
    model = FunctionJEPA(dataclasses.replace(function_config, scaling="population"), rois)
    masks = jepa_masks(7, 4, function_config, 0, 0, [0])
    context, target = tensors(masks)
    series = make_series(rois, 1, 4 * K)
    predicted, wanted, _ = model.predict(series, K, context, target)
    hidden = torch.ones(7 * 4, dtype=torch.bool)
    hidden[context[0]] = False
    changed = series.clone().unflatten(-1, (4, K))
    changed[0][hidden.unflatten(0, (7, 4))] += 1.0
    again, others, _ = model.predict(changed.flatten(-2), K, context, target)
    torch.testing.assert_close(again, predicted)
    assert (others - wanted).abs().max() > 0.01


def test_absent_rois_and_padding_become_zero_and_weigh_nothing(function_config, make_rois, make_series):
    rois = make_rois()
    model = FunctionJEPA(dataclasses.replace(function_config, scaling="population"), rois).eval()
    series = make_series(rois, 1, 3 * K)
    series[0, 2] = float("nan")
    series[0, :, -6:] = float("nan")
    scaled = model.normaliser(series)
    assert (scaled[0, 2] == 0).all()
    assert (scaled[..., -6:] == 0).all()
    expected = (series[0, 3, 5] - rois.median[3]) / rois.iqr[3]
    torch.testing.assert_close(scaled[0, 3, 5], expected)
    assert torch.isfinite(model.encode(series, K)).all()
    weights = model.token_weights(series, K).unflatten(1, (7, 3))[0]
    assert (weights[2] == 0).all()
    torch.testing.assert_close(weights[3], torch.tensor([1.0, 1.0, 12 / K]))
    whole = FunctionJEPA(dataclasses.replace(function_config, partial_patch="whole"), rois)
    assert (whole.token_weights(series, K) == 1).all()


def test_a_runs_own_level_and_units_do_not_matter(function_config, make_rois, make_series):
    rois = make_rois()
    model = FunctionJEPA(function_config, rois).eval()
    series = make_series(rois, 2, 3 * K)
    series[0, 2] = float("nan")
    series[1, :, -6:] = float("nan")
    scaled = model.normaliser(series)
    assert (scaled[0, 2] == 0).all()
    assert (scaled[1, :, -6:] == 0).all()
    torch.testing.assert_close(scaled.mean(dim=-1), torch.zeros(2, 7), rtol=0, atol=1e-4)
    there = [0, 1, 3, 4, 5, 6]
    assert float(scaled[0, there].std(dim=-1, correction=0).mean()) == pytest.approx(1, abs=1e-4)
    gain, offset = torch.tensor([0.2, 30.0])[:, None, None], torch.linspace(-50, 50, 7)[:, None]
    other = gain * series + offset
    torch.testing.assert_close(model.normaliser(other), scaled, rtol=0, atol=1e-3)
    population = FunctionJEPA(dataclasses.replace(function_config, scaling="population"), rois)
    assert (population.normaliser(other) - population.normaliser(series)).abs().max() > 10
    # how much an ROI fluctuates beside the others is kept
    series[0, 3] = (series[0, 3] - series[0, 3].mean()) * 3
    assert float(model.normaliser(series)[0, 3].std() / scaled[0, 3].std()) > 2


def test_partial_patches_count_by_the_fraction_they_hold():
    predicted, wanted = torch.zeros(1, 2, 4), torch.tensor([0.5, 2.0])[None, :, None].expand(1, 2, 4)
    full = FunctionJEPA.sample_losses(predicted, wanted, torch.tensor([[1.0, 1.0]]))
    half = FunctionJEPA.sample_losses(predicted, wanted, torch.tensor([[1.0, 0.5]]))
    torch.testing.assert_close(full, torch.tensor([(0.125 + 1.5) / 2]))
    torch.testing.assert_close(half, torch.tensor([(0.125 + 0.75) / 1.5]))


def test_target_follows_the_encoder_and_is_not_trained(function_config, make_rois, make_series):
    rois = make_rois()
    model = FunctionJEPA(function_config, rois)
    for slow, fast in zip(model.target.parameters(), model.encoder.parameters(), strict=True):
        torch.testing.assert_close(slow, fast, rtol=0, atol=0)
        assert not slow.requires_grad
    before = [p.clone() for p in model.target.parameters()]
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1.0)
    model.update_target(1.0)
    for p, old in zip(model.target.parameters(), before, strict=True):
        torch.testing.assert_close(p, old, rtol=0, atol=0)
    model.update_target(0.75)
    for p, old in zip(model.target.parameters(), before, strict=True):
        torch.testing.assert_close(p, old + 0.25)
    series = make_series(rois, 1, 2 * K)
    assert (model.encode(series, K) - model.encode(series, K, target=False)).abs().max() > 0.01


def test_wrong_series_are_refused(function_config, make_rois):
    model = FunctionJEPA(function_config, make_rois())
    with pytest.raises(ValueError, match=r"needs .batch, 7 ROIs"):
        model.encode(torch.zeros(1, 6, K), K)
    with pytest.raises(ValueError, match="pad the last one with NaN"):
        model.encode(torch.zeros(1, 7, K + 1), K)
    with pytest.raises(ValueError, match="3 patches hold data, more than the 2"):
        model.encode(torch.zeros(1, 7, 3 * K), K, pad_to=2)


def test_effective_rank_counts_directions():
    tokens = torch.randn(500, 3) @ torch.linalg.qr(torch.randn(20, 20))[0][:3]
    assert float(effective_rank(tokens)) == pytest.approx(3, abs=0.1)
    assert float(effective_rank(tokens[:, :1].expand(-1, 20))) == pytest.approx(1, abs=0.01)


def test_diagnosing_targets_that_are_not_finite_is_no_exception(function_config, make_rois, make_series):
    """The loop has better words for a loss that is not finite."""
    rois = make_rois()
    model = FunctionJEPA(function_config, rois)
    torch.nn.init.constant_(model.target.norm.weight, float("nan"))
    masks = tensors(jepa_masks(7, 3, function_config, 0, 0, [0, 1]))
    loss, stats = model(make_series(rois, 2, 3 * K), K, *masks, diagnose=True)
    assert loss.isnan()
    assert stats["target_rank"].isnan()


# --- position codes


def test_one_extreme_roi_does_not_move_the_others(function_config, make_rois):
    rois = make_rois()
    stretched = rois.gradients.copy()
    stretched[0] *= 50
    for scale, moves in (("rms", False), ("minmax", True)):
        config = dataclasses.replace(function_config, harmonics="reference", position_scale=scale)
        torch.manual_seed(0)
        position = RoiPosition(config, rois, 8)
        before = position()
        position.gradients_RG.copy_(torch.from_numpy(stretched))
        moved = float((position() - before)[1:].detach().abs().max())
        assert (moved > 0.1) == moves


def test_hemispheres_are_distinguished_by_a_flag_and_modes_are_standardised(function_config, make_rois):
    rois = make_rois()
    rois.harmonics[:, 0] = 0.004
    harmonics = RoiPosition(function_config, rois, 8).harmonics_RM.numpy()
    assert harmonics.shape == rois.harmonics.shape
    np.testing.assert_array_equal(harmonics[:, 0], 2.0 * rois.hemisphere - 1)
    np.testing.assert_allclose(harmonics[:, 1:].std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(harmonics[:, 1:].mean(axis=0), 0, atol=1e-6)


def test_a_model_without_roi_code_is_refused(function_config, make_rois):
    config = dataclasses.replace(function_config, gradients=False, harmonics="none")
    with pytest.raises(ValueError, match="position code is empty"):
        FunctionJEPA(config, make_rois())
    alone = FunctionJEPA(dataclasses.replace(function_config, gradients=False), make_rois())
    assert set(alone.encoder.roi_position.maps) == {"harmonics"}


def test_sine_and_cosine_codes():
    code = sincos(torch.arange(5), 6)
    torch.testing.assert_close(code[0], torch.tensor([0.0, 0, 0, 1, 1, 1]))
    torch.testing.assert_close(code[3, 1], torch.tensor(3 * 10000 ** (-1 / 3)).sin())
    grid = sincos_grid((2, 3, 2), 14)
    assert grid.shape == (12, 14)
    assert (grid[:, 12:] == 0).all(), "14 channels hold three parts of 4 and a rest"
    assert len(torch.unique(grid, dim=0)) == 12
    with pytest.raises(ValueError, match="even number"):
        sincos(torch.arange(3), 5)


# --- fusion


def fusion_tokens(inputs: FusionInputs, batch: int, n_patches: int):
    structure = torch.randn(batch, inputs.structure_tokens, inputs.structure_width)
    return structure, torch.randn(batch, inputs.rois * n_patches, inputs.function_width)


@pytest.mark.parametrize("decoder", ["joint", "cross"])
@pytest.mark.parametrize("n_patches", [1, 3, 5])
def test_fusion_trains_every_weight(fusion_config, fusion_inputs, decoder, n_patches):
    model = FusionModel(dataclasses.replace(fusion_config, decoder=decoder), fusion_inputs)
    tokens = fusion_tokens(fusion_inputs, 2, n_patches)
    loss, stats = model(*tokens, n_patches)
    loss.backward()
    assert all(grad is not None for grad in gradients_of(model).values())
    assert model.encode(*tokens, n_patches).shape == (2, 3, 24)
    torch.testing.assert_close(loss.detach(), (stats["function"] + stats["structure"]) / 2)


def test_fusion_reads_encoders_of_different_widths_and_sizes(fusion_config):
    inputs = FusionInputs(
        structure_grid=(3, 1, 2), structure_width=10, rois=4, time_patches=9, function_width=14
    )
    model = FusionModel(fusion_config, inputs)
    loss, _ = model(*fusion_tokens(inputs, 2, 8), 8)
    assert torch.isfinite(loss)


@pytest.mark.parametrize("decoder", ["joint", "cross"])
def test_fusion_ignores_tokens_of_padding(fusion_config, fusion_inputs, decoder):
    model = FusionModel(dataclasses.replace(fusion_config, decoder=decoder), fusion_inputs)
    structure, function = fusion_tokens(fusion_inputs, 2, 3)
    padded = torch.randn(2, 7, 5, 16)
    padded[:, :, :3] = function.unflatten(1, (7, 3))
    padded = padded.flatten(1, 2)
    torch.testing.assert_close(model.encode(structure, padded, 3), model.encode(structure, function, 3))
    torch.testing.assert_close(model(structure, padded, 3)[0], model(structure, function, 3)[0])


def test_losses_over_all_and_valid_tokens_agree_where_nothing_is_padded(fusion_config, fusion_inputs):
    losses = []
    for loss_tokens in ("all", "valid"):
        torch.manual_seed(0)
        config = dataclasses.replace(
            fusion_config, loss_tokens=loss_tokens, balance=False, cls_bypass=True, modality_embedding=False
        )
        model = FusionModel(config, fusion_inputs)
        structure, function = fusion_tokens(fusion_inputs, 2, 5)
        losses.append(model(structure, function, 5)[0])
        unpadded = function.unflatten(1, (7, 5))[:, :, :3].flatten(1, 2)
        if loss_tokens == "all":
            with pytest.raises(ValueError, match="encode them with pad_to"):
                model(structure, unpadded, 3)
    torch.testing.assert_close(*losses)


def test_balance_weighs_modalities_and_not_tokens(fusion_config, fusion_inputs):
    tokens = fusion_tokens(fusion_inputs, 2, 5)
    losses = {}
    for balance in (True, False):
        torch.manual_seed(0)
        model = FusionModel(dataclasses.replace(fusion_config, balance=balance), fusion_inputs)
        losses[balance], stats = model(*tokens, 5)
    torch.testing.assert_close(losses[True].detach(), (stats["function"] + stats["structure"]) / 2)
    by_token = (35 * stats["function"] + 12 * stats["structure"]) / 47
    torch.testing.assert_close(losses[False].detach(), by_token)


def test_function_tokens_count_by_their_weight(fusion_config, fusion_inputs):
    model = FusionModel(fusion_config, fusion_inputs)
    structure, function = fusion_tokens(fusion_inputs, 1, 2)
    predicted = model.decode(model.latents(structure, function, 2), 2)["function"]
    target = (function - function.mean(-1, keepdim=True)) / (function.var(-1, keepdim=True) + 1e-6).sqrt()
    error = (predicted - target).square().mean(-1)
    weight = torch.rand(1, 14)
    _, stats = model(structure, function, 2, weight)
    torch.testing.assert_close(stats["function"], ((error * weight).sum() / weight.sum()).detach())


def test_samples_count_the_same_however_a_batch_is_cut(fusion_config, fusion_inputs):
    """Also those with partial patches and absent ROIs, whose tokens weigh less."""
    model = FusionModel(fusion_config, fusion_inputs)
    structure, function = fusion_tokens(fusion_inputs, 2, 2)
    weight = torch.ones(2, 14)
    weight[0, 1::2], weight[0, 4:6] = 0.25, 0.0
    even = even_samples(weight)
    torch.testing.assert_close(even.sum(dim=1), torch.full((2,), 14.0))
    torch.testing.assert_close(even[0] / even[0, 0], weight[0])
    whole, _ = model(structure, function, 2, even)
    parts = [model(structure[[i]], function[[i]], 2, even[[i]])[0] for i in range(2)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_hub_tokens_are_all_that_reaches_the_decoder(fusion_config, fusion_inputs):
    assert FusionModel(fusion_config, fusion_inputs).cls_token is None
    bypass = FusionModel(dataclasses.replace(fusion_config, cls_bypass=True), fusion_inputs)
    tokens = fusion_tokens(fusion_inputs, 2, 2)
    assert bypass.latents(*tokens, 2).shape == (2, 4, 24)
    assert bypass.encode(*tokens, 2).shape == (2, 3, 24)


@pytest.mark.parametrize("n_patches", [1, 5])
def test_hub_tokens_see_both_modalities_alike_before_they_learn(fusion_config, fusion_inputs, n_patches):
    # where attention is even, 12 T1 tokens weigh as much as 7 or 35 of function
    config = dataclasses.replace(fusion_config, depth=1)
    model, by_number = (
        FusionModel(dataclasses.replace(config, modality_attention=attention), fusion_inputs)
        for attention in ("equal", "tokens")
    )
    by_number.load_state_dict(model.state_dict())
    for fusion in (model, by_number):
        torch.nn.init.zeros_(fusion.blocks[0].attn.qkv.weight[:24])
    seen = {}

    def watch(attention, args, kwargs, output):
        seen[attention] = (args, kwargs, output)

    for fusion in (model, by_number):
        fusion.blocks[0].attn.register_forward_hook(watch, with_kwargs=True)
        fusion.encode(*fusion_tokens(fusion_inputs, 1, n_patches), n_patches)
    for fusion, weights in ((model, (1, 1 / (7 * n_patches), 1 / 12)), (by_number, (1, 1, 1))):
        attention = fusion.blocks[0].attn
        (x, *_), _, output = seen[attention]
        hub, function, structure = x.split([3, 7 * n_patches, 12], dim=1)
        half = (7 * n_patches + 12) / 2 if fusion is model else 1
        sums = [
            hub.sum(1),
            half * weights[1] * function.sum(1),
            half * weights[2] * structure.sum(1),
        ]
        mean = sum(sums) / (3 + 7 * n_patches + 12)
        value = torch.nn.functional.linear(mean, attention.qkv.weight[48:], attention.qkv.bias[48:])
        torch.testing.assert_close(output[:, 0], attention.proj(value))


def test_fusion_refuses_tokens_that_do_not_fit(fusion_config, fusion_inputs):
    model = FusionModel(fusion_config, fusion_inputs)
    structure, function = fusion_tokens(fusion_inputs, 1, 3)
    with pytest.raises(ValueError, match="structure tokens are"):
        model.encode(structure[:, 1:], function, 3)
    with pytest.raises(ValueError, match="function tokens are"):
        model.encode(structure, function[:, 1:], 3)
    with pytest.raises(ValueError, match="knows 1 to 5"):
        model.encode(structure, function, 6)
    unequal = dataclasses.replace(fusion_inputs, function_width=20)
    with pytest.raises(ValueError, match="equally wide"):
        FusionModel(dataclasses.replace(fusion_config, modality_embedding=False), unequal)


# --- heads


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_heads_learn_from_hub_tokens(kind, fusion_config, fusion_inputs):
    outputs = n_outputs(kind, {"binary": 2, "multiclass": 4, "regression": 0}[kind])
    label = torch.tensor([1.5, -0.5]) if kind == "regression" else torch.tensor([0, 1])
    tokens = fusion_tokens(fusion_inputs, 2, 2)
    for head in (HubHead(24, outputs), AttentiveProbe(24, outputs, heads=2)):
        model = EndpointModel(FusionModel(fusion_config, fusion_inputs), head)
        torch.nn.init.normal_(head.linear.weight)
        output = model(*tokens, 2)
        assert output.shape == (2, outputs)
        endpoint_loss(output, label, kind, label_smoothing=0.0 if kind == "regression" else 0.1).backward()
        assert model.fusion.hub.grad is not None
        assert model.fusion.hub.grad.abs().max() > 0


def test_the_linear_probe_trains_the_papers_number_of_weights():
    probe = HubHead(768, 2, affine=False)
    assert sum(p.numel() for p in probe.parameters()) == 768 * 2 + 2


# --- the three together


def test_bf16_autocast_stays_near_fp32(
    function_config, fusion_config, structure_config, make_rois, make_series
):
    rois = make_rois()
    function = FunctionJEPA(function_config, rois)
    structure = StructureMAE(structure_config, (8, 12, 8))
    inputs = FusionInputs(
        structure_grid=structure.patches, structure_width=24, rois=7, time_patches=5, function_width=16
    )
    fusion = FusionModel(fusion_config, inputs)
    series, volume = make_series(rois, 2, 3 * K), torch.randn(2, 8, 12, 8)
    context, target = tensors(jepa_masks(7, 3, function_config, 0, 0, [0, 1]))
    visible = torch.from_numpy(mae_visible(12, 0.75, 0, 0, [0, 1]))

    def losses():
        tokens = structure.encode(volume).detach(), function.encode(series, K).detach()
        return torch.stack(
            [structure(volume, visible)[0], function(series, K, context, target)[0], fusion(*tokens, 3)[0]]
        )

    exact = losses()
    with torch.autocast("cpu", torch.bfloat16):
        coarse = losses()
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, exact, rtol=0.02, atol=0.02)
    coarse.sum().backward()


def test_state_dicts_are_complete(function_config, make_rois, make_series):
    """What depends on files (normaliser, harmonics, gradients) is in the weights."""
    rois = make_rois()
    model = FunctionJEPA(function_config, rois).eval()
    blank = dataclasses.replace(
        rois, median=np.zeros(7, np.float32), iqr=np.ones(7, np.float32), harmonics=0 * rois.harmonics,
        gradients=0 * rois.gradients,
    )  # fmt: skip
    other = FunctionJEPA(function_config, blank).eval()
    other.load_state_dict(model.state_dict(), strict=True)
    series = make_series(rois, 1, 2 * K)
    torch.testing.assert_close(other.encode(series, K), model.encode(series, K), rtol=0, atol=0)


@pytest.mark.slow
def test_compiled_models_compute_the_same(function_config, make_rois, make_series):
    rois = make_rois()
    model = FunctionJEPA(dataclasses.replace(function_config, depth=1, predictor_depth=1), rois)
    series = make_series(rois, 2, 3 * K)
    context, target = tensors(jepa_masks(7, 3, function_config, 0, 0, [0, 1]))
    plain, _ = model(series, K, context, target)
    # without code generation, which takes minutes on a busy machine and is not ours
    compiled, _ = torch.compile(model, backend="aot_eager")(series, K, context, target)
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
    compiled.backward()
    assert model.encoder.patch_embed.weight.grad is not None


def test_import_needs_no_torch():
    code = (
        "import sys, bhx_model, bhx_model.config, bhx_model.data.rois, bhx_model.data.masking, bhx_model.data.augment;"
        "bhx_model.config.StructureConfig();"
        "assert not {'torch', 'yaml'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("biased", [False, True])
def test_attention_of_a_cpu_in_bfloat16_is_as_exact_as_pytorchs(biased):
    torch.manual_seed(0)
    # as of 70 tokens that weigh as much as 20
    groups = ((70, 45 / 70), (20, 45 / 20))
    weights = key_weights(groups, torch.device("cpu"), torch.bfloat16, 16) if biased else None
    # more queries than a block holds, and another number of keys; strided, as the projections leave them
    exact = [torch.randn(2, n, 3, 16).transpose(1, 2).bfloat16().float() for n in (700, 90, 90)]
    gradient = torch.randn(2, 3, 700, 16)

    def with_gradients(attention, dtype):
        inputs = [x.to(dtype).requires_grad_() for x in exact]
        y = attention(*inputs)
        assert y.dtype == dtype
        return [y, *torch.autograd.grad(y, inputs, gradient.to(dtype))]

    def pytorchs(*inputs):
        mask = None if weights is None else weights.log_K.to(inputs[0].dtype).expand(700, 90)
        return F.scaled_dot_product_attention(*inputs, attn_mask=mask)

    wanted = with_gradients(pytorchs, torch.float32)
    ours = with_gradients(lambda *inputs: attend(*inputs, weights), torch.bfloat16)
    theirs = with_gradients(pytorchs, torch.bfloat16)
    for x, y, z in zip(wanted, ours, theirs, strict=True):
        error, usual = ((t.float() - x).square().mean().sqrt() for t in (y, z))
        assert error < 3 * usual
    with torch.inference_mode():
        assert torch.equal(attend(*(x.bfloat16() for x in exact), weights), ours[0])


def test_matrices_held_in_bfloat16_give_the_bits_of_autocast(
    function_config, structure_config, make_rois, make_series
):
    rois = make_rois()
    function, structure = FunctionJEPA(function_config, rois), StructureMAE(structure_config, (8, 12, 8))
    series, volume = make_series(rois, 2, 3 * K), torch.randn(2, 8, 12, 8)

    def tokens():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return function.encode(series, K), structure.encode(volume)

    before = tokens()
    for model in (function, structure):
        hold_in_bfloat16(model)
    assert function.target.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    for x, y in zip(before, tokens(), strict=True):
        assert torch.equal(x, y)
