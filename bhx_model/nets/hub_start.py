"""Initial values of hub tokens: each from the tokens of its own place, so that local differences reach them."""

# Shapes: B batch, S structure tokens, F function tokens (ROI-major), R ROIs, H hub tokens, P places of one modality, D width

from __future__ import annotations

import torch
from torch import Tensor, nn


class HubStart(nn.Module):
    """Weighted means of tokens that are added to the hub tokens before the first block.

    Hub tokens that start from learned vectors alone all attend almost evenly until training tells them apart, and then
    hold little but the mean over all tokens. Here the first half of them (and the odd one) starts from function tokens,
    averaged over time, the other half from structure tokens. The weights are a softmax over ROIs, or over places of the
    T1 grid in their order. They are learned, and begin as overlapping windows: neighbours in the atlas' table, or in the
    grid, share a hub token.

    Parameters
    ----------
    hub_tokens
        H.
    rois
        R.
    structure_tokens
        S.
    """

    def __init__(self, hub_tokens: int, rois: int, structure_tokens: int) -> None:
        super().__init__()
        n_structure = hub_tokens // 2
        self.function_HR = nn.Parameter(windows(hub_tokens - n_structure, rois))
        self.structure_HS = nn.Parameter(windows(n_structure, structure_tokens))

    def forward(self, structure_BSD: Tensor, function_BFD: Tensor) -> Tensor:
        """Average tokens that are embedded, but have no position yet: (B, H, D)."""
        over_time_BRD = function_BFD.unflatten(1, (self.function_HR.shape[1], -1)).mean(dim=2)
        parts = ((self.function_HR, over_time_BRD), (self.structure_HS, structure_BSD))
        return torch.cat([logits.softmax(dim=1).to(x.dtype) @ x for logits, x in parts], dim=1)


def windows(n: int, places: int) -> Tensor:
    """Return logits of `n` Gaussian windows over `places` in a row: (n, places).

    A window's standard deviation is half of the distance to the next.
    """
    centre = (torch.arange(n) + 0.5) / max(n, 1)
    place = (torch.arange(places) + 0.5) / places
    return -2.0 * ((place[None] - centre[:, None]) * n).square()
