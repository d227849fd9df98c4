"""A small atlas in every space, and small scans that fit it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bhx_prep import parcellate

N_ROIS = 8
SPACE = "MNI152NLin2009cAsym"
NAMES = [f"17Networks_{h}_Vis_{i}" for h in ("LH", "RH") for i in range(1, N_ROIS // 2 + 1)]
MM = 12.0  # large voxels: few of them fill a head
ATLAS_AFFINE = np.array([[MM, 0, 0, -60], [0, MM, 0, -90], [0, 0, MM, -45], [0, 0, 0, 1]])
ATLAS_SHAPE = (11, 13, 9)


def write_templates(folder: Path) -> Path:
    """Blocks as parcels: R on a 12 mm grid, R / 2 on each hemisphere's mesh."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y, _ = np.indices(ATLAS_SHAPE)
    labels = np.where(x < 5, 1, np.where(x > 5, 5, 0)) + np.clip(y // 3, 0, 3) * (x != 5)
    labels *= np.pad(np.ones([n - 2 for n in ATLAS_SHAPE], int), 1)  # as in a head: background all round
    nib.save(nib.Nifti1Image(labels.astype(np.int16), ATLAS_AFFINE), folder / "atlas_volume.nii.gz")
    for mesh, n in (("fsLR", 32492), ("fsaverage5", 10242)):
        left = 1 + np.arange(n) * 4 // n
        left[n // 2 - 300 : n // 2 + 300] = 0
        right = np.where(left > 0, left + 4, 0)
        np.savez(folder / f"atlas_{mesh}.npz", left=left.astype(np.int16), right=right.astype(np.int16))
    facts = {
        "label": "Schaefer17n8p",
        "names": NAMES,
        "hemisphere": [0] * 4 + [1] * 4,
        "space": SPACE,
        "files": {},
    }
    (folder / "atlas.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


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
