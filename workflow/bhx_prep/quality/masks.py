"""Largest component of a mask, and agreement of two, as XCP-D measures coregistration and normalisation."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest connected component of a mask (X, Y, Z), bool; empty where the mask is."""
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    sizes = np.bincount(labels.ravel())[1:]
    return labels == 1 + int(np.argmax(sizes)) if sizes.size else np.zeros(mask.shape, bool)


def agreement(first: np.ndarray, second: np.ndarray, prefix: str) -> dict[str, float]:
    """Three numbers of XCP-D's, under its names.

    Parameters
    ----------
    first, second : array of bool, (X, Y, Z)
        On one grid.
    prefix : str
        ``coreg`` or ``norm``.

    Returns
    -------
    dict
        ``<prefix>_dice``; ``<prefix>_overlap``, the share of the smaller mask that lies in the other one; and
        ``<prefix>_correlation``, Pearson's, of the masks. 0 where either is empty.

    References
    ----------
    Mehta et al. (2024), XCP-D, Imaging Neuroscience 2: 1-26.
    """
    both = float(np.count_nonzero(first & second))
    sizes = float(np.count_nonzero(first)), float(np.count_nonzero(second))
    n = float(first.size)
    spread = np.sqrt(np.prod([size * (n - size) for size in sizes]))
    return {
        f"{prefix}_dice": 2 * both / sum(sizes) if sum(sizes) else 0.0,
        f"{prefix}_overlap": both / min(sizes) if min(sizes) else 0.0,
        f"{prefix}_correlation": float((n * both - sizes[0] * sizes[1]) / spread) if spread else 0.0,
    }
