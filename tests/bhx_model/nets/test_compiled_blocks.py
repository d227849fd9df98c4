"""Blocks through PyTorch's compiler, but for its code generation: how many graphs it makes, and that it never gives up."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from bhx_model.config import FusionInputs, load_preset
from bhx_model.data.masking import jepa_masks
from bhx_model.nets import vit
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA

#: Repetition times as frames of a patch, and patches of a run.
BUCKETS = [(48, 2), (44, 5), (24, 1), (21, 3), (18, 4), (16, 6), (14, 2), (12, 3)]


@pytest.fixture
def compiled(monkeypatch):
    """Compiles the blocks of a model without generating code, and counts from then on."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: compile_(function, backend="eager", **how))
    torch._dynamo.reset()
    counters.clear()

    def compile_model(model):
        changed = copy.deepcopy(model)
        vit.compile_blocks(changed)
        return changed

    yield compile_model
    torch._dynamo.reset()


def never_gave_up():
    frames = counters["frames"]
    return frames["total"] == frames["ok"] and not counters["graph_break"] and not counters["unimplemented"]


def same_step(model, plain, *arguments):
    losses = []
    for one in (model, plain):
        one.zero_grad()
        torch.manual_seed(0)
        loss, _ = one(*arguments)
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_an_epoch_of_mixed_repetition_times_makes_less_than_a_graph_for_each(
    function_config, make_rois, make_series, compiled
):
    """Masks, and with them numbers of tokens, are others in every step."""
    rois = make_rois()
    config = dataclasses.replace(
        function_config, connectivity_code=0, connectivity_weight=0.0, whitening_weight=0.0
    )
    plain = FunctionJEPA(config, rois)
    model = compiled(plain)
    random, graphs = np.random.default_rng(0), []
    for epoch in range(2):
        for step, number in enumerate(random.permutation(len(BUCKETS))):
            frames, n_patches = BUCKETS[number]
            batch = 2 + (step + epoch) % 3
            masks = jepa_masks(7, n_patches, config, 0, 10 * epoch + step, range(batch))
            arguments = (
                make_series(rois, batch, n_patches * frames),
                frames,
                *map(torch.from_numpy, (masks.context, masks.target)),
            )
            same_step(model, plain, *arguments)
        graphs.append(counters["stats"]["unique_graphs"])
    assert never_gave_up()
    assert graphs[0] == graphs[1], "the second epoch is as the first"
    # encoder, target encoder, predictor; again each where a sample or a token is alone
    assert 3 <= graphs[0] < len(BUCKETS)


@pytest.mark.slow
def test_a_fusion_of_runs_of_any_length_makes_a_graph_a_stack(compiled):
    """Blocks skip branches at rates of their own, and share the graph; the last one is not compiled."""
    changes = {
        "model.drop_path": 0.3,
        "model.decoder": "joint",
        "model.depth": 3,
        "model.checkpointing": True,
    }
    inputs = FusionInputs(
        structure_grid=(2, 3, 2), structure_width=16, rois=5, time_patches=6, function_width=16
    )
    plain = FusionModel(load_preset("fusion", "tiny").override(changes).model, inputs)
    model = compiled(plain)
    for batch, n in ((2, 3), (3, 5), (4, 2), (2, 6), (5, 4)):
        same_step(model, plain, torch.randn(batch, 12, 16), torch.randn(batch, 5 * n, 16), n)
    assert never_gave_up()
    encoder, decoder = 1, 1
    assert 1 <= counters["stats"]["unique_graphs"] <= encoder + decoder
