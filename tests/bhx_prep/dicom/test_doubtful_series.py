"""Series that would convert, and are not what their rule says: lost slices, shared UIDs, computed and phase images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydicom", reason="pip install 'bhx[dicom]'")

import numpy as np
import pydicom
from dicom_files import Visit, ge_bold, philips_bold, siemens_bold, t1w
from dicom_study import write_map
from small_disk import mounted

from bhx_prep.dicom import series

VISIT = Visit()
ANY_BOLD = {"description": "*", "suffix": "bold", "task": "rest"}
ANY_T1W = {"description": "*", "suffix": "T1w"}


def edit(files: list[Path], change: Callable[[Any], None]) -> None:
    """Change headers of files."""
    for file in files:
        header = pydicom.dcmread(file)
        change(header)
        header.save_as(file)


def test_slices_that_the_last_volume_lacks_are_missing(study, ingest):
    write_map(study, [ANY_BOLD])
    for file in ge_bold(study / "dicom", VISIT)[-2:]:
        file.unlink()
    code, rows, _ = ingest()
    assert (code, rows[0]["outcome"]) == (1, "failed")
    assert rows[0]["reason"].startswith("2 of its images are missing: export it again")


@pytest.mark.parametrize(
    ("frames", "lost"),
    [
        ([4, 4, 4], 0),
        ([4, 4, 3], 1),
        ([4, 4, 1], 3),
        ([12], 0),  # a head
        ([1, 1, 1], 0),  # mosaics
    ],
)
def test_slices_of_volumes_are_counted(frames: list[int], lost: int):
    places = [("", "", "", "", "30", f"0, 0, {n}", "M", "") for slices in frames for n in range(slices)]
    assert series.lacking(places) == lost


def test_volumes_that_follow_the_head_lack_nothing():
    places = [("", "", "", "", "30", f"0, 0, {n + t // 3}", "M", "") for t in range(6) for n in range(4)]
    assert series.lacking(places) == 0


def test_images_that_share_a_uid_are_not_taken_for_copies(study, ingest):
    files = t1w(study / "dicom", VISIT)
    first = pydicom.dcmread(files[0]).SOPInstanceUID
    edit(files[-3:], lambda header: setattr(header, "SOPInstanceUID", first))
    code, rows, _ = ingest()
    assert (code, rows[0]["outcome"]) == (1, "failed")
    assert rows[0]["reason"] == "3 of its files have the SOPInstanceUID of another image: export it again"


def test_copies_of_files_are_read_once(study, ingest):
    files = t1w(study / "dicom", VISIT)
    for file in files[:4]:
        (study / "dicom" / f"copy-{file.name}").write_bytes(file.read_bytes())
    code, rows, log = ingest()
    assert (code, rows[0]["images"]) == (0, str(len(files))), log


def test_files_without_uids_are_not_one_image(study, ingest):
    edit(t1w(study / "dicom", VISIT), lambda header: delattr(header, "SOPInstanceUID"))
    code, rows, _ = ingest()
    assert (code, rows[0]["reason"]) == (1, "its files have no SOPInstanceUID: export it again")


def test_what_the_scanner_computed_has_to_be_asked_for(study, ingest):
    def reformatted(header: Any) -> None:
        header.ImageType = ["DERIVED", "SECONDARY", "MPR"]

    edit(t1w(study / "dicom", VISIT), reformatted)
    code, rows, _ = ingest()
    assert (code, rows[0]["outcome"]) == (1, "failed")
    assert rows[0]["reason"].startswith("its ImageType is DERIVED, MPR: computed of another series?")
    write_map(study, [{**ANY_T1W, "image_type": "DERIVED"}])
    assert ingest()[0] == 0


@pytest.mark.parametrize(
    ("build", "kind", "rule", "said"),
    [
        (siemens_bold, ["P", "ND", "MOSAIC"], ANY_BOLD, "it is a phase image, and a bold is a magnitude"),
        (t1w, ["P", "ND"], ANY_T1W, "it is a phase image, and a T1w is a magnitude"),
        (
            t1w,
            ["M", "ND"],
            {"description": "*", "suffix": "phasediff"},
            "it is a magnitude, and a phasediff is a phase",
        ),
    ],
)
def test_phase_images_are_no_magnitudes(
    build, kind: list[str], rule: dict[str, str], said: str, study, ingest
):
    def change(header: Any) -> None:
        header.ImageType = ["ORIGINAL", "PRIMARY", *kind]

    write_map(study, [rule])
    edit(build(study / "dicom", VISIT), change)
    code, rows, _ = ingest()
    assert (code, rows[0]["outcome"]) == (1, "failed")
    assert rows[0]["reason"].startswith(said)


@pytest.mark.parametrize(("small", "size"), [("temporary", "200k"), ("temporary", "560k"), ("bids", "100k")])
def test_the_disk_that_is_full_is_named(small: str, size: str, study, ingest, monkeypatch):
    with mounted(study / small, size):
        (study / "temporary").mkdir(exist_ok=True)
        monkeypatch.setattr("tempfile.tempdir", str(study / "temporary"))
        image = np.random.default_rng(0).integers(0, 3000, (60, 64, 64)).astype(np.uint16)
        t1w(study / "dicom", VISIT, image=image)
        code, _, log = ingest()
        assert code == 1
        assert f"the disk is full at {study / small}" in log
        assert not list((study / "bids").rglob("*.nii.gz"))


def _without_frames(file: Path, lost: list[int]) -> None:
    """Take frames out of an enhanced file, as an export that lost slices does."""
    header = pydicom.dcmread(file)
    kept = [n for n in range(int(header.NumberOfFrames)) if n not in lost]
    pixels = header.pixel_array[kept]
    header.PerFrameFunctionalGroupsSequence = [header.PerFrameFunctionalGroupsSequence[n] for n in kept]
    header.NumberOfFrames = len(kept)
    header.PixelData = pixels.tobytes()
    header.save_as(file)


@pytest.mark.parametrize("lost", [[14, 15], [5], [15], [0, 1]])
def test_slices_that_an_enhanced_file_lacks_are_missing(study, ingest, lost):
    write_map(study, [ANY_BOLD])
    (file,) = philips_bold(study / "dicom", VISIT)
    _without_frames(file, lost)
    code, rows, log = ingest()
    assert (code, rows[0]["outcome"]) == (1, "failed"), log
    assert rows[0]["reason"].startswith(f"{len(lost)} of its images are missing: export it again")


def test_a_slice_that_every_volume_of_an_enhanced_file_lacks_is_missing(study, ingest):
    write_map(study, [ANY_BOLD])
    (file,) = philips_bold(study / "dicom", VISIT)
    _without_frames(file, [1, 5, 9, 13])
    _, rows, log = ingest()
    assert rows[0]["reason"].startswith("1 of its images are missing: export it again"), log
