"""What dcm2niix leaves: sidecars in any encoding, and whose fault it is where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhx_model.errors import DataError, SiteError
from bhx_prep.dicom import convert


def stand_in(tmp_path: Path, monkeypatch, writes: str) -> Path:
    """A dcm2niix that writes an image and a sidecar; the empty work folder comes back."""
    program, work = tmp_path / "dcm2niix", tmp_path / "work"
    program.write_text(f'#!/bin/sh\ncd "${{10}}" || exit 2\n{writes}\n')
    program.chmod(0o755)
    monkeypatch.setattr(convert, "program", lambda: str(program))
    work.mkdir()
    return work


def test_texts_of_any_encoding_are_no_obstacle(tmp_path: Path, monkeypatch):
    says = (
        """: > image.nii; printf '{"EchoTime": 0.03, "InstitutionName": "M\\374nchen\\001"}' > image.json"""
    )
    work = stand_in(tmp_path, monkeypatch, says)
    (image,) = convert.convert([], work)
    assert image.sidecar["EchoTime"] == 0.03


@pytest.mark.parametrize(
    ("writes", "said"),
    [(""": > image.nii; echo '{"SAR": nan, ' > image.json""", "no JSON"), ("exit 1", "makes no image")],
)
def test_a_full_disk_is_not_the_series_fault(tmp_path: Path, monkeypatch, writes, said):
    work = stand_in(tmp_path, monkeypatch, writes)
    with pytest.raises(DataError, match=said) as error:
        convert.convert([], work)
    assert type(error.value) is DataError
    monkeypatch.setattr(convert, "full_disk", lambda folders: "the disk is full")
    for left in sorted(work.rglob("*"), reverse=True):
        left.rmdir() if left.is_dir() else left.unlink()
    with pytest.raises(SiteError, match="the disk is full"):
        convert.convert([], work)
