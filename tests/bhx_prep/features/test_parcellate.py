"""Parcel means: equal to nilearn's, and a sentence for whatever cannot be parcellated."""

from __future__ import annotations

import gzip
import struct
import warnings
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from small_templates import ATLAS_AFFINE, ATLAS_SHAPE, N_ROIS

from bhx_prep.atlas.atlas import load_atlas
from bhx_prep.features import parcellate
from bhx_prep.features.parcellate_cifti import parcellate_cifti
from bhx_prep.io import cifti
from bhx_prep.io.meshes import FSAVERAGE5_VERTICES, FSLR_VERTICES


def nilearn_means(path, labels_image, mask_image=None):
    from nilearn.maskers import NiftiLabelsMasker

    # nilearn collects garbage seven times a call, which takes longer than all else in a process that holds much
    with warnings.catch_warnings(), mock.patch("gc.collect"):
        warnings.simplefilter("ignore")
        masker = NiftiLabelsMasker(
            labels_image, mask_img=mask_image, standardize=None, reports=False, resampling_target="data"
        )
        return masker.fit_transform(str(path)).T


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(np.float32, None), (np.float64, None), (np.int16, (0.25, 3.0)), (">f4", None), (np.uint8, None)],
)
@pytest.mark.parametrize("name", ["bold.nii.gz", "bold.nii"])
def test_equal_to_nilearn(volume, atlas, dtype, scale, name):
    data = None if dtype != np.uint8 else np.random.default_rng(1).integers(50, 250, (*ATLAS_SHAPE, 20))
    path, _, _ = volume(dtype=dtype, scale=scale, name=name, data=data)
    found = parcellate.parcellate_file(path, atlas)
    expected = nilearn_means(path, str(atlas.folder / "atlas_volume.nii.gz"))
    assert found.series.dtype == np.float32
    np.testing.assert_allclose(found.series, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.coverage, 1)


@pytest.mark.parametrize("mm", [5.3, 9.0, 16.0])
def test_equal_to_nilearn_on_another_grid_with_a_mask(volume, atlas, tmp_path, mm):
    path, data, affine = volume(mm=mm)
    mask = np.random.default_rng(2).random(data.shape[:3]) < 0.7
    mask_path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), mask_path)
    found = parcellate.parcellate_file(path, atlas, mask=mask_path, min_coverage=0)
    expected = nilearn_means(path, str(atlas.folder / "atlas_volume.nii.gz"), str(mask_path))
    np.testing.assert_allclose(found.series, expected, rtol=1e-5)
    labels, _ = atlas.on_grid(data.shape[:3], affine)
    labels = labels.reshape(data.shape[:3], order="F")
    expected_coverage = ndimage.mean(mask, labels, range(1, N_ROIS + 1))
    np.testing.assert_allclose(found.coverage, expected_coverage, rtol=1e-6)


def test_real_bold(shared, atlas):
    """A real run of small voxels that lies off the atlas, moved onto it."""
    image = nib.load(shared("data/images/ds003_bold_tiny.nii.gz"))
    moved = nib.Nifti1Image(
        np.asarray(image.dataobj), np.diag([9.0, 10.0, 13.0, 1]) + ATLAS_AFFINE * [0, 0, 0, 1]
    )
    moved.affine[3, 3] = 1
    path = atlas.folder.parent / "real.nii.gz"
    nib.save(moved, path)
    found = parcellate.parcellate_file(path, atlas, min_coverage=0)
    assert (np.ptp(np.asarray(moved.dataobj), axis=3) > 0).all()  # voxels without signal would not count here
    expected = nilearn_means(path, str(atlas.folder / "atlas_volume.nii.gz"))
    np.testing.assert_allclose(found.series, expected, rtol=1e-5)


def test_voxels_without_signal_count_neither_in_mean_nor_coverage(volume, atlas, rng):
    data = (1000 + 50 * rng.standard_normal((*ATLAS_SHAPE, 12))).astype(np.float32)
    labels, _ = atlas.volume()
    half = (labels == 3) & (rng.random(ATLAS_SHAPE) < 0.3)
    data[half] = 0
    constant = (labels == 4) & (rng.random(ATLAS_SHAPE) < 0.4)
    data[constant] = 777
    slab = (labels == 5) & (np.indices(ATLAS_SHAPE)[2] < 3)
    data[slab] = np.nan
    sometimes = (labels == 6) & (rng.random(ATLAS_SHAPE) < 0.3)
    data[sometimes, 4] = np.inf
    data[sometimes, 0] = np.nan
    flickering = (labels == 4) & ~constant & (rng.random(ATLAS_SHAPE) < 0.3)
    data[flickering] = 5.0  # constant where finite: no signal either
    data[flickering, ::3] = np.nan
    path, _, _ = volume(data=data)
    found = parcellate.parcellate_file(path, atlas, min_coverage=0)
    clean = data.astype(np.float64)
    clean[~np.isfinite(clean)] = np.nan
    clean[half | constant | slab | flickering] = np.nan
    for roi in range(N_ROIS):
        rows = clean[labels == roi + 1]
        np.testing.assert_allclose(found.series[roi], np.nanmean(rows, axis=0), rtol=1e-6)
        assert found.coverage[roi] == pytest.approx(np.isfinite(rows).any(axis=1).mean(), abs=1e-6)
    half_covered = parcellate.parcellate_file(path, atlas, min_coverage=0.75)
    low = found.coverage < 0.75
    assert low.any()
    assert np.isnan(half_covered.series[low]).all()
    np.testing.assert_array_equal(half_covered.series[~low], found.series[~low])


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), holes=st.floats(0, 0.6), frames=st.integers(2, 9))
def test_any_pattern_of_holes(tmp_path_factory, templates_folder, seed, holes, frames):
    rng = np.random.default_rng(seed)
    atlas = load_atlas(templates_folder)
    data = rng.normal(500, 40, (*ATLAS_SHAPE, frames))
    data[rng.random(data.shape) < holes] = np.nan
    path = tmp_path_factory.mktemp("holes") / "b.nii"
    nib.save(nib.Nifti1Image(data, ATLAS_AFFINE), path)
    found = parcellate.parcellate_volume(path, atlas)
    labels, _ = atlas.volume()
    alive = np.isfinite(data).sum(axis=3) >= 2
    for roi in range(N_ROIS):
        rows = data[(labels == roi + 1) & alive]
        np.testing.assert_allclose(found.series[roi], np.nanmean(rows, axis=0), rtol=1e-6)


def test_field_of_view_that_cuts_a_parcel_lowers_its_coverage(volume, atlas):
    shape = (*ATLAS_SHAPE[:2], 5)
    path, _, _ = volume(data=np.random.default_rng(0).normal(size=(*shape, 6)))
    found = parcellate.parcellate_file(path, atlas)
    np.testing.assert_allclose(found.coverage, 4 / 7, rtol=1e-6)  # four of seven slices are in view


def damaged(path, how):
    raw = path.read_bytes()
    if how == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "length":
        path.write_bytes(raw[:-4] + struct.pack("<I", 12345))
    elif how == "checksum":
        path.write_bytes(raw[:-8] + b"\0\0\0\1" + raw[-4:])
    elif how == "short":
        path.write_bytes(gzip.compress(gzip.decompress(raw)[:-1000]))
    elif how == "text":
        path.write_text("<html>not found</html>")
    elif how == "empty":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize("how", ["truncated", "length", "checksum", "short", "text", "empty"])
def test_damaged_files_are_sentences(volume, atlas, how):
    path, _, _ = volume()
    with pytest.raises(ValueError, match=r"bold\.nii\.gz .*(truncated|damaged|no readable image)"):
        parcellate.parcellate_file(damaged(path, how), atlas)


def test_other_things_are_sentences(volume, atlas, tmp_path):
    shape = (*ATLAS_SHAPE, 5)
    cases = {
        "3d.nii.gz": (np.ones(shape[:3]), np.float32, "1 frame"),
        "one.nii.gz": (np.ones((*shape[:3], 1)), np.float32, "1 frame"),
        "complex.nii.gz": (np.ones(shape), np.complex64, "complex"),
        "zero.nii.gz": (np.zeros(shape), np.float32, "no signal"),
        "nan.nii.gz": (np.full(shape, np.nan), np.float32, "no signal"),
        "constant.nii.gz": (np.full(shape, 7), np.int16, "no signal"),
    }
    for name, (data, dtype, message) in cases.items():
        path, _, _ = volume(data=data, dtype=dtype, name=name)
        with pytest.raises(ValueError, match=message):
            parcellate.parcellate_file(path, atlas)
    rgb = np.zeros(shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, ATLAS_AFFINE), tmp_path / "rgb.nii.gz")
    with pytest.raises(ValueError, match="RGB"):
        parcellate.parcellate_file(tmp_path / "rgb.nii.gz", atlas)
    data = np.random.default_rng(0).normal(size=shape)
    data[..., 2] = np.nan
    with pytest.raises(ValueError, match=r"frame 2 .* no finite value"):
        parcellate.parcellate_file(volume(data=data, name="gap.nii.gz")[0], atlas)
    data[..., 2] = 0
    with pytest.raises(ValueError, match=r"frame 2 .* the same value in every parcel"):
        parcellate.parcellate_file(volume(data=data, name="blank.nii.gz")[0], atlas)
    far = ATLAS_AFFINE.copy()
    far[:3, 3] += 300
    with pytest.raises(ValueError, match="only 0 of the atlas's 8 parcels"):
        parcellate.parcellate_file(volume(affine=far, name="far.nii.gz")[0], atlas)
    with pytest.raises(ValueError, match="is in MNI152NLin6Asym, the atlas in MNI152NLin2009cAsym"):
        parcellate.parcellate_file(volume(name="s_space-MNI152NLin6Asym_bold.nii.gz")[0], atlas)
    path, _, affine = volume()
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), affine), tmp_path / "m.nii.gz")
    with pytest.raises(ValueError, match="another grid"):
        parcellate.parcellate_file(path, atlas, mask=tmp_path / "m.nii.gz")
    for how in ("truncated", "length"):
        nib.save(nib.Nifti1Image(np.ones(shape[:3], np.uint8), affine), tmp_path / "m.nii.gz")
        with pytest.raises(ValueError, match=r"^m\.nii\.gz .*(truncated|damaged|no readable image)"):
            parcellate.parcellate_file(path, atlas, mask=damaged(tmp_path / "m.nii.gz", how))
    (tmp_path / "b.mat").write_bytes(b"x")
    with pytest.raises(ValueError, match="neither NIfTI"):
        parcellate.parcellate_file(tmp_path / "b.mat", atlas)


# --- surfaces and CIFTI -----------------------------------------------------------------------------------------


def surface_means(values, labels):
    return np.stack(
        [values[labels == r].mean(axis=0, dtype=np.float64) for r in np.unique(labels[labels > 0])]
    )


@pytest.fixture
def pair(tmp_path, rng):
    def write(n=FSAVERAGE5_VERTICES, frames=6, n_right=None, frames_right=None):
        paths, arrays = [], []
        for hemi, v, t in (("L", n, frames), ("R", n_right or n, frames_right or frames)):
            values = rng.normal(10, 1, (v, t)).astype(np.float32)
            image = nib.GiftiImage(darrays=[nib.gifti.GiftiDataArray(values[:, i]) for i in range(t)])
            path = tmp_path / f"hemi-{hemi}_bold.func.gii"
            nib.save(image, path)
            paths.append(path)
            arrays.append(values)
        return paths, arrays

    return write


def test_gifti_pair(pair, atlas):
    (left, right), (a, b) = pair()
    found = parcellate.parcellate_file(left, atlas, path_right=right)
    labels = atlas.surface("fsaverage5")
    np.testing.assert_allclose(found.series[:4], surface_means(a, labels[0]), rtol=1e-6)
    np.testing.assert_allclose(found.series[4:], surface_means(b, labels[1]), rtol=1e-6)
    np.testing.assert_array_equal(found.coverage, 1)


def test_mgh_pair_with_holes(tmp_path, atlas, rng):
    labels = atlas.surface("fsaverage5")
    paths, arrays = [], []
    for hemi in "lr":
        values = rng.normal(0, 1, (FSAVERAGE5_VERTICES, 5)).astype(np.float32)
        values[:400] = 0
        values[3000:3010, 2] = np.nan
        path = tmp_path / f"{hemi}h.mgz"
        nib.save(nib.freesurfer.MGHImage(values.reshape(FSAVERAGE5_VERTICES, 1, 1, 5), np.eye(4)), path)
        paths.append(path)
        arrays.append(values)
    found = parcellate.parcellate_file(paths[0], atlas, path_right=paths[1])
    for values, its, offset in zip(arrays, labels, (0, 4), strict=True):
        for r in range(4):
            rows = values[its == offset + r + 1].astype(np.float64)
            alive = np.nanmax(rows, axis=1) > np.nanmin(rows, axis=1)
            np.testing.assert_allclose(found.series[offset + r], np.nanmean(rows[alive], axis=0), rtol=1e-5)
            assert found.coverage[offset + r] == pytest.approx(alive.mean(), abs=1e-6)


def test_surfaces_that_do_not_fit_are_sentences(pair, atlas):
    (left, right), _ = pair(n=2562)
    with pytest.raises(ValueError, match="2562 and 2562 vertices"):
        parcellate.parcellate_file(left, atlas, path_right=right)
    (left, right), _ = pair(n_right=FSLR_VERTICES)
    with pytest.raises(ValueError, match="10242 and 32492 vertices"):
        parcellate.parcellate_file(left, atlas, path_right=right)
    (left, right), _ = pair(frames_right=5)
    with pytest.raises(ValueError, match="6 frames left, 5 right"):
        parcellate.parcellate_file(left, atlas, path_right=right)
    with pytest.raises(ValueError, match="right hemisphere is missing"):
        parcellate.parcellate_file(left, atlas)
    left.write_text("<GIFTI></nonsense>")
    with pytest.raises(ValueError, match="no readable image"):
        parcellate.parcellate_file(left, atlas, path_right=right)


@pytest.fixture
def dtseries(tmp_path, rng):
    """Dense series on the cortex of fsLR-32k without its medial wall, and a subcortical voxel structure."""

    def write(frames=7, name="run.dtseries.nii", nvertices=FSLR_VERTICES, dtype=np.float32):
        vertices = [np.setdiff1d(np.arange(nvertices), np.arange(15000, 17000)), np.arange(100, nvertices)]
        models = [
            nib.cifti2.BrainModelAxis.from_surface(v, nvertices, "CortexLeft" if i == 0 else "CortexRight")
            for i, v in enumerate(vertices)
        ]
        voxels = np.zeros((4, 4, 4), bool)
        voxels[1:3, 1:3, 1:3] = True
        models.append(nib.cifti2.BrainModelAxis.from_mask(voxels, affine=np.eye(4), name="thalamus_left"))
        axis = models[0] + models[1] + models[2]
        values = rng.normal(100, 5, (frames, len(axis))).astype(dtype)
        header = nib.cifti2.Cifti2Header.from_axes((nib.cifti2.SeriesAxis(0, 0.72, frames), axis))
        path = tmp_path / name
        nib.Cifti2Image(values, header).to_filename(path)
        return path, values, vertices

    return write


def test_cifti_dense_series(dtseries, atlas):
    path, values, vertices = dtseries()
    found = parcellate.parcellate_file(path, atlas)
    labels = atlas.surface("fsLR")
    start = 0
    for its, v, offset in zip(labels, vertices, (0, 4), strict=True):
        for r in range(4):
            wanted = its[v] == offset + r + 1
            expected = values[:, start : start + len(v)][:, wanted].mean(axis=1, dtype=np.float64)
            np.testing.assert_allclose(found.series[offset + r], expected, rtol=1e-6)
            present = wanted.sum() / (its == offset + r + 1).sum()
            assert found.coverage[offset + r] == pytest.approx(present, abs=1e-6)
        start += len(v)
    axes, _ = cifti.read_series(path)
    assert (axes.n_frames, axes.tr_s) == (7, pytest.approx(0.72))


def test_cifti_header_is_parsed_once(dtseries, atlas, monkeypatch):
    first, *_ = dtseries(frames=9, name="a.dtseries.nii")
    second, *_ = dtseries(frames=9, name="b.dtseries.nii")
    one = parcellate.parcellate_file(first, atlas)
    monkeypatch.setattr(cifti.ElementTree, "fromstring", lambda _: pytest.fail("parsed again"))
    other = parcellate.parcellate_file(second, atlas)
    np.testing.assert_array_equal(one.coverage, other.coverage)


def test_damaged_cifti_is_a_sentence(dtseries, atlas):
    path, *_ = dtseries()
    raw = path.read_bytes()
    path.write_bytes(raw[:-100])
    with pytest.raises(ValueError, match="100 bytes too short"):
        parcellate.parcellate_file(path, atlas)
    path.write_bytes(raw[:300])
    with pytest.raises(ValueError, match="no CIFTI-2"):
        parcellate.parcellate_file(path, atlas)
    path.write_bytes(raw.replace(b"<CIFTI", b"<<IFTI", 1))
    with pytest.raises(ValueError, match="no XML"):
        parcellate.parcellate_file(path, atlas)
    small, *_ = dtseries(nvertices=32000, name="small.dtseries.nii")
    with pytest.raises(ValueError, match="mesh of 32000 vertices"):
        parcellate.parcellate_file(small, atlas)


def test_grayordinates_with_swapped_hemispheres_are_refused(tmp_path, atlas, monkeypatch):
    left, right = cifti.CORTEX
    parts = (
        cifti.Surface(left, 0, np.arange(29716), 32492),
        cifti.Surface(right, 29716, np.arange(29696), 32492),
    )
    rows = np.random.default_rng(0).standard_normal((29716 + 29696, 3)).astype("f4")
    swapped = cifti.Axes(3, 0.8, parts, (), None, (), {})
    monkeypatch.setattr(cifti, "read_series", lambda _path: (swapped, rows))
    with pytest.raises(ValueError, match="the hemispheres are swapped"):
        parcellate_cifti(tmp_path / "x.dtseries.nii", atlas)
