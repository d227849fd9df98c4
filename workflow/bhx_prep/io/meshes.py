"""Sizes of the standard cortical meshes, and the voxels of the 91k grayordinates; defined only here."""

from __future__ import annotations

from typing import Final

import numpy as np

#: Vertices of a hemisphere.
FSLR_VERTICES: Final = 32492
FSAVERAGE_VERTICES: Final = 163842
#: fsaverage is subdivided icosahedrally: its first 10,242 vertices are those of fsaverage5.
FSAVERAGE5_VERTICES: Final = 10242

#: Vertices of a hemisphere -> mesh on which the atlas is known.
MESHES: Final = {FSAVERAGE5_VERTICES: "fsaverage5", FSLR_VERTICES: "fsLR"}

#: Rows of a dense series: both cortices without the medial wall, and the subcortex.
GRAYORDINATES: Final = 91282
#: Vertices of the left and of the right cortex among them, without the medial wall.
GRAYORDINATES_CORTEX: Final = (29696, 29716)
#: Grid on which the voxels among them are counted, and where it lies (voxels to mm).
GRAYORDINATES_SHAPE: Final = (91, 109, 91)
GRAYORDINATES_AFFINE: Final = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
