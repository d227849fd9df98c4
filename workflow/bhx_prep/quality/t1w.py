"""Quality measures that detect a T1-weighted image that is misaligned with the template, or shows no head.

All are of arrays: the same functions judge what the embedded workflow and what fMRIPrep made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from bhx_model.data.t1w import conform, model_grid, voxel_sizes
from bhx_model.data.t1w_overlap import coarse, compare
from bhx_model.errors import DataError
from bhx_prep.quality.masks import agreement

#: Zeros (mm) beside a brain that are no bone.
GAP_MM: Final = 12.0
#: Share of a brain's volume below which what surrounds it is no head: .02 and .03 in two that were stripped, of which
#: masks find a little less, and .9 to 6 in heads.
STRIPPED: Final = 0.3
#: By how much (mm) a mask may end before the image does.
NEAR_MM: Final = 2.0


def volume_ml(mask: np.ndarray, affine: np.ndarray) -> float:
    """Volume (ml) of a mask (X, Y, Z) with an affine in mm."""
    return float(np.count_nonzero(mask)) * float(np.prod(voxel_sizes(affine))) / 1000


def cut_cm2(values: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> float:
    """Area (cm2) of a brain that ends where nothing was measured, seen from the side on which it is largest.

    Nothing was measured outside of the image, and where zeros follow the brain for `GAP_MM`: above a field of view that
    ends too low, in missing slices, where a face was removed with a part of the brain. The brain of a skull-stripped
    image borders on zeros everywhere; there, only the planes beside the end of the image or beside planes of zeros count.

    Parameters
    ----------
    values : array, (X, Y, Z)
        The image, 0 where it was not measured.
    mask : array of bool, (X, Y, Z)
        Its brain.
    affine : array, (4, 4)
        Voxel to world, mm.
    """
    zooms, measured = voxel_sizes(affine), np.asarray(values) != 0
    exposed, sections = [], [0.0]
    for axis in range(3):
        voxel_cm2 = float(np.prod(np.delete(zooms, axis))) / 100
        along, brain = np.moveaxis(measured, axis, 0), np.moveaxis(mask, axis, 0)
        for side in (slice(None), slice(None, None, -1)):
            ends = _exposed(along[side], brain[side], float(zooms[axis]))
            exposed.append(np.count_nonzero(ends) * voxel_cm2)
        sections += [area * voxel_cm2 for area in _sections(along, brain, float(zooms[axis]))]
    stripped = np.count_nonzero(measured & ~mask) < STRIPPED * np.count_nonzero(mask)
    return max(sections if stripped else [*sections, *exposed])


def _exposed(measured: np.ndarray, mask: np.ndarray, step_mm: float) -> np.ndarray:
    """Where a brain, seen along the first axis from its end, is followed by nothing measured, bool (Y, Z)."""
    gap, near = max(1, round(GAP_MM / step_mm)), max(1, round(NEAR_MM / step_mm))
    beyond = np.pad(measured, ((0, gap + near), (0, 0), (0, 0)))
    # of each plane, whether anything was measured in it and the next ones
    follows = np.asarray(
        ndimage.maximum_filter1d(beyond, gap, axis=0, origin=-(gap // 2), mode="constant"), bool
    )
    last = mask & ~np.pad(mask[1:], ((0, 1), (0, 0), (0, 0)))
    found = np.zeros(mask.shape[1:], bool)
    for step in range(1, near + 1):
        found |= (last & ~follows[step : step + len(mask)]).any(axis=0)
    return found


def _sections(measured: np.ndarray, mask: np.ndarray, step_mm: float) -> list[int]:
    """Voxels of a brain in the planes where something was measured that are next to an end or to planes of zeros."""
    near = max(1, round(NEAR_MM / step_mm))
    areas = np.count_nonzero(mask, axis=(1, 2))
    edges = np.flatnonzero(np.diff(measured.any(axis=(1, 2)).astype(np.int8), prepend=0, append=0))
    found = []
    for first, end in edges.reshape(-1, 2):
        found += [areas[first : min(first + near, end)].max(), areas[max(end - near, first) : end].max()]
    return [int(n) for n in found]


def missing(values: np.ndarray, mask: np.ndarray) -> float:
    """Share of a brain, its gaps closed, that holds no values: zeros (NaN becomes 0 when images are read).

    Parameters
    ----------
    values, mask : arrays, (X, Y, Z)
    """
    whole = np.asarray(ndimage.binary_fill_holes(mask))
    n = np.count_nonzero(whole)
    return float(np.count_nonzero(whole & ~(values > 0))) / n if n else 1.0


def tissue_contrast(
    values: np.ndarray, mask: np.ndarray, template: np.ndarray, template_mask: np.ndarray
) -> float:
    """By how much the place of the template's white matter is brighter than that of its grey matter.

    Parameters
    ----------
    values, mask : arrays, (X, Y, Z)
        T1w image in the template's space, and its brain.
    template, template_mask : arrays, (X, Y, Z)
        On the same grid.

    Returns
    -------
    float
        Difference of the medians, in standard deviations of the brain's intensities: negative in images that are not
        T1-weighted.
    """
    both = mask & template_mask
    if np.count_nonzero(both) < 100:
        return 0.0
    # thirds of the template's intensities: fluid and rims, grey matter, white matter
    low, high = np.percentile(template[template_mask], [25.0, 62.0])
    white = both & (template > high)
    grey = both & (template > low) & (template <= high)
    inside = values[both]
    floor, ceiling = np.percentile(inside, [1.0, 99.0])
    spread = float(np.clip(inside, floor, ceiling).std())
    if not (spread > 0 and white.any() and grey.any()):
        return 0.0
    return float(np.median(values[white]) - np.median(values[grey])) / spread


@dataclass(frozen=True)
class Template:
    """The template's head on the grid of a comparison.

    Attributes
    ----------
    values : array, (X, Y, Z)
    mask : array of bool, (X, Y, Z)
        Its brain.
    affine : array, (4, 4)
        Voxel to MNI space, mm.
    """

    values: np.ndarray
    mask: np.ndarray
    affine: np.ndarray


def of_head(values: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> dict[str, float | None]:
    """Numbers of a head on its own grid.

    Parameters
    ----------
    values : array, (X, Y, Z)
        T1w image whose axes run to the right, to the front and upwards; 0 where nothing was measured.
    mask : array of bool, (X, Y, Z)
        Its brain.
    affine : array, (4, 4)
        Voxel to world, mm.
    """
    return {
        "brain_volume_ml": volume_ml(mask, affine),
        "cut_cm2": cut_cm2(values, mask, affine),
        "missing_share": missing(values, mask),
    }


def of_standard(values: np.ndarray, mask: np.ndarray, template: Template) -> dict[str, float | None]:
    """Numbers of a head in the template's space.

    Parameters
    ----------
    values : array, (X, Y, Z)
        T1w image on the template's grid.
    mask : array of bool, (X, Y, Z)
        Its brain.
    template : Template
    """
    return {
        **agreement(mask, template.mask, "norm"),
        "template_correlation": template_correlation(values, mask, template),
        "tissue_contrast": tissue_contrast(values, mask, template.values, template.mask),
    }


def template_correlation(values: np.ndarray, mask: np.ndarray, template: Template) -> float:
    """Correlation with the template of structure of 4 to 12 mm, as of the features' T1 volumes.

    `values` and `mask`, (X, Y, Z), are on the template's grid.

    0 of what cannot be compared: no brain, one of no person's size, or outside of the template's.
    """
    grid = model_grid(2.0, (80, 96, 80))
    theirs = conform(template.values, template.affine, grid, "the template", template.mask.astype(np.float32))
    try:
        ours = conform(values, template.affine, grid, "the T1w image", mask.astype(np.float32))
    except DataError:
        return 0.0
    return compare(coarse(ours, grid), coarse(theirs, grid)).correlation
