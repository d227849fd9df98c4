"""Groups of weights, and that the loop does with them what it says."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from training_runs import SIX, train_here

from bhx_model.config import FusionInputs
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.heads import EndpointModel, HubHead
from bhx_model.training import optim, stages, train

ONE = {**SIX, "train.steps": 1, "train.warmup_steps": 0, "train.weight_decay": 0.0, "train.clip": None}


@pytest.fixture
def model():
    config = train.load_preset("fusion", "tiny").override({"model.cls_bypass": True, "model.depth": 2}).model
    inputs = FusionInputs(
        structure_grid=(2, 2, 1), structure_width=8, rois=3, time_patches=2, function_width=8
    )
    return EndpointModel(FusionModel(config, inputs), HubHead(64, 2))


def test_matrices_decay_and_nothing_else(model):
    model.fusion.decoder_embed.requires_grad_(False)
    groups = optim.parameter_groups(list(model.named_parameters()))
    names = [name for group in groups for name in group["names"]]
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert sorted(names) == sorted(trained)
    assert "fusion.decoder_embed.weight" not in names
    decays = {name for group in groups if group["decays"] for name in group["names"]}
    assert {"fusion.blocks.0.attn.qkv.weight", "fusion.decoder_pred.maps.function.weight"} <= decays
    rest = set(names) - decays
    learned = {"fusion.hub", "fusion.cls_token", "fusion.mask_token", "fusion.position.modality.function"}
    assert {*learned, "fusion.norm.weight", "fusion.blocks.0.norm1.weight", "head.linear.bias"} <= rest
    assert all(p.ndim == 2 for name, p in model.named_parameters() if name in decays)


def test_layers_further_from_the_head_learn_slower(model):
    used = [(n, p) for n, p in model.named_parameters() if not n.startswith("fusion.decoder")]
    groups = optim.parameter_groups(used, layer_decay=0.5, n_blocks=2)
    scale = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert scale["head.linear.weight"] == scale["fusion.norm.weight"] == 1.0
    assert scale["fusion.blocks.1.mlp.fc1.weight"] == 0.5
    assert scale["fusion.blocks.0.mlp.fc1.bias"] == 0.25
    assert scale["fusion.embed.maps.function.weight"] == scale["fusion.hub"] == 0.125
    optimizer = optim.adamw(groups, betas=(0.9, 0.95))
    optim.set_schedule(optimizer, lr=0.8, weight_decay=0.3)
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(0.8 * group["lr_scale"])
        assert group["weight_decay"] == (0.3 if group["decays"] else 0.0)


def moved(house, folder, changes):
    """How far the first step moved the biases of the structure encoder's blocks, at most."""
    assert train_here(house, folder, "structure", {**ONE, **changes}) == 0
    sources = stages.Sources(shards=[house["town"], house["ward"]], split=house["split"], rois=house["rois"])
    stage = stages.open_stage(train.load_preset("structure", "tiny"), sources, 0)
    torch.manual_seed(0)
    before = stage.build().state_dict()
    after = load_file(folder / "out/model.safetensors")
    return max(
        float((after[n] - before[n]).abs().max()) for n in before if n.endswith("bias") and "blocks" in n
    )


def test_the_first_step_of_adamw_is_as_long_as_the_learning_rate(house, tmp_path):
    assert moved(house, tmp_path, {"train.lr": 3e-3}) == pytest.approx(3e-3, rel=1e-3)


def test_clipped_gradients_move_less_where_they_are_as_small_as_adamws_epsilon(house, tmp_path):
    assert moved(house, tmp_path, {"train.lr": 3e-3, "train.clip": 1e-10}) < 3e-4
