"""``bhx preproc``: failures are cleared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bhx_prep import cli


@pytest.fixture
def study(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(
        "cohorts: {abide1: {input: bids, root: raw}, tables: {input: timeseries, root: tables}}\n"
    )
    folder = Path("results/abide1/preproc")
    folder.mkdir(parents=True)
    for subject, status, reason in (
        ("01", "ok", None),
        ("02", "failed", "node x crashed"),
        ("03", "failed", "y"),
    ):
        text = json.dumps({"status": status, "reason": reason})
        (folder / f"sub-{subject}_status.json").write_text(text)
    (folder / "sub-04_status.json").write_text("{")
    return folder


def left(folder: Path) -> list[str]:
    return sorted(path.name[4:6] for path in folder.iterdir())


def test_retry_clears_all_that_failed_and_says_why_they_had(study, capsys):
    assert cli.main(["preproc", "retry", "abide1", "--dry-run"]) == 0
    assert left(study) == ["01", "02", "03", "04"]
    assert cli.main(["preproc", "retry", "abide1"]) == 0
    assert left(study) == ["01"]
    assert capsys.readouterr().out.splitlines()[3:] == [
        "sub-02: node x crashed",
        "sub-03: y",
        "sub-04: sub-04_status.json cannot be read",
    ]


def test_retry_clears_the_subject_that_is_named(study):
    assert cli.main(["preproc", "retry", "abide1", "sub-01"]) == 0
    assert left(study) == ["02", "03", "04"]


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (["abide1", "05"], "nothing is booked to sub-05"),
        (["abide9"], "no cohort 'abide9'"),
        (["tables"], "its `input` is timeseries"),
        (["abide1", "../01"], "letters and digits"),
    ],
)
@pytest.mark.usefixtures("study")
def test_what_cannot_be_cleared_is_a_sentence(words, meaning, capsys):
    assert cli.main(["preproc", "retry", *words]) == 1
    assert meaning in capsys.readouterr().err


def test_retry_waits_for_snakemake(study, capsys):
    Path(".snakemake/locks").mkdir(parents=True)
    Path(".snakemake/locks/0.input.lock").touch()
    assert cli.main(["preproc", "retry", "abide1"]) == 1
    assert "Snakemake works in this folder" in capsys.readouterr().err
    assert len(left(study)) == 4
