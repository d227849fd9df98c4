"""Scaling of ROI series, with its statistics as buffers: a checkpoint is complete."""

# Shapes: B batch, R ROIs, T frames

from __future__ import annotations

import torch
from torch import Tensor, nn

from bhx_model.config import Scaling
from bhx_model.data.rois import RoiMetadata


class Normaliser(nn.Module):
    """(x - median) / iqr for every ROI; what is NaN (no coverage, padding) becomes 0.

    With scaling ``run`` the mean of every ROI in this series is then taken off, and the series divided by the spread
    of its average ROI: what is left are fluctuations, whatever units and offset the scanner or the denoising gave them.
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
        scaled_BRT = (series_BRT.float() - self.median_R[:, None]) / self.iqr_R[:, None]
        if self.scaling == "run":
            centred_BRT = scaled_BRT - scaled_BRT.nanmean(dim=-1, keepdim=True)
            spread_BR1 = centred_BRT.square().nanmean(dim=-1, keepdim=True).sqrt()
            scaled_BRT = centred_BRT / spread_BR1.nanmean(dim=-2, keepdim=True).clamp_min(1e-6)
        return torch.nan_to_num(scaled_BRT, nan=0.0)
