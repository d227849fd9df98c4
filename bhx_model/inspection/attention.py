"""Attention of a fusion's hub tokens to each modality."""

# Shapes: B batch, N tokens, Q hub tokens as queries, H heads, E width of a head, L layers

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from bhx_model.nets.attention import KeyWeights
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.vit import Attention, Block

#: What is attended to, in the order of the sequence.
SEGMENTS: Final = ("hub", "function", "structure")

#: What the encoder of a fusion takes: structure tokens, function tokens, time patches.
Arguments = tuple[Tensor, Tensor, int]


def attention_shares(model: FusionModel, samples: Iterable[Arguments]) -> np.ndarray:
    """Share of each hub token's attention that goes to hub tokens (and CLS), to function and to structure tokens.

    A mean over heads and samples. Attention is computed again from what enters each block, in float32.

    Parameters
    ----------
    model : FusionModel
    samples : iterable of (Tensor, Tensor, int)
        As `FusionModel.encode` takes them.

    Returns
    -------
    ndarray, (L, hub tokens, 3) float64
        By layer and hub token, in the order of `SEGMENTS`; sums to 1.

    Raises
    ------
    ValueError
        If there are no samples.
    """
    layers = [cast(Attention, cast(Block, block).attn) for block in model.blocks]
    total, n = torch.zeros(len(layers), model.config.hub_tokens, len(SEGMENTS), dtype=torch.float64), 0
    for structure_BSD, function_BFD, n_patches in samples:
        n_function = model.inputs.rois * n_patches
        n_structure = structure_BSD.shape[1]

        def note(attn: Attention, entered: tuple[Any, ...], n_last: int = n_function + n_structure) -> None:
            x_BND, weights = entered[0], entered[3]
            share_QN = _hub_attention(attn, x_BND, weights, model.config.hub_tokens)
            first = x_BND.shape[1] - n_last
            parts = share_QN.split([first, n_function, n_structure], dim=1)  # noqa: B023 - called before the next sample
            total[layers.index(attn)] += (
                torch.stack([part.sum(dim=1) for part in parts], dim=1).cpu().double()
            )

        hooks: list[RemovableHandle] = [attn.register_forward_pre_hook(note) for attn in layers]
        try:
            with torch.no_grad():
                model.encode(structure_BSD, function_BFD, n_patches)
        finally:
            for hook in hooks:
                hook.remove()
        n += len(structure_BSD)
    if not n:
        raise ValueError("no sample to attend to")
    return (total / n).numpy()


def _hub_attention(attn: Attention, x_BND: Tensor, weights: KeyWeights | None, n_hub: int) -> Tensor:
    """Attention of the hub tokens, which come first, a mean over heads and a sum over the batch: (Q, N)."""
    q_BQD = torch.nn.functional.linear(x_BND[:, :n_hub], *_part(attn, 0)).float()
    k_BND = torch.nn.functional.linear(x_BND, *_part(attn, 1)).float()
    total_QN = x_BND.new_zeros(n_hub, x_BND.shape[1], dtype=torch.float32)
    for q_QD, k_ND in zip(
        q_BQD, k_BND, strict=True
    ):  # one sample at a time: the logits of all heads are large
        q_HQE, k_HNE = (t.unflatten(-1, (attn.heads, -1)).transpose(0, 1) for t in (q_QD, k_ND))
        logits_HQN = q_HQE @ k_HNE.transpose(1, 2) * q_HQE.shape[-1] ** -0.5
        if weights is not None:
            logits_HQN = logits_HQN + weights.log_K
        total_QN += logits_HQN.softmax(dim=-1).mean(dim=0)
    return total_QN


def _part(attn: Attention, number: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the queries (0), keys (1) or values (2)."""
    return attn.qkv.weight.chunk(3)[number], attn.qkv.bias.chunk(3)[number]


def even_share(model: FusionModel, samples: Iterable[Arguments]) -> float:
    """Share of function tokens among those of both modalities, as they weigh with even attention; a mean over samples."""
    shares = []
    for structure_BSD, _, n_patches in samples:
        n_function, n_structure = model.inputs.rois * n_patches, structure_BSD.shape[1]
        balanced = model.config.modality_attention == "equal"
        share = 0.5 if balanced else n_function / (n_function + n_structure)
        shares += [share] * len(structure_BSD)
    return float(np.mean(shares))
