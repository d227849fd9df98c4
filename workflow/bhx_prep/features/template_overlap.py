"""Check that the brain of a T1 volume lies where the template's does: overlap of masks, and similar structure."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from bhx_model.data.t1w_overlap import Coarse, Overlap, coarse, compare
from bhx_model.errors import DataError, SiteError
from bhx_prep.features.t1w import ModelGrid, conform


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
    return compare(coarse(volume, grid), _template(head, mask, grid.shape, grid.affine.tobytes()))


@cache
def _template(head: Path, mask: Path, shape: tuple[int, int, int], affine: bytes) -> Coarse:
    grid = ModelGrid(shape, np.frombuffer(affine).reshape(4, 4))
    try:
        return coarse(conform(head, grid, mask), grid)
    except DataError as error:  # no scan's fault
        raise SiteError(f"the template head cannot be used ({error}): fetch the templates again") from error
