"""Position embeddings: sine-cosine tables, and embeddings of an ROI (gradients, geometric harmonics, hemisphere)."""

# Shapes: R ROIs, N time patches, M harmonics, G gradients, C channels of a code

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bhx_model.config import FunctionConfig
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import ConfigError


def sincos(positions_N: Tensor, channels: int) -> Tensor:
    """Sine and cosine code of 1D positions (Vaswani et al. 2017; halves, not interleaved, as in MAE).

    Parameters
    ----------
    positions_N
        (N,) positions, any real numbers.
    channels
        Even; half of them sines, of wavelengths from 2 pi to 10000 * 2 pi.

    Returns
    -------
    (N, channels) float32

    Raises
    ------
    ValueError
        If `channels` is odd.
    """
    if channels % 2:
        msg = f"a sine and cosine code needs an even number of channels, got {channels}"
        raise ValueError(msg)
    half = channels // 2
    # float64, since positions of thousands leave float32 only four digits after the comma; on the CPU, since not every
    # device has it
    rate = 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    angle = positions_N.cpu().double()[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1).float().to(positions_N.device)


def time_code(n_patches: int, channels: int, device: torch.device) -> Tensor:
    """Return `sincos` of the first time patches, made once for each number of them: (N, channels) float32."""
    if torch.compiler.is_compiling():  # a table that is kept is nothing for a compiler
        return sincos(torch.arange(n_patches), channels).to(device)
    return _time_code(n_patches, channels, device)


@functools.lru_cache(maxsize=256)
def _time_code(n_patches: int, channels: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # else no gradient could pass through what is added to it
        return sincos(torch.arange(n_patches), channels).to(device)


def sincos_grid(grid: tuple[int, int, int], channels: int) -> Tensor:
    """Code of a 3D grid of patches: a third of the channels for each axis, in the order Y, X, Z.

    The order is the reference's (numpy's ``meshgrid`` swaps the first two axes). Channels that do not divide
    into three even parts stay 0.

    Returns
    -------
    (X * Y * Z, channels) float32, Z fastest
    """
    part = channels // 6 * 2
    x, y, z = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    code = torch.cat([sincos(axis.flatten(), part) for axis in (y, x, z)], dim=1)
    return F.pad(code, (0, channels - 3 * part))


class RoiPosition(nn.Module):
    """Learned code of every ROI from its connectivity gradients and geometric harmonics.

    Raises
    ------
    ConfigError
        If harmonics are asked for that the atlas does not have, or neither gradients nor harmonics are.
    """

    gradients_RG: Tensor
    harmonics_RM: Tensor

    def __init__(self, config: FunctionConfig, rois: RoiMetadata, channels: int) -> None:
        super().__init__()
        self.scale = config.position_scale
        parts: dict[str, np.ndarray] = {}
        if config.gradients:
            reference = config.harmonics == "reference"
            parts["gradients"] = rois.gradients if reference else _unit_columns(rois.gradients)
        if config.harmonics != "none" and not rois.n_harmonics:
            msg = (
                f"the position code wants harmonics, and {rois.atlas} has none: set function model.harmonics to `none`, or"
                " features.harmonics to a number"
            )
            raise ConfigError(msg)
        if config.harmonics == "reference":
            parts["harmonics"] = rois.harmonics
        elif config.harmonics == "standardised":
            # the constant mode says which hemisphere an ROI lies in and nothing else: say so plainly
            flag = np.where(rois.hemisphere < 0, 0.0, 2.0 * rois.hemisphere - 1.0)[:, None]
            parts["harmonics"] = np.concatenate([flag, _unit_columns(rois.harmonics[:, 1:])], axis=1)
        if not parts:
            msg = "function position code is empty: switch gradients or harmonics on, or nothing distinguishes the ROIs"
            raise ConfigError(msg)
        self.inputs = tuple(parts)
        self.maps = nn.ModuleDict()
        for name, array in parts.items():
            suffix = "RG" if name == "gradients" else "RM"
            self.register_buffer(f"{name}_{suffix}", torch.tensor(np.asarray(array, dtype=np.float32)))
            self.maps[name] = nn.Linear(array.shape[1], channels)

    def _arrays(self) -> dict[str, Tensor]:
        return {
            name: getattr(self, f"{name}_{'RG' if name == 'gradients' else 'RM'}") for name in self.inputs
        }

    def columns(self) -> Tensor:
        """Return what is known of every ROI, side by side: gradients first, then harmonics."""
        return torch.cat(list(self._arrays().values()), dim=1)

    def forward(self) -> Tensor:
        """Return the code (R, C)."""
        arrays = self._arrays()
        with torch.autocast(arrays[self.inputs[0]].device.type, enabled=False):
            codes = [self.maps[name](array) for name, array in arrays.items()]
        code_RC = torch.stack(codes).mean(dim=0).float()
        if self.scale == "minmax":
            low, high = code_RC.min(), code_RC.max()
            return 2 * (code_RC - low) / (high - low) - 1
        # the mean square of sines and cosines is a half: ROI and time weigh the same
        return F.rms_norm(code_RC, code_RC.shape[-1:], eps=1e-6) * 0.5**0.5


def grid_code(time_NC: Tensor, roi_RC: Tensor) -> Tensor:
    """Join codes of time (N, C1) and ROI (R, C2) for all tokens, ROI-major: (R * N, C1 + C2)."""
    n, r = len(time_NC), len(roi_RC)
    return torch.cat([time_NC.repeat(r, 1), roi_RC.repeat_interleave(n, dim=0)], dim=1)


def _unit_columns(array: np.ndarray) -> np.ndarray:
    """Standardise columns; one that does not vary becomes 0."""
    centred = array.astype(np.float64) - array.mean(axis=0, dtype=np.float64)
    spread = centred.std(axis=0)
    return np.where(spread > 0, centred / np.where(spread > 0, spread, 1), 0.0)
