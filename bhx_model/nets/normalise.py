"""Scale ROI series; the statistics are buffers, so that a checkpoint is complete."""

# Shapes: B batch, R ROIs, T frames

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from bhx_model.config import Scaling
from bhx_model.data.rois import RoiMetadata

#: Of two, in float32.
_LARGEST_POWER: Final = 126


def centred(series_BRT: Tensor) -> Tensor:
    """Take the mean of every ROI off, NaN apart.

    Twice, because the mean of large numbers is rounded: the second time it is that of their small differences. So an
    offset of a million times the spread costs no digits that the series still has, without float64, which not every
    device computes.
    """
    known_BRT = ~series_BRT.isnan()
    return torch.where(known_BRT, _centred(torch.where(known_BRT, series_BRT, 0), known_BRT), torch.nan)


def _centred(series_BRT: Tensor, known_BRT: Tensor) -> Tensor:
    """`centred` of series that are 0 where they are not known, and stay so: NaN would leave no gradient."""
    n_BR1 = known_BRT.sum(dim=-1, keepdim=True).clamp_min(1)
    for _ in range(2):
        series_BRT = torch.where(known_BRT, series_BRT - series_BRT.sum(dim=-1, keepdim=True) / n_BR1, 0)
    return series_BRT


def _of_order_one(series_BRT: Tensor) -> Tensor:
    """Take a power of two off each run, which costs no digit: squares of very small or large numbers are 0 or infinite."""
    peak_B11 = series_BRT.detach().abs().amax(dim=(-2, -1), keepdim=True)
    return series_BRT * torch.exp2(-peak_B11.log2().floor().clamp(-_LARGEST_POWER, _LARGEST_POWER))


class Normaliser(nn.Module):
    """(x - median) / iqr for every ROI; what is NaN (no coverage, padding) becomes 0.

    With scaling ``run`` the mean of the ROI in this series is in the place of the median, and the result is divided by
    the spread of its average ROI: what is left are fluctuations, whatever units and offset the scanner or the denoising
    gave them. The mean goes first: subtracting a median of other units would leave no digit of a series in small ones.
    """

    median_R: Tensor
    iqr_R: Tensor

    def __init__(self, rois: RoiMetadata, scaling: Scaling) -> None:
        super().__init__()
        self.scaling: Scaling = scaling
        self.register_buffer("median_R", torch.from_numpy(rois.median.copy()))
        self.register_buffer("iqr_R", torch.from_numpy(rois.iqr.copy()))

    def forward(self, series_BRT: Tensor) -> Tensor:
        """Scale (B, R, T) series, float32."""
        if self.scaling == "population":
            scaled_BRT = (series_BRT.float() - self.median_R[:, None]) / self.iqr_R[:, None]
            return torch.nan_to_num(scaled_BRT, nan=0.0)
        known_BRT = ~series_BRT.isnan()
        whole_BRT = _of_order_one(torch.where(known_BRT, series_BRT, 0).float())
        scaled_BRT = _centred(whole_BRT, known_BRT) / self.iqr_R[:, None]
        n_BR1 = known_BRT.sum(dim=-1, keepdim=True)
        square_BR1 = scaled_BRT.square().sum(dim=-1, keepdim=True) / n_BR1.clamp_min(1)
        still_BR1 = square_BR1 == 0  # where a root has no gradient
        spread_BR1 = torch.where(still_BR1, 0, torch.where(still_BR1, 1, square_BR1).sqrt())
        spread_B11 = spread_BR1.sum(dim=-2, keepdim=True) / (n_BR1 > 0).sum(dim=-2, keepdim=True).clamp_min(1)
        return scaled_BRT / torch.where(spread_B11 > 0, spread_B11, 1)
