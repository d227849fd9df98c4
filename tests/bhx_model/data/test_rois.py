"""ROI metadata: reading and checking rois.npz."""

from __future__ import annotations

import numpy as np
import pytest

from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import DataError


def test_rois_npz_is_read_and_checked(tmp_path, make_rois):
    rois = make_rois()
    path = tmp_path / "rois.npz"
    arrays = {
        "atlas": np.array(rois.atlas), "names": np.array(rois.names), "hemisphere": rois.hemisphere,
        "harmonics": rois.harmonics, "eigenvalues": rois.eigenvalues, "gradients": rois.gradients,
        "median": rois.median, "iqr": rois.iqr,
    }  # fmt: skip
    np.savez(path, **arrays)
    read = RoiMetadata.load(path)
    assert read.names == rois.names
    assert read.roi_sha256 == rois.roi_sha256
    np.testing.assert_array_equal(read.gradients, rois.gradients)
    faults = {
        "iqr": (np.zeros(7, np.float32), "roi-0 is not positive"),
        "median": (rois.median[:-1], "median is .6,., 7 ROI names need .7,."),
        "gradients": (rois.gradients * np.nan, "gradients holds values that are not finite"),
        "hemisphere": (rois.hemisphere + 5, "0 .left., 1 .right. or -1 .not known."),
        "names": (np.array(["a"] * 7), "must be distinct"),
    }
    for name, (value, message) in faults.items():
        np.savez(path, **{**arrays, name: value})
        with pytest.raises(DataError, match=message):
            RoiMetadata.load(path)
    np.savez(path, **{k: v for k, v in arrays.items() if k != "iqr"})
    with pytest.raises(DataError, match="iqr missing"):
        RoiMetadata.load(path)
    whole = path.read_bytes()
    for content in (whole[:500], b"text", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"is no \.npz of plain arrays, or a broken one: rebuild it"):
            RoiMetadata.load(path)
    for name, value in (
        ("names", np.array([{}])),
        ("iqr", np.array(["a"] * 7)),
        ("harmonics", np.array(1.0)),
    ):
        np.savez(path, **{**arrays, name: value})
        with pytest.raises(DataError, match=r"rebuild"):
            RoiMetadata.load(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"is no \.npz of plain arrays"):
        RoiMetadata.load(tmp_path / "one.npy")


def test_another_roi_order_is_refused(make_rois):
    rois = make_rois()
    rois.check_order(list(rois.names))
    with pytest.raises(DataError, match="6 ROIs, but the model knows 7"):
        rois.check_order(rois.names[:-1])
    swapped = [rois.names[1], rois.names[0], *rois.names[2:]]
    with pytest.raises(DataError, match="row 0 is 'roi-1', the model's is 'roi-0'"):
        rois.check_order(swapped)
