"""Heads that map hub tokens to an endpoint: linear probe, attentive probe, and the head of fine-tuning."""

# Shapes: B batch, H hub tokens, D width, O outputs

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.vit import NORM_EPS, Kept

Kind = Literal["binary", "multiclass", "regression"]


class HubHead(nn.Module):
    """Mean of the hub tokens, LayerNorm, and a linear map.

    Parameters
    ----------
    width
        Of the hub tokens.
    outputs
        Classes, or 1 for regression.
    affine
        Learn scale and shift of the norm. Without, this is the linear probe of the paper.
    """

    def __init__(self, width: int, outputs: int, *, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=affine)
        self.linear = nn.Linear(width, outputs)
        nn.init.trunc_normal_(self.linear.weight, std=2e-5)
        nn.init.zeros_(self.linear.bias)

    def features(self, hub_BHD: Tensor) -> Tensor:
        """Return what the linear map reads: (B, D)."""
        return self.norm(hub_BHD.mean(dim=1))

    def forward(self, hub_BHD: Tensor) -> Tensor:
        """Return logits, or the predicted value: (B, O)."""
        return self.linear(self.features(hub_BHD))


class AttentiveProbe(nn.Module):
    """One learned query that attends to the hub tokens, LayerNorm, and a linear map."""

    def __init__(self, width: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.kv = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.linear = nn.Linear(width, outputs)
        nn.init.trunc_normal_(self.query, std=0.02)
        nn.init.trunc_normal_(self.kv.weight, std=0.02)
        nn.init.zeros_(self.kv.bias)
        nn.init.trunc_normal_(self.linear.weight, std=2e-5)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hub_BHD: Tensor) -> Tensor:
        """Return logits, or the predicted value: (B, O)."""
        query_B1D = self.query.expand(len(hub_BHD), -1, -1)
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in (query_B1D, *self.kv(hub_BHD).chunk(2, dim=-1))
        )
        pooled_BD = F.scaled_dot_product_attention(q.to(k.dtype), k, v).transpose(1, 2).flatten(1)
        return self.linear(self.norm(pooled_BD))


class EndpointModel(nn.Module):
    """Fusion encoder and head, trained together."""

    def __init__(self, fusion: FusionModel, head: HubHead | AttentiveProbe) -> None:
        super().__init__()
        self.fusion = fusion
        self.head = head

    def forward(
        self, structure_BSD: Tensor, function_BFD: Tensor, n_patches: int, kept: Kept | None = None
    ) -> Tensor:
        """Return logits, or the predicted value: (B, O); arguments as ``FusionModel.encode``."""
        hub_BHD = self.fusion.encode(structure_BSD, function_BFD, n_patches, normed=False, kept=kept)
        return self.head(hub_BHD)


def n_outputs(kind: Kind, classes: int) -> int:
    """Outputs of a head: one per class, 1 for regression."""
    return 1 if kind == "regression" else classes


def endpoint_loss(output_BO: Tensor, label_B: Tensor, kind: Kind, label_smoothing: float = 0.0) -> Tensor:
    """Return cross entropy of class indices, or the mean squared error of (standardised) values."""
    if kind == "regression":
        return F.mse_loss(output_BO.float().squeeze(-1), label_B.float())
    return F.cross_entropy(output_BO.float(), label_B.long(), label_smoothing=label_smoothing)
