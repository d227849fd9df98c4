"""A scan that somebody decided to keep fails no limit, and its file says which it would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bhx_model.errors import LimitError
from bhx_prep.preproc.embedded.raw_files import RawFiles, Scan
from bhx_prep.quality import limits, report


def test_what_is_kept_passes_and_its_file_says_what_it_fails(tmp_path):
    name = limits.of("t1w")[1].name
    limit = limits.limit("t1w", name)
    assert limit.least is not None
    numbers = {name: limit.least - 0.1}
    with pytest.raises(LimitError):
        report.judge("x", numbers, "t1w", tmp_path / "x.json")
    report.judge("x", numbers, "t1w", tmp_path / "x.json", keep=True)
    assert json.loads((tmp_path / "x.json").read_text())["failed"] == [name]


def test_scans_are_kept_by_the_names_of_their_files():
    names = ("sub-01_T1w.nii.gz", "sub-01_task-rest_run-1_bold.nii.gz", "sub-01_task-rest_run-2_bold.nii.gz")
    scans = [Scan(Path("raw") / name, {"sub": "01"}, {}, (1.0, 1.0, 1.0)) for name in names]
    files = RawFiles("01", scans[:1], scans[1:])
    files.keep([names[2]])
    assert [scan.keep for scan in (*files.anats, *files.runs)] == [False, False, True]
