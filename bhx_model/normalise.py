"""Robust scaling of ROI series, with its statistics as buffers: a checkpoint is complete."""

# Shapes: B batch, R ROIs, T frames

from __future__ import annotations

import torch
from torch import Tensor, nn

from bhx_model.rois import RoiFacts


class Normaliser(nn.Module):
    """(x - median) / iqr for every ROI; what is NaN (no coverage, padding) becomes 0."""

    median_R: Tensor
    iqr_R: Tensor

    def __init__(self, rois: RoiFacts) -> None:
        super().__init__()
        self.register_buffer("median_R", torch.from_numpy(rois.median.copy()))
        self.register_buffer("iqr_R", torch.from_numpy(rois.iqr.copy()))

    def forward(self, series_BRT: Tensor) -> Tensor:
        """Scale (B, R, T) series, float32."""
        scaled = (series_BRT.float() - self.median_R[:, None]) / self.iqr_R[:, None]
        return torch.nan_to_num(scaled, nan=0.0)
