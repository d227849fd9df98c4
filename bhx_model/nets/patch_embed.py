"""Embed patches as tokens: ROI series with a kernel resized to the repetition time, and T1 volumes."""

# Shapes: B batch, R ROIs, T frames, K frames per patch, N time patches, D width; X, Y, Z voxels, P patch edge

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bhx_model.errors import ConfigError

Resize = Literal["aligned", "reference"]


@functools.cache
def resize_matrix(base: int, length: int, resize: Resize, base_tr_s: float = 0.735) -> NDArray[np.floating]:
    """Matrix (length, base) that takes a patch kernel of `base` frames to one of `length` frames.

    Parameters
    ----------
    base, length
        Frames of the stored kernel and of the patch at hand, both of which fill the same window.
    resize
        ``reference``: FlexiViT's rule (arXiv 2212.08013), the transposed pseudo-inverse of the bicubic
        resampling of a patch. It takes frame i for the mean of the i-th share of the window, centred there,
        whereas frames were taken at one time each, the first at the window's start.
        ``aligned``: the kernel whose embedding comes nearest, in the mean square, to what the stored kernel
        makes of the same signal sampled at the same start, for signals of the spectrum of
        `_covariance`.
    base_tr_s
        Repetition time of the stored kernel, s.
    """
    if base == length:
        return np.eye(base)
    if resize == "reference":
        return np.asarray(np.linalg.pinv(_bicubic(base, length).T))
    stored_s, taken_s = np.arange(base) * base_tr_s, np.arange(length) * (base * base_tr_s / length)
    within = _covariance(taken_s, taken_s)
    # the ridge bounds the gain where frames are so dense that they repeat each other
    return np.linalg.solve(within + 1e-4 * np.eye(length), _covariance(taken_s, stored_s))


def _covariance(a_s: NDArray[np.floating], b_s: NDArray[np.floating]) -> NDArray[np.floating]:
    """Covariance of a signal between times `a_s` and `b_s`, for power that is flat up to 0.12 Hz and then falls.

    BOLD fluctuates below 0.1 Hz; what little is above keeps the kernel from relying on its absence.
    """
    hz = (np.arange(512) + 0.5) / 512 * 0.7
    power = 1 / (1 + (hz / 0.12) ** 12)
    lag_s = a_s[:, None, None] - b_s[:, None]
    return np.cos(2 * np.pi * lag_s * hz) @ (power / power.sum())


def _bicubic(base: int, length: int) -> NDArray[np.floating]:
    """Bicubic resampling (length, base) with an antialiasing filter; rows sum to 1 (Keys 1981, a = -0.5)."""
    ratio = base / length
    centre = (np.arange(length)[:, None] + 0.5) * ratio - 0.5
    x = np.abs(np.arange(base) - centre) / max(ratio, 1.0)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


class SeriesPatchEmbed(nn.Module):
    """Embed patches of K frames, for any K, with one kernel of `base` frames."""

    def __init__(self, base: int, width: int, resize: Resize, base_tr_s: float = 0.735) -> None:
        super().__init__()
        self.resize: Resize = resize
        self.base_tr_s = base_tr_s
        self.weight = nn.Parameter(torch.empty(width, base))
        self.bias = nn.Parameter(torch.zeros(width))
        # as a linear layer: a standardised series then weighs about as much as the position code beside it
        nn.init.trunc_normal_(self.weight, std=base**-0.5)
        # No buffers: made on demand for each (K, device, dtype), and no part of a checkpoint.
        self._matrices: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}

    def _apply(self, fn: Any, recurse: bool = True) -> SeriesPatchEmbed:
        self._matrices = {}  # they are on the old device
        return super()._apply(fn, recurse)

    def kernel(self, frames: int) -> Tensor:
        """Return the kernel for patches of `frames` frames: (D, K)."""
        base = self.weight.shape[1]
        if frames == base:
            return self.weight
        with torch.autocast(self.weight.device.type, enabled=False):
            return self.weight @ self._matrix(frames).T

    def _matrix(self, frames: int) -> Tensor:
        key = (frames, self.weight.device, self.weight.dtype)
        if (known := self._matrices.get(key)) is not None:
            return known
        if torch.compiler.is_compiling():
            # numpy is nothing for a compiler; as a decorator it would import one, which takes longer than torch itself
            make = cast(Callable[[int], Tensor], torch.compiler.disable(self._make_matrix))
            return make(frames)
        return self._make_matrix(frames)

    def _make_matrix(self, frames: int) -> Tensor:
        key = (frames, self.weight.device, self.weight.dtype)
        matrix = resize_matrix(self.weight.shape[1], frames, self.resize, self.base_tr_s)
        with torch.inference_mode(False):
            # rounded here: not every device has float64
            self._matrices[key] = torch.from_numpy(matrix).to(dtype=key[2]).to(device=key[1])
        return self._matrices[key]

    def content(self, series_BRT: Tensor, frames: int) -> Tensor:
        """Embed (B, R, N * K) series, without the bias: (B, R, N, D)."""
        patches_BRNK = series_BRT.unflatten(-1, (-1, frames))
        return F.linear(patches_BRNK, self.kernel(frames))

    def forward(self, series_BRT: Tensor, frames: int) -> Tensor:
        """Embed (B, R, N * K) series: (B, R, N, D)."""
        return self.content(series_BRT, frames) + self.bias


def whole_patches(grid: tuple[int, int, int], patch: int) -> tuple[int, int, int]:
    """Patches along X, Y, Z of a grid of voxels.

    Raises
    ------
    ConfigError
        If it does not divide into patches of `patch` voxels.
    """
    if any(n % patch or n < patch for n in grid):
        msg = f"a T1 grid of {grid} voxels does not divide into patches of {patch}: change features.t1w_shape or model.patch"
        raise ConfigError(msg)
    return grid[0] // patch, grid[1] // patch, grid[2] // patch


class VolumePatchEmbed(nn.Module):
    """Cut a volume into cubes and embed each: a reshape and one matrix product.

    The same numbers as a Conv3d of stride P, which is 35 times slower in bf16 on CPUs.
    """

    def __init__(self, grid: tuple[int, int, int], patch: int, width: int) -> None:
        super().__init__()
        self.patches = whole_patches(grid, patch)
        self.grid = grid
        self.patch = patch
        self.proj = nn.Linear(patch**3, width)

    def cut(self, volume_BXYZ: Tensor) -> Tensor:
        """Return the voxels of every patch: (B, N, P^3), Z fastest in both.

        Raises
        ------
        ValueError
            If the volume is on another grid.
        """
        if tuple(volume_BXYZ.shape[1:]) != self.grid:
            msg = f"T1 volumes are on a grid of {tuple(volume_BXYZ.shape[1:])} voxels, the model's is {self.grid}: resample"
            raise ValueError(msg)
        x, y, z = self.patches
        p = self.patch
        cubes = volume_BXYZ.reshape(-1, x, p, y, p, z, p).permute(0, 1, 3, 5, 2, 4, 6)
        return cubes.reshape(len(volume_BXYZ), x * y * z, p**3)

    def forward(self, patches_BNV: Tensor) -> Tensor:
        """Embed patches from `cut`: (B, N, D)."""
        return self.proj(patches_BNV)
