"""A head of two tissues that a known field distorts, as in echo-planar images: voxels move along an axis, signal is kept."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def head(shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, displacement of largest value 1, brain mask; all (X, Y, Z)."""
    rng = np.random.default_rng(seed)
    at = np.indices(shape).astype(float)
    middle = [(n - 1) / 2 for n in shape]
    radius = sum(((at[k] - middle[k]) / (0.38 * shape[k])) ** 2 for k in range(3))
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    image = np.where(radius < 1, 700 * (1 + 0.15 * texture / texture.std()), 0)
    image[(radius >= 1.15) & (radius < 1.3)] = 350  # scalp
    moved = np.zeros(shape)
    for sign, place in ((1.0, (0.5, 0.8, 0.25)), (-0.5, (0.2, 0.4, 0.25))):
        squares = (((at[k] - place[k] * shape[k]) / (0.16 * shape[k])) ** 2 for k in range(3))
        moved += sign * np.exp(-sum(squares))
    return ndimage.gaussian_filter(image, 0.6), moved / np.abs(moved).max(), radius < 1


def distort(image: np.ndarray, displacement: np.ndarray, axis: int) -> np.ndarray:
    """The image as it is measured: what is at u appears at u + d(u), and signal piles up where voxels meet."""
    lines, moved = np.moveaxis(image, axis, -1), np.moveaxis(displacement, axis, -1)
    n, parts = lines.shape[-1], 8
    out = np.zeros_like(lines)
    at = np.linspace(0, n - 1, parts * n)
    for line in np.ndindex(lines.shape[:-1]):
        to = at + np.interp(at, np.arange(n), moved[line])
        signal = np.interp(at, np.arange(n), lines[line]) / parts
        low = np.floor(to).astype(int)
        inside = (low >= 0) & (low < n - 1)
        low, signal, share = low[inside], signal[inside], (to - low)[inside]
        out[line] = np.bincount(low, signal * (1 - share), n) + np.bincount(low + 1, signal * share, n)
    return np.moveaxis(out, -1, axis)
