"""Files of every kind with bytes changed, lost or added: a `DataError` or a series, never another exception."""

from __future__ import annotations

import gzip
import json
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from small_templates import ATLAS_AFFINE, ATLAS_SHAPE, N_ROIS, NAMES

from bhx_model.errors import DataError
from bhx_prep.features import confounds, parcellate, t1w, timeseries
from bhx_prep.io.meshes import FSAVERAGE5_VERTICES, FSLR_VERTICES
from bhx_prep.io.stated_axes import StatedAxes

#: Ways to damage each kind of file.
N_DAMAGES = 40
FRAMES = 4
GRID = t1w.model_grid(20.0, (8, 9, 8))


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A small valid file of every kind."""
    folder, rng = tmp_path_factory.mktemp("intact"), np.random.default_rng(4)
    series = 100 + rng.standard_normal((N_ROIS, FRAMES))
    bold = (100 + rng.standard_normal((*ATLAS_SHAPE, FRAMES))).astype(np.int16)
    for name in ("bold.nii.gz", "bold.nii"):
        nib.save(nib.Nifti1Image(bold, ATLAS_AFFINE), folder / name)
    nib.save(nib.Nifti2Image(bold, ATLAS_AFFINE), folder / "second.nii")
    mask = nib.Nifti1Image(np.ones(ATLAS_SHAPE, np.uint8), ATLAS_AFFINE)
    nib.save(mask, folder / "mask.nii.gz")
    affine = np.diag([5.0, 5, 5, 1])
    affine[:3, 3] = -100, -120, -90
    place = np.indices((40, 48, 42)).T @ affine[:3, :3] + affine[:3, 3]
    brain = np.where((((place - (0, -20, 12)) / (66, 85, 68)) ** 2).sum(-1) <= 1, place.sum(-1) + 500, 0).T
    nib.save(nib.Nifti1Image(brain.astype(np.int16), affine), folder / "t1w.nii.gz")
    nib.save(nib.Nifti1Image(brain.astype(np.int16), affine), folder / "t1w.nii")
    vertices = np.tile(np.arange(FRAMES, dtype=np.float32), (FSAVERAGE5_VERTICES, 1))
    vertices += np.arange(FSAVERAGE5_VERTICES)[:, None] % 7
    for below in ("", "right"):
        (folder / below).mkdir(exist_ok=True)
        vertices = vertices + (below == "right")
        arrays = [nib.gifti.GiftiDataArray(vertices[:, i]) for i in range(FRAMES)]
        nib.save(nib.GiftiImage(darrays=arrays), folder / below / "bold.func.gii")
        image = nib.freesurfer.MGHImage(vertices.reshape(-1, 1, 1, FRAMES), np.eye(4))
        nib.save(image, folder / below / "bold.mgz")
    sides = [
        nib.cifti2.BrainModelAxis.from_surface(
            np.arange(5, FSLR_VERTICES, 200), FSLR_VERTICES, f"Cortex{side}"
        )
        for side in ("Left", "Right")
    ]
    voxels = nib.cifti2.BrainModelAxis.from_mask(np.ones((2, 2, 2), bool), "thalamus_left", np.eye(4))
    rows = sides[0] + sides[1] + voxels
    dense = rng.standard_normal((FRAMES, len(rows))).astype(np.float32)
    nib.Cifti2Image(dense, (nib.cifti2.SeriesAxis(0, 2, FRAMES), rows)).to_filename(folder / "b.dtseries.nii")
    parcels = nib.cifti2.ParcelsAxis.from_brain_models([(name, sides[0]) for name in NAMES])
    nib.Cifti2Image(series.T.astype(np.float32), (nib.cifti2.SeriesAxis(0, 2, FRAMES), parcels)).to_filename(
        folder / "s.ptseries.nii"
    )
    table = pd.DataFrame(series.T, columns=NAMES)
    table.to_csv(folder / "s.csv", index=False)
    table.to_csv(folder / "s.tsv", index=False, sep="\t")
    table.to_csv(folder / "s.csv.gz", index=False)
    table.to_parquet(folder / "s.parquet")
    np.save(folder / "s.npy", series)
    columns = {f"a_comp_cor_{i:02d}": rng.standard_normal(30) for i in range(4)}
    columns |= {"framewise_displacement": [np.nan, *rng.random(29)], "csf": rng.standard_normal(30)}
    pd.DataFrame(columns).to_csv(folder / "c.tsv", sep="\t", na_rep="n/a", index=False)
    masks = {f"a_comp_cor_{i:02d}": {"Mask": "WM" if i < 2 else "CSF"} for i in range(4)}
    (folder / "c.json").write_text(json.dumps(masks))
    return folder


AXES = StatedAxes(None, tuple(NAMES), "names.txt")
STRATEGY = confounds.Strategy(name="n", prose="", citation=(), columns=("csf",), acompcor=2, censor_fd_mm=0.9)
KINDS = {
    name: lambda path, _folder, atlas: parcellate.parcellate_file(path, atlas)
    for name in ("bold.nii.gz", "bold.nii", "second.nii", "b.dtseries.nii")
}
KINDS |= {
    name: lambda path, folder, atlas: parcellate.parcellate_file(
        path, atlas, path_right=folder / "right" / path.name
    )
    for name in ("bold.func.gii", "bold.mgz")
}
KINDS |= {
    "mask.nii.gz": lambda path, folder, atlas: parcellate.parcellate_file(
        folder / "bold.nii", atlas, mask=path
    ),
    "t1w.nii.gz": lambda path, _folder, _atlas: t1w.conform(path, GRID),
    "t1w.nii": lambda path, folder, _atlas: t1w.conform(folder / path.name, GRID, path),
    "c.tsv": lambda path, folder, _atlas: (
        path.with_suffix(".json").write_bytes((folder / "c.json").read_bytes()),
        confounds.select(STRATEGY, path, 30),
    ),
    "c.json": lambda path, folder, _atlas: (
        path.with_suffix(".tsv").write_bytes((folder / "c.tsv").read_bytes()),
        confounds.select(STRATEGY, path.with_suffix(".tsv"), 30),
    ),
}
KINDS |= {
    name: lambda path, _folder, atlas: timeseries.read_series(path, atlas, AXES)
    for name in ("s.csv", "s.tsv", "s.csv.gz", "s.parquet", "s.npy", "s.ptseries.nii")
}

#: Values at which parsers trip: extremes of integers, NaN and infinity, text where a number stands.
_BAD = (
    b"\x00",
    b"\xff",
    b"\x7f\xff",
    b"\xff\x7f",
    b"\x80",
    b"\x00\x00\xc0\x7f",
    b"\x00\x00\x80\x7f",
    b"-9",
    b"<",
    b'"',
    b"nan",
)


def damage(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change, lose or add bytes, in the header rather than behind it."""
    out = bytearray(raw)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, max(1, min(len(out), 600 if rng.random() < 0.7 else len(out)))))
        how = rng.integers(0, 5)
        if how == 0:
            out[at : at + 1] = bytes([rng.integers(0, 256)])
        elif how == 1:
            bad = _BAD[rng.integers(len(_BAD))]
            out[at : at + len(bad)] = bad
        elif how == 2:
            del out[at : at + int(rng.integers(1, 40))]
        elif how == 3:
            out[at:at] = bytes(out[at : at + int(rng.integers(1, 40))])
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_an_error_of_the_data_or_a_series(intact, atlas, tmp_path, name):
    read, path = KINDS[name], tmp_path / name
    raw = (intact / name).read_bytes()
    path.write_bytes(raw)
    read(path, intact, atlas)  # intact, it is a series
    refused = 0
    for seed in range(N_DAMAGES):
        rng = np.random.default_rng(seed)
        if name.endswith("gz") and seed % 2:  # what is compressed is damaged, the archive is whole
            content = gzip.compress(damage(gzip.decompress(raw), rng), compresslevel=1)
        else:
            content = damage(raw, rng)
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(path, intact, atlas)
            except DataError:
                refused += 1
            except BaseException as error:
                raise AssertionError(f"{name}, seed {seed}: {error!r}") from error
    assert refused > 0
