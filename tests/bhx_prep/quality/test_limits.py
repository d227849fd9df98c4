"""Limits that exclude a scan: one table, sentences that fit, files that hold the numbers."""

from __future__ import annotations

import json
import logging

import pytest

from bhx_model.errors import LimitError
from bhx_prep.quality import limits, report

GOOD = {
    "t1w": {"brain_volume_ml": 1600.0, "norm_dice": 0.97, "template_correlation": 0.9, "tissue_contrast": 1.0,
            "cut_cm2": 1.0, "missing_share": 0.0},
    "bold": {"coreg_dice": 0.9, "coreg_overlap": 0.95, "coreg_likeness": 0.03},
}  # fmt: skip


@pytest.mark.parametrize("modality", ["t1w", "bold"])
def test_every_number_of_the_table_excludes_alone(modality):
    assert {limit.name for limit in limits.of(modality)} == set(GOOD[modality])
    limits.check(GOOD[modality], modality)
    for limit in limits.of(modality):
        bad = limit.least - 0.001 if limit.least is not None else (limit.most or 0.0) * 1.01
        with pytest.raises(LimitError, match=limit.name) as caught:
            limits.check(GOOD[modality] | {limit.name: bad}, modality)
        assert "limit" in str(caught.value)
        assert len(str(caught.value)) <= 200
        limits.check(GOOD[modality] | {limit.name: None}, modality)  # what is not known excludes nothing
        with pytest.raises(LimitError, match=limit.name):
            limits.check(GOOD[modality] | {limit.name: float("nan")}, modality)


def test_all_failures_fit_into_a_sentence():
    with pytest.raises(LimitError) as caught:
        limits.check(
            dict.fromkeys(GOOD["t1w"], -12345.678) | {"cut_cm2": 123.4, "missing_share": 0.51}, "t1w"
        )
    assert len(str(caught.value)) <= 200
    assert "brain_volume_ml -12346 (limit 750)" in str(caught.value)


def test_numbers_are_written_and_printed_whether_or_not_they_pass(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "sub-01" / "anat" / "sub-01_desc-quality_T1w.json"
    report.judge("sub-01_T1w", GOOD["t1w"], "t1w", path)
    assert json.loads(path.read_text()) == GOOD["t1w"] | {"failed": []}
    assert caplog.messages[-1].startswith("sub-01_T1w: brain_volume_ml 1600, norm_dice 0.97, ")
    assert caplog.messages[-1].endswith(": passes")
    with pytest.raises(
        LimitError, match=r"template_correlation 0.21 \(limit 0.6\): is it a T1w image of a head"
    ):
        report.judge("sub-01_T1w", GOOD["t1w"] | {"template_correlation": 0.21}, "t1w", path)
    assert json.loads(path.read_text())["failed"] == ["template_correlation"]
    assert caplog.messages[-1].endswith(": fails template_correlation")
    with pytest.raises(LimitError, match="norm_dice nan"):
        report.judge("sub-01_T1w", GOOD["t1w"] | {"norm_dice": float("nan")}, "t1w", path)
    written = json.loads(path.read_text())
    assert written["failed"] == ["norm_dice"]
    assert "norm_dice" not in written
    report.judge("sub-01_bold", {"coreg_likeness": None}, "bold")
    assert caplog.messages[-1] == "sub-01_bold: coreg_likeness unknown: passes"


def test_the_documentation_has_the_table(root):
    assert limits.table() in (root / "docs" / "explanation" / "gates.md").read_text(encoding="utf-8")
