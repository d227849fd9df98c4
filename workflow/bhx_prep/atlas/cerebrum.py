"""Masks of the template: its cerebral hemispheres without cerebellum and brain stem, and the white matter for surfaces.

Surfaces of the cortex are made of one hemisphere at a time, whose ventricles and deep nuclei are filled. Which voxels
these are is told in MNI152NLin2009cAsym by regions of AAL3 (Rolls et al. 2020, as deepmriprep carries them; only AAL3's
deep nuclei, cerebellum and cortex as wholes are used), by the midplane, and by the dark voxels of the template head that
lie deep inside: the ventricles.
"""

from __future__ import annotations

from typing import Any, Final

import nibabel as nib
import numpy as np
from scipy import ndimage

from bhx_prep.atlas.sources.packages import head_file, head_mask, package_file
from bhx_prep.io.images import load_image

#: Name of the file in the folder of templates.
FILE: Final = "cerebrum.nii.gz"

#: AAL3: hippocampus, amygdala, caudate, putamen, pallidum, thalamus, accumbens.
_DEEP: Final = (41, 42, 45, 46, *range(75, 81), *range(121, 151), 157, 158)
_CEREBELLUM: Final = range(95, 121)
#: From here on nuclei of the midbrain and the pons.
_STEM: Final = 159
#: A core of the brain stem (mm: from, to), which AAL3 has no label for.
_STEM_BOX: Final = ((-10, 10), (-40, -16), (-62, -14))
#: Where the lateral and the third ventricle lie (mm).
_VENTRICLES_BOX: Final = ((-45, 45), (-65, 45), (-25, 35))


def cerebrum() -> nib.Nifti1Image:
    """Regions on the grid of the template head.

    Returns
    -------
    nibabel.Nifti1Image
        uint8; 1 left and 2 right hemisphere, 3 and 4 their ventricles and deep nuclei, 0 elsewhere. They reach 5 mm
        beyond the template's brain, so that no cortex of a subject's falls out.
    """
    from nibabel.processing import resample_from_to

    head = load_image(head_file())
    mask = np.asarray(head_mask().dataobj) > 0
    labels: Any = resample_from_to(
        load_image(package_file("deepmriprep", "data/templates/aal3.nii.gz")), head, order=0
    )
    regions = _regions(np.asarray(head.dataobj, np.float32), mask, np.asarray(labels.dataobj), head.affine)
    return nib.Nifti1Image(regions, head.affine)


def _regions(head: np.ndarray, mask: np.ndarray, aal: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Regions (X, Y, Z) from a head (1 mm), its brain mask and AAL3's labels, in RAS."""
    axes = [affine[i, i] * np.arange(n) + affine[i, 3] for i, n in enumerate(head.shape)]
    deep, cerebellum = np.isin(aal, _DEEP), np.isin(aal, _CEREBELLUM)
    cortex = (aal > 0) & (aal < _STEM) & ~deep & ~cerebellum
    stem = ((aal >= _STEM) | (_box(axes, _STEM_BOX) & mask)) & ~deep
    seeds = np.select([stem, cerebellum, cortex | deep], [2, 2, 1], 0)
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    above = seeds[tuple(np.asarray(nearest))] == 1
    # the brain's brightest are white matter: what is far darker and 4 mm from any cortex is fluid of the ventricles
    dark = head < 0.6 * np.percentile(head[mask], 95)
    from_cortex: Any = ndimage.distance_transform_edt(~cortex)
    inside = mask & above & (from_cortex > 4)
    pieces = np.empty(mask.shape, np.int32)
    ndimage.label(inside & dark & _box(axes, _VENTRICLES_BOX), output=pieces)
    large = np.flatnonzero(np.bincount(pieces.ravel())[1:] > 200) + 1
    filled = _wider(np.isin(pieces, large) | deep, 2) & ~cortex & above
    near = _wider(mask, 5) & above
    right = (axes[0] >= 0)[:, None, None]
    hemisphere = np.where(right, 2, 1)
    return np.where(filled, hemisphere + 2, np.where(near, hemisphere, 0)).astype(np.uint8)


def _wider(region: np.ndarray, voxels: int) -> np.ndarray:
    return np.asarray(ndimage.binary_dilation(region, iterations=voxels), bool)


def _box(axes: list[np.ndarray], limits: tuple[tuple[int, int], ...]) -> np.ndarray:
    inside = [(axis >= low) & (axis <= high) for axis, (low, high) in zip(axes, limits, strict=True)]
    return inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]
