"""Raw files of a subject: what a header or values do not tell is refused or said; a subject keeps what can be used."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bhx_model.errors import DataError
from bhx_prep.preproc.arguments import UsableScan
from bhx_prep.preproc.embedded.raw_files import RawFiles, find

AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])
SHAPE = (30, 36, 30)


def head() -> np.ndarray:
    place = np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(SHAPE) / 2
    return np.where(np.linalg.norm(place, axis=-1) < 11, 100.0, 2.0) + np.indices(SHAPE)[0] / 30


def write(path: Path, values: np.ndarray, **header: object) -> Path:
    """An image whose header has these fields, whatever nibabel would write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values.astype(np.float32), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    for name, value in header.items():
        image.header[name] = value
    with path.open("wb") as file:
        file.write(image.header.binaryblock + bytes(4) + values.astype(np.float32).tobytes(order="F"))
    return path


def found(
    root: Path, bold: np.ndarray | None = None, values: np.ndarray | None = None, **fields: object
) -> RawFiles:
    t1w = write(
        root / "sub-01/anat/sub-01_T1w.nii", head() if values is None else values, vox_offset=352, **fields
    )
    scans = [UsableScan(t1w, None, None)]
    if bold is not None:
        path = write(root / "sub-01/func/sub-01_task-rest_bold.nii", bold, vox_offset=352)
        scans.append(UsableScan(path, 2.0, None))
    return find(root, "01", scans)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"srow_x": [-6, 0, 0, 0]}, "sform and qform exchange left and right"),
        ({"srow_x": [0, 6, 0, 0]}, "axes without length or in one plane"),
        ({"srow_x": [0, 0, 0, 0]}, "axes without length or in one plane"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "axes without length or in one plane"),
        ({"values": np.full(SHAPE, 7)}, "all voxels are the same"),
        ({"values": np.full(SHAPE, np.nan)}, "all voxels are the same"),
        ({"values": -head()}, "negative or centred on zero"),
        ({"values": np.where(head() > 50, 30, -1000)}, "negative or centred on zero"),  # as CT
    ],
)
def test_a_t1w_image_that_cannot_be_one_is_refused(tmp_path, fields, words):
    with pytest.raises(DataError, match=words) as refused:
        found(tmp_path, **fields)
    assert len(str(refused.value).partition(".nii: ")[2]) <= 200


def test_what_a_header_does_not_state_is_a_note(tmp_path):
    assert found(tmp_path / "a").anats[0].notes == ()
    assert found(tmp_path / "b", srow_x=[6, 0.1, 0, 5], srow_y=[-0.1, 6, 0, 9]).anats[0].notes == ()
    (note,) = found(tmp_path / "c", sform_code=0, qform_code=0).anats[0].notes
    assert note.startswith("orientation assumed: ")


@pytest.mark.parametrize(
    ("rows", "forms"),
    [
        (
            {"srow_x": [6, 1, 0, 5], "srow_y": [-1, 6, 0, 9]},
            "sform (RAS) and qform (RAS) differ by 9 degrees",
        ),
        (
            {"srow_y": [0, 0, -6, 9], "srow_z": [0, 6, 0, 9]},
            "sform (RSP) and qform (RAS) differ by 90 degrees",
        ),
        (
            {"srow_x": [-6, 0, 0, 5], "srow_y": [0, -6, 0, 9]},
            "sform (LPS) and qform (RAS) differ by 180 degrees",
        ),
    ],
)
def test_forms_that_turn_the_head_against_each_other_are_a_note(tmp_path, rows, forms):
    (note,) = found(tmp_path, **rows).anats[0].notes
    assert note == f"orientation assumed: the header's {forms}, sform was used"


def test_a_compressed_image_with_another_checksum_is_damaged(tmp_path):
    packed = gzip.compress(write(tmp_path / "T1w.nii", head(), vox_offset=352).read_bytes())
    path = tmp_path / "sub-01/anat/sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(packed)
    assert len(find(tmp_path, "01", [UsableScan(path)]).anats) == 1
    path.write_bytes(packed + b"what follows is ignored")
    assert len(find(tmp_path, "01", [UsableScan(path)]).anats) == 1
    flipped = bytes([packed[-8] ^ 1])
    path.write_bytes(packed[:-8] + flipped + packed[-7:])
    with pytest.raises(DataError, match=r"the image is damaged or cut short \(BadGzipFile\)"):
        find(tmp_path, "01", [UsableScan(path)])


def test_a_subject_whose_run_cannot_be_used_keeps_its_t1w_image(tmp_path):
    files = found(tmp_path, bold=np.zeros((*SHAPE, 12)))
    assert (len(files.anats), len(files.runs), files.asked) == (1, 0, 1)
    assert files.excluded == [
        {"file": "sub-01_task-rest_bold.nii", "reason": "the image is empty: all voxels are the same"}
    ]


def test_a_run_that_may_be_corrected_already_is_not_corrected_twice(tmp_path):
    bold = np.stack([head() + n for n in range(12)], axis=-1)
    (tmp_path / "sub-01/func").mkdir(parents=True)
    (tmp_path / "sub-01/func/sub-01_task-rest_bold.json").write_text('{"SliceTimingCorrected": "true"}')
    files = found(tmp_path, bold)
    assert files.runs == []
    assert (
        files.excluded[0]["reason"] == "SliceTimingCorrected in the sidecar is 'true': expected true or false"
    )
