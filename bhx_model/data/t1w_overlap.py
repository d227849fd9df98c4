"""Check that a brain lies where the template's does: overlap of masks, similar structure, no flip. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bhx_model.data.t1w import ModelGrid

#: Voxels of the comparison (mm), the smallest structure that counts (standard deviation of a Gaussian), and the largest:
#: anatomy of a single person is finer, uneven receive coils are wider.
VOXEL_MM = 4.0
SMALLEST_MM, LARGEST_MM = 4.0, 12.0


@dataclass(frozen=True)
class Overlap:
    """How well a brain fits the template.

    Attributes
    ----------
    dice : float
        Overlap of the two brain masks, 0 to 1.
    correlation : float
        Of the two T1 volumes inside both masks, of structure between `SMALLEST_MM` and `LARGEST_MM`.
    """

    dice: float
    correlation: float


@dataclass(frozen=True)
class Coarse:
    """Means over blocks of voxels, of the values and of the mask."""

    values: np.ndarray
    share: np.ndarray
    voxel_mm: float


def coarse(volume: np.ndarray, grid: ModelGrid) -> Coarse:
    """Means of a volume on `grid`, 0 outside of the brain, over blocks of about `VOXEL_MM`."""
    width = max(1, round(VOXEL_MM / grid.zooms_mm[0]))
    size = [n // width for n in volume.shape]
    blocks = volume[tuple(slice(0, n * width) for n in size)]
    axes = [length for n in size for length in (n, width)]
    values, share = (
        a.reshape(axes).mean(axis=(1, 3, 5), dtype=np.float32)
        for a in (blocks, (blocks != 0).astype(np.float32))
    )
    return Coarse(values, share, width * grid.zooms_mm[0])


def compare(ours: Coarse, theirs: Coarse) -> Overlap:
    """Compare two volumes on one grid."""
    together = float(ours.share.sum() + theirs.share.sum())
    dice = 2 * float(np.minimum(ours.share, theirs.share).sum()) / together if together else 0.0
    both = (ours.share > 0.5) & (theirs.share > 0.5)
    if both.sum() < 2:
        return Overlap(dice, 0.0)
    a, b = (structure(part.values, both, ours.voxel_mm)[both] for part in (ours, theirs))
    return Overlap(dice, _correlation(a, b))


def same_side(ours: Coarse, theirs: Coarse, grid: ModelGrid) -> float:
    """Correlation of what differs between left and right, in both: negative where one is the mirror image of the other.

    Left and right of the space, not of the grid: a grid whose middle is a voxel off would have an asymmetry of its own.
    """
    width = round(ours.voxel_mm / grid.zooms_mm[0])
    first = grid.affine[0, 3] + grid.affine[0, 0] * (width - 1) / 2
    x_mm = first + grid.affine[0, 0] * width * np.arange(ours.values.shape[0])
    both = (ours.share > 0.5) & (theirs.share > 0.5)
    both &= _mirrored(both.astype(np.float32), x_mm) > 0.99
    if both.sum() < 2:
        return 0.0
    a, b = (structure(part.values, both, ours.voxel_mm) for part in (ours, theirs))
    return _correlation((a - _mirrored(a, x_mm))[both], (b - _mirrored(b, x_mm))[both])


def _mirrored(values: np.ndarray, x_mm: np.ndarray) -> np.ndarray:
    """Values at -x, between planes at `x_mm`; 0 beyond the first and the last."""
    place = (-x_mm - x_mm[0]) / (x_mm[1] - x_mm[0])
    low = np.floor(place).astype(int)
    share = (place - low)[:, None, None]
    padded = np.concatenate([values, np.zeros_like(values[:1])])  # a plane of 0 for what is beyond
    below, above = (np.where((i >= 0) & (i < len(values)), i, len(values)) for i in (low, low + 1))
    return (1 - share) * padded[below] + share * padded[above]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    spread = a.std() * b.std()
    correlation = float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0
    return min(max(correlation, -1.0), 1.0)


def structure(
    values: np.ndarray,
    inside: np.ndarray,
    voxel_mm: float,
    smallest_mm: float = SMALLEST_MM,
    largest_mm: float = LARGEST_MM,
) -> np.ndarray:
    """What a wide Gaussian leaves of a narrow one, both within a mask: structure of some size.

    Parameters
    ----------
    values : (X, Y, Z) float
    inside : (X, Y, Z) bool
    voxel_mm : float
        Edge of a voxel.
    smallest_mm, largest_mm : float
        Standard deviations of the Gaussians.
    """
    from scipy import ndimage

    def smooth(width: float) -> np.ndarray:
        weight = ndimage.gaussian_filter(inside.astype(np.float32), width)
        return ndimage.gaussian_filter(np.where(inside, values, 0), width) / np.maximum(weight, 1e-3)

    return smooth(smallest_mm / voxel_mm) - smooth(largest_mm / voxel_mm)
