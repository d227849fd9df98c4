"""Tissue labels of one hemisphere, from which thickness and surfaces are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from bhx_model.errors import DataError
from bhx_prep.quality.masks import largest_component

#: Labels of the template's ``cerebrum.nii.gz`` (`bhx_prep.atlas.cerebrum`): cortex and white matter, and what is filled.
REGIONS: Final = {"left": (1, 3), "right": (2, 4)}
#: Voxels kept around a hemisphere.
_MARGIN: Final = 8


@dataclass(frozen=True)
class HemisphereLabels:
    """1 cerebrospinal fluid, 2 grey matter, 3 white matter, fractions between them; 0 outside."""

    values: np.ndarray  # (X, Y, Z) float32
    affine: np.ndarray  # (4, 4) voxel to mm


def hemisphere_labels(
    tissues: dict[str, np.ndarray], regions: np.ndarray, affine: np.ndarray, side: str
) -> HemisphereLabels:
    """Cut one hemisphere out of a segmented brain, and fill its ventricles and deep nuclei with white matter.

    Parameters
    ----------
    tissues : dict of array, (X, Y, Z)
        Probabilities ``csf``, ``gm`` and ``wm``; all 0 outside the brain.
    regions : array of int, (X, Y, Z)
        `REGIONS` in the subject's space. Without cerebellum and brain stem.
    affine : array, (4, 4)
        Voxel to mm.
    side : str
        ``left`` or ``right``.

    Raises
    ------
    DataError
        If there is no white matter in it.
    """
    inside = np.isin(regions, REGIONS[side])
    total = tissues["csf"] + tissues["gm"] + tissues["wm"]
    weighted = tissues["csf"] + 2 * tissues["gm"] + 3 * tissues["wm"]
    values = np.where(inside & (total > 0.1), weighted / np.maximum(total, 0.1), 0).astype(np.float32)
    values[regions == REGIONS[side][1]] = 3
    tissue = largest_component(values > 1.5)
    values[(values > 1.5) & ~tissue] = 1
    white = largest_component(values > 2.5)
    if not white.any():
        msg = f"no white matter in the {side} hemisphere: the segmentation or the normalisation went wrong"
        raise DataError(msg)
    # what white matter encloses is a piece of a ventricle, a nucleus or a lesion
    values[ndimage.binary_fill_holes(white) & ~white] = 3
    box = tuple(
        slice(max(0, int(at.min()) - _MARGIN), int(at.max()) + _MARGIN + 1) for at in np.nonzero(values > 0)
    )
    moved = affine.copy()
    moved[:3, 3] = (affine @ [*(part.start for part in box), 1])[:3]
    return HemisphereLabels(np.ascontiguousarray(values[box]), moved)
