"""The nearest label of each voxel."""

from __future__ import annotations

import numpy as np
from small_templates import ATLAS_AFFINE, ATLAS_SHAPE, MM


def test_halfway_voxels_do_not_depend_on_the_last_bit(atlas):
    """A 2 mm voxel of fMRIPrep lies between two of the 1 mm template: a tiny shift must change nothing."""
    affine = ATLAS_AFFINE.copy()
    affine[:3, 3] += MM / 2
    shape = tuple(n - 1 for n in ATLAS_SHAPE)
    labels, _ = atlas.on_grid(shape, affine)
    shifted, _ = atlas.on_grid(shape, affine + 1e-6 * (np.arange(16).reshape(4, 4) < 12) * (affine == 0))
    np.testing.assert_array_equal(labels, shifted)
