"""A file of one hemisphere given as the other is refused, by its metadata or its name."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bhx_prep.brain_maps.surfaces import read_surface
from bhx_prep.io.hemispheres import check_side


def image(structure: str | None, of_array: bool = False) -> nib.GiftiImage:
    array = nib.gifti.GiftiDataArray(np.zeros(4, np.float32))
    made = nib.GiftiImage(darrays=[array])
    if structure:
        (array if of_array else made).meta["AnatomicalStructurePrimary"] = structure
    return made


@pytest.mark.parametrize(
    "name", ["x.gii", "sub-L1_hemi-L_bold.func.gii", "lh.annot", "1.L.midthickness.gii", "lh.mgz"]
)
@pytest.mark.parametrize("of_array", [False, True])
def test_the_right_side_passes(name, of_array):
    for structure in (None, "CortexLeft", "Cortex", "Invalid"):
        check_side(Path(name), "left", image(structure, of_array))
    check_side(Path("sub-1_desc-l_bold.gii"), "right")
    check_side(Path("left_or_right.gii"), "right")


@pytest.mark.parametrize("of_array", [False, True])
def test_the_other_side_is_refused(of_array):
    with pytest.raises(
        ValueError, match="given as the left hemisphere, its AnatomicalStructurePrimary says CortexRight"
    ):
        check_side(Path("hemi-L.func.gii"), "left", image("CortexRight", of_array))
    for name in (
        "rh.aparc.annot",
        "sub-1_hemi-R_space-fsLR_bold.func.gii",
        "100307.R.pial.32k.surf.gii",
        "rh.mgh",
    ):
        with pytest.raises(ValueError, match="by its name it is the right one"):
            check_side(Path(name), "left")
        check_side(Path(name), "right")


def test_a_surface_of_the_other_side_is_refused(tmp_path):
    points = nib.gifti.GiftiDataArray(np.eye(3, dtype=np.float32), intent="NIFTI_INTENT_POINTSET")
    points.meta["AnatomicalStructurePrimary"] = "CortexRight"
    triangles = nib.gifti.GiftiDataArray(np.array([[0, 1, 2]], np.int32), intent="NIFTI_INTENT_TRIANGLE")
    nib.save(nib.GiftiImage(darrays=[points, triangles]), tmp_path / "a.surf.gii")
    read_surface(tmp_path / "a.surf.gii", "right")
    with pytest.raises(ValueError, match="says CortexRight"):
        read_surface(tmp_path / "a.surf.gii", "left")
