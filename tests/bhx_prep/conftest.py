"""Small scans that fit the small atlas, reference datasets unpacked once, shards made of small series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from feature_files import volume as t1w_volume
from feature_files import write_features
from small_bids import unpack
from small_templates import ATLAS_AFFINE, ATLAS_SHAPE, MM, write_templates

from bhx_model.atomic_write import write_json
from bhx_prep.atlas.atlas import Atlas, load_atlas
from bhx_prep.shards import index_json, pack


@pytest.fixture(scope="session")
def templates_folder(tmp_path_factory) -> Path:
    return write_templates(tmp_path_factory.mktemp("templates"))


@pytest.fixture
def atlas(templates_folder) -> Atlas:
    return load_atlas(templates_folder)


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


@pytest.fixture(scope="session")
def bids_examples(shared, tmp_path_factory):
    """Ten reference datasets with empty images."""
    return unpack(shared("data/bids/bids_examples.tar.gz"), tmp_path_factory.mktemp("bids"))


@pytest.fixture(scope="session")
def fmriprep_example(shared, tmp_path_factory):
    """A full tree of fMRIPrep 20 with empty images."""
    folder = unpack(shared("data/fmriprep/ds000001-fmriprep.tar.gz"), tmp_path_factory.mktemp("fmriprep"))
    return folder / "ds000001-fmriprep"


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """Pack and index batches of series; returns the path of index.json."""

    def make(cohort: str, batches: list[dict[str, np.ndarray]], *, n_rois: int = 6, t1w: bool = True) -> Path:
        folder = tmp_path / cohort / "shards"
        for number, series in enumerate(batches):
            subjects = {stem.split("_")[0] for stem in series}
            volumes = {subject: t1w_volume(number) for subject in subjects} if t1w else {}
            features = write_features(tmp_path / cohort / str(number), cohort, series, volumes, n_rois=n_rois)
            pack.pack(cohort, number, features, folder)
        write_json(
            folder / "index.json", index_json.collect(cohort, folder, range(len(batches))), canonical=True
        )
        return folder / "index.json"

    return make
