"""Heads with what all share and what one has alone, and runs of them, on the grid on which scans are compared."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bhx_prep.quality import bold

SHAPE = bold.SHAPE
PLACE = np.moveaxis(np.indices(SHAPE), 0, -1) @ bold.AFFINE[:3, :3].T + bold.AFFINE[:3, 3]
BRAIN = (((PLACE - (0, -18, 15)) / (68, 84, 66)) ** 2).sum(-1) <= 1


def folds(seed: int) -> np.ndarray:
    """Smooth chance, of sd 1, about as fine as gyri."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 1.2)
    return noise / noise.std()


TEMPLATE = np.where(BRAIN, 100 + 15 * folds(0), 0)


def person(seed: int) -> np.ndarray:
    """What all heads share, and what one has alone."""
    return np.where(BRAIN, TEMPLATE + 10 * folds(seed), 0)


def run_of(head: np.ndarray) -> np.ndarray:
    """An EPI picture of a head: another contrast, a bias field, noise."""
    bias = np.exp(np.linspace(-0.4, 0.4, SHAPE[1]))[None, :, None]
    noise = 30 * np.random.default_rng(9).standard_normal(SHAPE)
    return np.where(BRAIN, np.maximum((400 - 2 * head + noise) * bias, 1), 5)
