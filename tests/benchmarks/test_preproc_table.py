"""The table of the preprocessing's benchmark: a crash affects no other row, and the parts about BOLD are included."""

from __future__ import annotations

import json
from pathlib import Path

import preproc
import pytest

GOOD = {"name": "a", "origin": "x", "mask_origin": "y", "dice": 0.97, "outside_ml": 2.0, "vertex_mm": -1.0}
GOOD |= {"upper_grey_percent": 1.0, "cpu_s": 100.0, "peak_gb": 1.4}
MOTION = {
    "part": "motion",
    "motion_rms_mm": 0.02,
    "goals": {"motion_rms_mm": 0.1},
    "reached": {"motion_rms_mm": True},
}


@pytest.mark.parametrize(
    ("heads", "parts", "code"),
    [
        (["a"], ([MOTION], True), 0),
        (["broken", "a"], ([MOTION], True), 1),
        (["absent", "a"], ([MOTION], True), 0),
        (["a"], ([MOTION], False), 1),
        (["a"], ([{**MOTION, "reached": {"motion_rms_mm": False}}], True), 1),
    ],
)
def test_a_crash_costs_one_row(heads, parts, code, tmp_path: Path, monkeypatch, capsys):
    def of_head(name: str, *_: object) -> dict | None:
        if name == "broken":
            raise preproc.Crashed("broken: no such luck")
        return {**GOOD, "name": name} if name != "absent" else None

    monkeypatch.setattr(preproc, "of_head", of_head)
    monkeypatch.setattr(preproc, "of_bold", lambda *_: parts)
    monkeypatch.setattr(preproc, "make_templates", lambda folder: folder.mkdir(parents=True))
    words = ["--heads", *heads, "--planted", str(tmp_path / "none"), "--work", str(tmp_path / "work")]
    assert preproc.main(words) == code
    said = capsys.readouterr()
    assert "| a | 0.970 | 2.0 | -1 | 1.0 | 100 | 1.4 |" in said.out
    assert "| motion | motion_rms_mm |" in said.out
    assert ("no such luck" in said.err) == ("broken" in heads)
    assert [row["name"] for row in json.loads((tmp_path / "work/rows.json").read_text())] == ["a"]
