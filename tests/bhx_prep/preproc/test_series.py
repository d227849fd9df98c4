"""Raw runs that lack a head in some of their frames, and runs on disk frame by frame."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bhx_model.errors import DataError
from bhx_prep.preproc.embedded.frames import Frames, FrameWriter
from bhx_prep.preproc.embedded.series import check_series

SHAPE = (8, 9, 6, 24)
AFFINE = np.array([[-3.0, 0, 0, 9], [0, 3, 0, -12], [0, 0, 4, 5], [0, 0, 0, 1]])


@pytest.fixture
def head():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 3, SHAPE)
    values[2:6, 2:7, 1:5] += 500
    return values.astype(np.float32)


def _judge(values, path, suffix=".nii.gz"):
    nib.Nifti1Image(values, AFFINE).to_filename(path / f"run{suffix}")
    check_series(nib.load(path / f"run{suffix}", keep_file_open=True))


def test_real_runs_pass(head, tmp_path):
    head[..., 0] *= 3  # not steady yet
    head[3, 3, 3, 7] = 9e4  # a spike
    head[:, :, 2, 9] = 0  # a slice that one frame lacks
    _judge(head, tmp_path)
    head[0] = np.nan  # background
    _judge(head, tmp_path, ".nii")


CASES = {
    "NaN frames": (lambda v: v.__setitem__((..., [3, 9]), np.nan), "2 of 24 frames have NaN"),
    "infinite voxel": (lambda v: v.__setitem__((3, 3, 3, 5), np.inf), "1 of 24 frames have NaN"),
    "only NaN": (lambda v: v.__setitem__(..., np.nan), "24 of 24 frames have NaN"),
    "second half zero": (lambda v: v.__setitem__((..., slice(12, None)), 0), r"12 of 24 frames are empty \(first: 12\)"),
    "nine tenths zero": (lambda v: v.__setitem__((..., slice(2, None)), 0), "22 of 24 frames are empty"),
    "an empty frame": (lambda v: v.__setitem__((..., 4), 7), r"1 of 24 frames are empty \(first: 4\)"),
    "half noise": (lambda v: v.__setitem__((..., slice(12, None)), v[..., 12:] % 3), "12 of 24 frames are empty"),
    "slices end": (lambda v: v[:, :, 3:, 12:].fill(0), "12 of 24 frames have empty slices"),
    "frozen": (lambda v: v.__setitem__((..., slice(12, None)), v[..., 11:12]), "12 of 24 frames repeat"),
    "demeaned": (lambda v: v.__isub__(v.mean(axis=3, keepdims=True)), "negative or centred on zero"),
    "negative": (lambda v: v.__imul__(-1), "negative or centred on zero"),
    "overflown": (lambda v: v.__isub__(65536 * (v > 400)), "did whole numbers overflow"),
    "all the same": (lambda v: v.__setitem__(..., 3), "all voxels are the same"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_runs_with_frames_that_hold_nothing_are_refused(name, head, tmp_path):
    change, words = CASES[name]
    change(head)
    with pytest.raises(DataError, match=words):
        _judge(head, tmp_path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_run_that_is_cut_in_the_middle_is_refused(suffix, head, tmp_path):
    path = tmp_path / f"run{suffix}"
    nib.Nifti1Image(head, AFFINE).to_filename(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="damaged or cut short"):
        check_series(nib.load(path, keep_file_open=True))


def test_frames_and_slabs_are_what_was_written(head, tmp_path, monkeypatch):
    monkeypatch.setattr("bhx_prep.preproc.embedded.frames.PART_BYTES", 4 * 8 * 9 * 24 * 4)  # four slices
    with FrameWriter(tmp_path / "a.nii", AFFINE, SHAPE) as writer:
        for t in range(SHAPE[3]):
            writer.append(head[..., t])
    frames = Frames(tmp_path / "a.nii")
    assert len(frames) == SHAPE[3]
    np.testing.assert_array_equal(np.stack(list(frames), axis=3), head)
    with FrameWriter(tmp_path / "b.nii", AFFINE, SHAPE) as writer:
        slabs = [
            (where.start, where.stop) for where, slab in frames.slabs() if writer.put(where, slab) is None
        ]
    assert slabs == [(0, 4), (4, 6)]
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()
    image = nib.load(tmp_path / "b.nii")
    np.testing.assert_array_equal(np.asarray(image.dataobj), head)
    np.testing.assert_allclose(image.affine, AFFINE)


def test_packed_runs_keep_their_values_and_are_equal_for_equal_values(head, tmp_path):
    for name in ("a", "b"):
        limits = float(head.min()), float(head.max())
        with FrameWriter(
            tmp_path / f"{name}.nii.gz", AFFINE, SHAPE, tr_s=2.0, code=4, limits=limits
        ) as writer:
            for t in range(SHAPE[3]):
                writer.append(head[..., t])
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert image.header.get_zooms()[3] == 2.0
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 4
    step = (head.max() - head.min()) / 65534
    assert np.abs(image.get_fdata() - head).max() <= 0.51 * step
