"""Patches to tokens: ROI series with a kernel resized to the repetition time, and T1 volumes."""

# Shapes: B batch, R ROIs, T frames, K frames per patch, N time patches, D width; X, Y, Z voxels, P patch edge

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Resize = Literal["aligned", "reference"]


@functools.cache
def resize_matrix(base: int, length: int, resize: Resize) -> NDArray[np.float64]:
    """Matrix (length, base) that takes a patch kernel of `base` frames to one of `length` frames.

    FlexiViT's rule (arXiv 2212.08013): if B resamples a patch, the kernel is resampled by the transposed
    pseudo-inverse of B, so that the embedding of a resampled patch stays what it was.

    Parameters
    ----------
    base, length
        Frames of the stored kernel and of the patch at hand.
    resize
        Where the frames of a patch lie in its window; see ``FunctionConfig.resize``.
    """
    if base == length:
        return np.eye(base)
    return np.linalg.pinv(_resample(base, length, resize).T)


def _resample(base: int, length: int, resize: Resize) -> NDArray[np.float64]:
    """Bicubic matrix B (length, base) with an antialiasing filter; rows sum to 1."""
    ratio = base / length
    spread = max(ratio, 1.0)
    offset = 0.5 * ratio - 0.5 if resize == "reference" else 0.0
    at = np.arange(length)[:, None] * ratio + offset
    weights = _cubic((np.arange(base) - at) / spread)
    return weights / weights.sum(axis=1, keepdims=True)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel, a = -0.5."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


class SeriesPatchEmbed(nn.Module):
    """Embed patches of K frames, for any K, with one kernel of `base` frames."""

    def __init__(self, base: int, width: int, resize: Resize) -> None:
        super().__init__()
        self.resize: Resize = resize
        self.weight = nn.Parameter(torch.empty(width, base))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.trunc_normal_(self.weight, std=0.02)
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
        key = (frames, self.weight.device, self.weight.dtype)
        if key not in self._matrices:
            matrix = torch.from_numpy(resize_matrix(base, frames, self.resize))
            with torch.inference_mode(False):
                self._matrices[key] = matrix.to(device=key[1], dtype=key[2])
        with torch.autocast(self.weight.device.type, enabled=False):
            return self.weight @ self._matrices[key].T

    def forward(self, series_BRT: Tensor, frames: int) -> Tensor:
        """Embed (B, R, N * K) series: (B, R, N, D)."""
        patches_BRNK = series_BRT.unflatten(-1, (-1, frames))
        return F.linear(patches_BRNK, self.kernel(frames), self.bias)


class VolumePatchEmbed(nn.Module):
    """Cut a volume into cubes and embed each: a reshape and one matrix product.

    The same numbers as a Conv3d of stride P, which is 35 times slower in bf16 on CPUs.
    """

    def __init__(self, grid: tuple[int, int, int], patch: int, width: int) -> None:
        super().__init__()
        if any(n % patch or n < patch for n in grid):
            msg = f"a T1 grid of {grid} voxels does not divide into patches of {patch}: crop or pad it in the workflow"
            raise ValueError(msg)
        self.grid = grid
        self.patch = patch
        self.patches = (grid[0] // patch, grid[1] // patch, grid[2] // patch)
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
        """Embed patches from :meth:`cut`: (B, N, D)."""
        return self.proj(patches_BNV)
