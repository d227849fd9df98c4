"""Work folders of preprocessing: private, found again, never shared by two studies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bhx_prep.preproc.work_folder import open_work_folder


def test_the_next_attempt_finds_it_and_nobody_else_reads_it(tmp_path: Path):
    folder = open_work_folder(tmp_path, "abide1", "01", tmp_path / "a")
    (folder / "step").touch()
    assert (open_work_folder(tmp_path, "abide1", "01", tmp_path / "a") / "step").exists()
    assert folder.stat().st_mode & 0o077 == 0


def test_two_studies_on_one_scratch_disk_never_meet(tmp_path: Path):
    others = [("abide1", "01", "b"), ("abide2", "01", "a"), ("abide1", "02", "a")]
    first = open_work_folder(tmp_path, "abide1", "01", tmp_path / "a")
    assert first not in [open_work_folder(tmp_path, c, s, tmp_path / out) for c, s, out in others]


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch):
    open_work_folder(tmp_path, "abide1", "01", tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(OSError, match="belongs to somebody else"):
        open_work_folder(tmp_path, "abide1", "01", tmp_path)


def test_a_link_put_in_its_place_is_refused(tmp_path: Path):
    folder = open_work_folder(tmp_path, "abide1", "01", tmp_path)
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="belongs to somebody else"):
        open_work_folder(tmp_path, "abide1", "01", tmp_path)
