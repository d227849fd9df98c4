"""Attention of hub tokens, by modality."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bhx_model.inspection.attention import attention_shares, even_share
from bhx_model.nets.fusion import FusionModel


@pytest.fixture
def sample(fusion_inputs):
    torch.manual_seed(1)
    return torch.randn(2, 12, 16), torch.randn(2, 7 * 4, 16), 4


def test_shares_are_those_of_the_softmax(fusion_config, fusion_inputs, sample):
    """The first layer by hand: every head's softmax over the whole sequence."""
    model = FusionModel(fusion_config, fusion_inputs).eval()
    shares = attention_shares(model, [sample])
    assert shares.shape == (2, 3, 3)
    np.testing.assert_allclose(shares.sum(axis=2), 1, atol=1e-6)
    structure, function, n = sample
    with torch.no_grad():
        x = torch.cat(
            [
                model.hub.expand(2, -1, -1),
                model.embed(function, "function") + model.position("function", n),
                model.embed(structure, "structure") + model.position("structure", n),
            ],
            dim=1,
        )
        block = model.blocks[0]
        q, k, _ = block.attn.qkv(block.norm1(x)).chunk(3, dim=-1)
        q, k = (t.unflatten(-1, (2, 12)).transpose(1, 2) for t in (q, k))
        logits = q @ k.transpose(2, 3) / 12**0.5 + model.attention_weights(3, 28, 12).log_K
        weights = logits.softmax(-1)[:, :, :3].mean(dim=(0, 1))
    parts = [part.sum(1) for part in weights.split([3, 28, 12], dim=1)]
    np.testing.assert_allclose(shares[0], torch.stack(parts, dim=1).numpy(), atol=1e-6)


def test_hub_tokens_that_look_for_one_modality_are_found(fusion_config, fusion_inputs, sample):
    """Keys that say which modality a token is of, and queries of two hub tokens that ask for one each."""
    model = FusionModel(fusion_config, fusion_inputs).eval()
    with torch.no_grad():
        attn = model.blocks[0].attn
        attn.qkv.weight.zero_()
        attn.qkv.bias.zero_()
        for head in (0, 12):  # the first query of each head reads channel 0, the first key channel 1
            attn.qkv.weight[head, 0] = attn.qkv.weight[24 + head, 1] = 10.0
        model.hub.zero_()
        model.hub[0, 0, 0], model.hub[0, 1, 0] = 5.0, -5.0
        model.position.modality["function"].zero_()[1] = 20.0
        model.position.modality["structure"].zero_()[1] = -20.0
    shares = attention_shares(model, [sample])[0]
    assert shares[0, 1] > 0.9
    assert shares[1, 2] > 0.9


def test_other_samples_change_a_mean_and_nothing_stays_behind(fusion_config, fusion_inputs, sample):
    model = FusionModel(fusion_config, fusion_inputs).eval()
    structure, function, n = sample
    one = attention_shares(model, [(structure[:1], function[:1], n)])
    other = attention_shares(model, [(structure[1:], function[1:], n)])
    np.testing.assert_allclose(attention_shares(model, [sample]), (one + other) / 2, atol=1e-6)
    assert not any(block.attn._forward_pre_hooks for block in model.blocks)
    with pytest.raises(ValueError, match="no sample"):
        attention_shares(model, [])


def test_even_attention_is_that_of_the_numbers_of_tokens(fusion_config, fusion_inputs, sample):
    counted = dataclasses.replace(fusion_config, modality_attention="tokens")
    assert even_share(FusionModel(counted, fusion_inputs), [sample]) == pytest.approx(28 / 40)
    equal = dataclasses.replace(fusion_config, modality_attention="equal")
    model = FusionModel(equal, fusion_inputs).eval()
    assert even_share(model, [sample]) == 0.5
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
    shares = attention_shares(model, [sample])
    np.testing.assert_allclose(shares[:, :, 1], shares[:, :, 2], atol=1e-6)
