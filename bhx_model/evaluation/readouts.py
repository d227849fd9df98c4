"""Readouts: the features of a run's tokens that a linear model or an attentive probe reads.

A mean over tokens holds what is of first order in them; how ROIs go together is of second order, which `covariance` holds.
"""

# Shapes: B batch, R ROIs, N time patches, D width, M components, K those that are taken, H hub tokens

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bhx_model.nets.connectivity import orthonormal_components
from bhx_model.nets.jepa import FunctionJEPA

#: Parts of the brain that `regions` tells apart, runs of neighbouring ROIs; also what bounds the size of `covariance`.
REGIONS: Final = 16
#: Blocks of patches along an axis that `blocks` tells apart.
BLOCKS: Final = 4
#: Most components of `covariance`: their series have 990 covariances.
MOST_COMPONENTS: Final = 44


def mean(tokens_BRND: Tensor) -> Tensor:
    """Mean over all tokens: (B, D) float32."""
    return tokens_BRND.float().mean(dim=(1, 2))


def rois(tokens_BRND: Tensor) -> Tensor:
    """Tokens averaged over time: (B, R, D) float32, which an attentive probe reads."""
    return tokens_BRND.float().mean(dim=2)


def regions(tokens_BRND: Tensor) -> Tensor:
    """Tokens averaged over time and over `REGIONS` groups of neighbouring ROIs, concatenated: (B, 16 D) float32.

    With fewer ROIs than that every ROI is one.
    """
    by_roi_BRD = rois(tokens_BRND)
    parts = np.array_split(np.arange(by_roi_BRD.shape[1]), min(REGIONS, by_roi_BRD.shape[1]))
    return torch.cat([by_roi_BRD[:, part].mean(dim=1) for part in parts], dim=1)


def blocks(tokens_BND: Tensor, patches: Sequence[int]) -> Tensor:
    """Structure tokens averaged over blocks of neighbouring patches, at most `BLOCKS` along an axis: (B, K, D) float32.

    Parameters
    ----------
    tokens_BND
        (B, N, D), the patches of the last axis fastest.
    patches
        Patches along each of the three axes, whose product is N.
    """
    volume_BDXYZ = tokens_BND.float().transpose(1, 2).unflatten(2, tuple(patches))
    x, y, z = (min(BLOCKS, n) for n in patches)
    pooled = F.adaptive_avg_pool3d(volume_BDXYZ, (x, y, z))
    return pooled.flatten(2).transpose(1, 2)


def covariance(tokens_BRND: Tensor, components_RM: Tensor) -> Tensor:
    """How components go together over time, in all channels: (B, K (K + 1) / 2) float32.

    Tokens without their mean over time, weighted over ROIs by each component, multiplied with those of the others and
    added up over channels; a mean over time patches. 0 for a run of one patch.

    Parameters
    ----------
    tokens_BRND
        (B, R, N, D).
    components_RM
        (R, M) orthonormal weights, see `components_of`; the first K are taken, see `n_components`.
    """
    n_patches, width = tokens_BRND.shape[2:]
    chosen_RK = components_RM[:, : n_components(width, components_RM.shape[1])]
    moving_BRND = tokens_BRND.float()
    moving_BRND = moving_BRND - moving_BRND.mean(dim=2, keepdim=True)
    series_BKE = torch.einsum("rk,brnd->bknd", chosen_RK, moving_BRND).flatten(2)
    return _upper(series_BKE @ series_BKE.transpose(1, 2)) / n_patches


def hub_covariance(hub_BHD: Tensor) -> Tensor:
    """Second moments of the hub tokens over channels, their Gram matrix: (B, H (H + 1) / 2) float32."""
    hub_BHD = hub_BHD.float()
    return _upper(hub_BHD @ hub_BHD.transpose(1, 2)) / hub_BHD.shape[2]


def n_components(width: int, available: int) -> int:
    """Components of `covariance`: as many as give no more numbers than `regions` has.

    Parameters
    ----------
    width
        D.
    available
        M, components there are.
    """
    most = min(available, MOST_COMPONENTS)
    return max(k for k in range(1, most + 1) if k == 1 or k * (k + 1) // 2 <= REGIONS * width)


def components_of(model: FunctionJEPA) -> Tensor:
    """Orthonormal weights over ROIs for `covariance`, from the model's position embedding of the ROIs: (R, M)."""
    return orthonormal_components(model.target.roi_position.columns(), MOST_COMPONENTS)


def _upper(symmetric_BKK: Tensor) -> Tensor:
    """Upper triangles, diagonal included."""
    row, column = torch.triu_indices(*symmetric_BKK.shape[1:], device=symmetric_BKK.device)
    return symmetric_BKK[:, row, column]
