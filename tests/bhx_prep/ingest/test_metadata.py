"""Headers read without their images are the headers that nibabel reads."""

from __future__ import annotations

import gzip
import struct
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.openers import Opener

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata, repetition_time


def same(path):
    image: Any = nib.load(path)
    expected, found = image.header, metadata.read_header(path)
    assert type(found) is {540: nib.Nifti2Header}.get(int(expected["sizeof_hdr"]), nib.Nifti1Header)
    for look in ("get_data_shape", "get_zooms", "get_xyzt_units", "get_data_dtype"):
        assert getattr(found, look)() == getattr(expected, look)()


@pytest.mark.parametrize("name", ["feeds_bold", "ds003_bold_tiny", "colin27_T1w", "Siemens_Rest_fMRI_AP_7"])
def test_real_headers(shared, name):
    same(shared(f"data/images/{name}.nii.gz"))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_both_versions_and_byte_orders(tmp_path, kind, endianness, ending):
    image = kind(np.zeros((3, 4, 5, 6), np.int16), np.diag([2, 3, 4, 1]))
    image.header.set_xyzt_units("mm", "msec")
    swapped = kind(np.zeros((3, 4, 5, 6), np.int16), None, image.header.as_byteswapped(endianness))
    swapped.to_filename(tmp_path / f"x{ending}")
    start = Opener(tmp_path / f"x{ending}").read(4)
    assert struct.unpack(f"{endianness}i", start)[0] == kind.header_class.sizeof_hdr
    same(tmp_path / f"x{ending}")


def test_the_sidecar_overrides_the_voxel_sizes(shared):
    header = metadata.read_header(shared("data/images/feeds_bold.nii.gz"))
    with pytest.raises(ValueError, match="cannot hold a brain"):
        metadata.voxel_sizes({}, header)
    assert metadata.voxel_sizes({"VoxelSizes": [4, 4, 6]}, header) == (4.0, 4.0, 6.0)
    # a header that lost its sizes has lost the repetition time too
    assert repetition_time.choose({"RepetitionTime": 3.0, "VoxelSizes": [4, 4, 6]}, 1.0) == (3.0, None)


def test_units_of_length_are_minded():
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.diag([0.05, 0.05, 0.05, 1]))
    image.header.set_xyzt_units("meter", "sec")
    assert metadata.voxel_sizes({}, image.header) == pytest.approx((50.0, 50.0, 50.0))


def test_what_is_no_header_is_refused_in_silence(tmp_path, caplog):
    path = tmp_path / "rubbish.nii.gz"
    path.write_bytes(gzip.compress(b"no header " * 100))
    with pytest.raises(DataError, match="not a readable NIfTI image"):
        metadata.read_header(path)
    assert caplog.records == []
