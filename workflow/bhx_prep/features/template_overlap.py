"""Whether the brain of a T1 volume lies where the template's does: overlap of the masks, and alike structure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from bhx_model.errors import DataError, SiteError
from bhx_prep.features.t1w import ModelGrid, conform

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


def overlap(volume: np.ndarray, head: Path, mask: Path, grid: ModelGrid) -> Overlap:
    """Compare a volume with the template.

    Parameters
    ----------
    volume : (X, Y, Z) float32
        T1 on `grid`, normalised, 0 outside of the brain: see `bhx_prep.features.t1w.conform`.
    head, mask : Path
        Template and its brain mask; read once per process.
    grid : ModelGrid

    Raises
    ------
    SiteError
        If the template cannot be read.
    """
    ours, theirs = _coarse(volume, grid), _template(head, mask, grid.shape, grid.affine.tobytes())
    together = float(ours.share.sum() + theirs.share.sum())
    dice = 2 * float(np.minimum(ours.share, theirs.share).sum()) / together if together else 0.0
    both = (ours.share > 0.5) & (theirs.share > 0.5)
    if both.sum() < 2:
        return Overlap(dice, 0.0)
    sd = VOXEL_MM / ours.voxel_mm
    a, b = (_structure(part.values, both, sd)[both] for part in (ours, theirs))
    spread = a.std() * b.std()
    correlation = float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0
    return Overlap(dice, min(max(correlation, -1.0), 1.0))


@dataclass(frozen=True)
class _Coarse:
    """Means over blocks of voxels, of the values and of the mask."""

    values: np.ndarray
    share: np.ndarray
    voxel_mm: float


def _coarse(volume: np.ndarray, grid: ModelGrid) -> _Coarse:
    width = max(1, round(VOXEL_MM / grid.zooms_mm[0]))
    size = [n // width for n in volume.shape]
    blocks = volume[tuple(slice(0, n * width) for n in size)]
    axes = [length for n in size for length in (n, width)]
    values, share = (
        a.reshape(axes).mean(axis=(1, 3, 5), dtype=np.float32)
        for a in (blocks, (blocks != 0).astype(np.float32))
    )
    return _Coarse(values, share, width * grid.zooms_mm[0])


@cache
def _template(head: Path, mask: Path, shape: tuple[int, int, int], affine: bytes) -> _Coarse:
    grid = ModelGrid(shape, np.frombuffer(affine).reshape(4, 4))
    try:
        return _coarse(conform(head, grid, mask), grid)
    except DataError as error:  # no scan's fault
        raise SiteError(f"the template head cannot be used ({error}): fetch the templates again") from error


def _structure(values: np.ndarray, inside: np.ndarray, sd: float) -> np.ndarray:
    """What a wide Gaussian leaves of a narrow one; both within the mask."""

    def smooth(width: float) -> np.ndarray:
        weight = ndimage.gaussian_filter(inside.astype(np.float32), width)
        return ndimage.gaussian_filter(np.where(inside, values, 0), width) / np.maximum(weight, 1e-3)

    return smooth(sd * SMALLEST_MM / VOXEL_MM) - smooth(sd * LARGEST_MM / VOXEL_MM)
