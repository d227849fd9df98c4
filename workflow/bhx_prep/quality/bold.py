"""Quality measures that detect a run that is misaligned with its T1w image, mirrored, or of another subject.

All are of arrays in standard space: the same functions judge what the embedded workflow and what fMRIPrep made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bhx_model.data.t1w_overlap import structure
from bhx_prep.quality.grids import on_grid
from bhx_prep.quality.masks import agreement, largest_component

#: The grid of the comparison: it holds MNI space's brain, and its middle plane lies at x = 0.
SHAPE = (61, 73, 61)
STEP_MM = 3.0
AFFINE = np.array([[STEP_MM, 0, 0, -90.0], [0, STEP_MM, 0, -126.0], [0, 0, STEP_MM, -72.0], [0, 0, 0, 1.0]])

#: Structure of one head alone, standard deviations of Gaussians (mm): folds, which are smaller than what heads share.
SMALLEST_MM, LARGEST_MM = 3.0, 8.0

#: Share of a T1w image's structure that the template must not explain, or it decides nothing: a synthetic head has .01 to
#: .02 of its own (the demo's), real ones .15 to .25.
LEAST_OWN = 0.05

#: Largest voxels (mm) whose pictures show the folds of a head: at 5 x 5 x 6 mm a run was known as its T1w image's.
COARSEST_MM = 6.5

#: Fewer voxels of brain in the run's field of view decide nothing.
LEAST_VOXELS = 2000


def brain_of(reference: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """Brain of an EPI volume by its brightness: the largest bright piece, without bridges to scalp and eyes.

    Parameters
    ----------
    reference : array, (X, Y, Z)
        0 where nothing was measured.
    zooms : array, (3,)
        Voxel sizes, mm.

    Returns
    -------
    array of bool, (X, Y, Z)
    """
    measured = reference > 0
    if not measured.any():
        return np.zeros(reference.shape, bool)
    bright = reference > 0.35 * np.percentile(reference[measured], 90)
    steps = np.maximum(1, np.round(4.0 / np.asarray(zooms, float))).astype(int)
    ball = np.ones(2 * steps - 1 + (steps == 1) * 2, bool)
    core = largest_component(ndimage.binary_erosion(bright, ball))
    if not core.any():
        return bright
    return np.asarray(ndimage.binary_fill_holes(ndimage.binary_dilation(core, ball) & bright))


def likeness(bold: np.ndarray, t1w: np.ndarray, template: np.ndarray, inside: np.ndarray) -> float | None:
    """How much a run shows of the anatomy that is its T1w image's alone.

    The picture's structure of 3 to 8 mm is explained by that of the template and of the T1w image, and again by that of the
    template and of the T1w image with left and right exchanged: by intensities and by their squares, whatever the contrast
    of the run is. What every head has, the template explains; what any head explains by chance, the mirrored one explains
    as well.

    Parameters
    ----------
    bold, t1w, template : array, (X, Y, Z)
        Mean of the run, T1w image, and template, on the grid of `AFFINE`.
    inside : array of bool, (X, Y, Z)
        Brain that the run shows.

    Returns
    -------
    float or None
        Share of the variance that is explained with the T1w image, less the share with the mirrored one. 0 for another
        head's run, negative for a mirrored run; None where the run shows too little, or the T1w image nothing of its own.
    """
    # the rim is bright against the air in any head
    inside = ndimage.binary_erosion(inside & inside[::-1])
    if np.count_nonzero(inside) < LEAST_VOXELS:
        return None
    picture = _parts(bold, inside)[0]
    if not picture.std() > 0:
        return None
    common = _parts(template, inside)
    anatomy = _parts(t1w, inside)[0]
    if _unexplained(anatomy, common) < LEAST_OWN * float((anatomy**2).sum()):
        return None
    own, mirrored = (_unexplained(picture, [*common, *_parts(v, inside)]) for v in (t1w, t1w[::-1]))
    return (mirrored - own) / float((picture**2).sum())


def to_comparison_grid(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A volume (I, J, K) in standard space on the grid of `AFFINE`."""
    return on_grid(values, affine, SHAPE, AFFINE)


def _parts(values: np.ndarray, inside: np.ndarray) -> list[np.ndarray]:
    """Structure of the intensities and of their squares, (voxels,) each, of mean 0."""
    known = values[inside]
    low, high = np.percentile(known, [1.0, 99.0])
    level = np.clip(values, low, high)
    level = (level - known.mean()) / max(float(known.std()), 1e-12)
    found = [
        structure(part.astype(np.float32), inside, STEP_MM, SMALLEST_MM, LARGEST_MM)[inside]
        for part in (level, level**2)
    ]
    return [part - part.mean() for part in found]


def _unexplained(values: np.ndarray, regressors: list[np.ndarray]) -> float:
    """Sum of squares of what a linear fit leaves."""
    design = np.column_stack(regressors)
    beta = np.linalg.lstsq(design, values, rcond=None)[0]
    return float(((values - design @ beta) ** 2).sum())


@dataclass(frozen=True)
class Anatomy:
    """What a run is compared with, all in standard space on one grid.

    Attributes
    ----------
    values : array, (X, Y, Z)
        T1w image.
    mask : array of bool, (X, Y, Z)
        Its brain.
    template : array, (X, Y, Z)
    template_mask : array of bool, (X, Y, Z)
    affine : array, (4, 4)
        Voxel to MNI space, mm.
    """

    values: np.ndarray
    mask: np.ndarray
    template: np.ndarray
    template_mask: np.ndarray
    affine: np.ndarray


def of_standard(
    picture: np.ndarray,
    mask: np.ndarray | None,
    affine: np.ndarray,
    anatomy: Anatomy,
    voxel_mm: float,
) -> dict[str, float | None]:
    """Numbers of a run in standard space.

    Parameters
    ----------
    picture : array, (I, J, K)
        Mean over its frames; 0 where nothing was measured.
    mask : array of bool, (I, J, K), optional
        Its brain, where something else found it; else by `brain_of`.
    affine : array, (4, 4)
        Voxel to MNI space, mm.
    anatomy : Anatomy
    voxel_mm : float
        Longest edge of the voxels that the run was measured with: folds do not show where it is above `COARSEST_MM`.
    """
    epi = to_comparison_grid(picture, affine)
    seen = to_comparison_grid((picture > 0).astype(np.float32), affine) > 0.5
    if mask is None:
        brain = brain_of(np.where(seen, epi, 0), np.full(3, STEP_MM))
    else:
        brain = to_comparison_grid(mask.astype(np.float32), affine) > 0.5
    t1w, head = (to_comparison_grid(v, anatomy.affine) for v in (anatomy.values, anatomy.template))
    inside, normal = (
        to_comparison_grid(m.astype(np.float32), anatomy.affine) > 0.5
        for m in (anatomy.mask, anatomy.template_mask)
    )
    field = np.asarray(ndimage.binary_fill_holes(seen))
    return {
        # inside the field of view: a run of half a head can lie well on it
        **agreement(brain & field, inside & field, "coreg"),
        **agreement(brain, normal, "norm"),
        "field_of_view": float(np.count_nonzero(field & normal)) / float(np.count_nonzero(normal)),
        "coreg_likeness": likeness(epi, t1w, head, inside & normal & brain)
        if voxel_mm <= COARSEST_MM
        else None,
    }
