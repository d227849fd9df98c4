"""Small scans that fit the small atlas."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_templates import ATLAS_AFFINE, ATLAS_SHAPE, MM, write_templates

from bhx_prep.features import parcellate


@pytest.fixture(scope="session")
def templates_folder(tmp_path_factory) -> Path:
    return write_templates(tmp_path_factory.mktemp("templates"))


@pytest.fixture
def templates(templates_folder) -> parcellate.Templates:
    return parcellate.load_templates(templates_folder)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def volume(tmp_path, rng):
    """Write a BOLD volume: ``volume(n_frames, dtype, zooms_mm, data=...)`` -> path, data, affine."""

    def write(n_frames=20, dtype=np.float32, mm=MM, data=None, name="bold.nii.gz", scale=None, affine=None):
        if affine is None:
            affine = np.diag([mm, mm, mm, 1.0])
            affine[:3, 3] = ATLAS_AFFINE[:3, 3]
        shape = tuple(int(np.ceil(n * MM / mm)) for n in ATLAS_SHAPE)
        if data is None:
            data = 1000 + 50 * rng.standard_normal((*shape, n_frames))
        image = nib.Nifti1Image(np.asarray(data).astype(dtype), affine)
        if np.dtype(dtype).kind in "iuf":
            image.header.set_data_dtype(dtype)
        if scale:
            image.header.set_slope_inter(*scale)
        image.header.set_zooms([*nib.affines.voxel_sizes(affine), 2.0][: image.ndim])
        path = tmp_path / name
        nib.save(image, path)
        return path, np.asarray(data), affine

    return write
