"""``bhx preproc``: failures are cleared, commands printed, one subject preprocessed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from small_bids import write_image

from bhx_prep import cli
from bhx_prep.preproc import fmriprep, one_subject
from bhx_prep.preproc.arguments import usable_scans
from bhx_prep.preproc.embedded import __main__ as embedded


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
        ("07", "failed", None),
    ):
        text = json.dumps({"status": status, "reason": reason})
        (folder / f"sub-{subject}_status.json").write_text(text)
    (folder / "sub-04_status.json").write_text("{")
    return folder


def left(folder: Path) -> list[str]:
    return sorted(path.name[4:6] for path in folder.iterdir())


def test_retry_clears_all_that_failed_and_says_why_they_had(study, capsys):
    assert cli.main(["preproc", "retry", "abide1", "--dry-run"]) == 0
    assert left(study) == ["01", "02", "03", "04", "07"]
    assert cli.main(["preproc", "retry", "abide1"]) == 0
    assert left(study) == ["01"]
    assert capsys.readouterr().out.splitlines()[4:] == [
        "sub-02: node x crashed",
        "sub-03: y",
        "sub-04: sub-04_status.json cannot be read",
        "sub-07: its status file gives no reason",
    ]


def test_retry_clears_the_subject_that_is_named(study):
    assert cli.main(["preproc", "retry", "abide1", "sub-01"]) == 0
    assert left(study) == ["02", "03", "04", "07"]


def test_retry_clears_subjects_with_a_crashed_run(study, capsys):
    for subject, reason in (("05", "fMRIPrep failed: node x crashed: y"), ("06", "12 frames are too few")):
        status = {"status": "ok", "reason": None, "excluded": [{"file": "a_bold.nii.gz", "reason": reason}]}
        (study / f"sub-{subject}_status.json").write_text(json.dumps(status))
    assert cli.main(["preproc", "retry", "abide1"]) == 0
    assert left(study) == ["01", "06"]
    assert "sub-05: a_bold.nii.gz: fMRIPrep failed: node x crashed: y" in capsys.readouterr().out


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
    assert len(left(study)) == 5


def write_dataset(root: Path) -> Path:
    write_image(root / "sub-01/anat/sub-01_T1w.nii.gz")
    write_image(root / "sub-01/func/sub-01_task-rest_bold.nii.gz", frames=200)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    return root


@pytest.mark.usefixtures("study")
def test_the_command_of_a_subject_is_that_of_its_container(tmp_path, monkeypatch, capsys):
    write_dataset(tmp_path / "raw")
    monkeypatch.setenv("TMPDIR", "/scratch/me")
    Path("config.yaml").write_text(
        "cohorts: {abide1: {input: bids, root: raw}}\n"
        "preproc: {backend: fmriprep-docker, fs_license: license.txt, fmriprep_args: [--fs-no-reconall]}\n"
    )
    assert cli.main(["preproc", "command", "abide1", "01", "--threads", "4", "--mem-mb", "32000"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[1:3] == ["-m", "fmriprep_docker"]
    assert words[3].startswith("/scratch/me/bhx-")
    for option, value in (("--participant-label", "01"), ("--nthreads", "4"), ("--mem-mb", "28000")):
        assert words[words.index(option) + 1] == value
    assert words[-1] == "--fs-no-reconall"
    assert cli.main(["preproc", "command", "abide1", "09"]) == 1
    assert "there is no" in capsys.readouterr().err


@pytest.mark.usefixtures("study")
def test_the_command_of_the_embedded_backend_is_one_that_its_parser_takes(tmp_path, capsys):
    write_dataset(tmp_path / "raw")
    assert cli.main(["preproc", "command", "abide1", "01"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[1:3] == ["-m", "bhx_prep.preproc.embedded"]
    args = embedded._parser().parse_args(words[3:])
    assert (args.subject, args.cohort, args.preproc["backend"]) == ("01", "abide1", "embedded")


def test_one_subject_is_preprocessed_without_a_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "raw")
    (tmp_path / "license.txt").write_text("nobody")
    started = []
    monkeypatch.setattr(one_subject.fmriprep, "main", lambda words: started.append(words) or 0)
    words = ["--bids", "raw", "--subject", "sub-01", "--out", "out", "--backend", "fmriprep-docker"]
    words += ["--fs-license", "license.txt", "--fmriprep-args=--fs-no-reconall --dummy-scans 4"]
    assert cli.main(["preproc", "run", *words]) == 0
    args = fmriprep._parser().parse_args(started[0])
    assert (args.subject, args.mem_mb, args.threads) == ("01", 24000, 8)
    assert args.preproc["fmriprep_args"] == ["--fs-no-reconall", "--dummy-scans", "4"]
    assert args.preproc["output_spaces"]
    scans = usable_scans(args.scans, args.root, "01")
    assert [scan.path.name for scan in scans] == ["sub-01_task-rest_bold.nii.gz", "sub-01_T1w.nii.gz"]
    assert all(scan.path.is_relative_to(tmp_path / "raw") for scan in scans)


def test_a_subject_whose_runs_are_all_left_out_did_not_go_well(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bold = write_dataset(tmp_path / "raw") / "sub-01/func/sub-01_task-rest_bold.nii.gz"
    write_image(bold, frames=200, zooms=(1, 1, 1))  # as of a converter that lost them
    monkeypatch.setattr(one_subject, "_run_embedded", lambda words: 0)
    assert cli.main(["preproc", "run", "--bids", "raw", "--subject", "01", "--out", "out"]) == 1
    said = capsys.readouterr().err
    assert "give the true ones as VoxelSizes in the sidecar" in said
    assert "no run was preprocessed, the T1w image alone" in said


@pytest.mark.parametrize("code", [0, 1])
def test_a_subject_without_runs_ends_as_its_t1w_image_does(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "raw/sub-01/anat/sub-01_T1w.nii.gz")
    monkeypatch.setattr(one_subject, "_run_embedded", lambda words: code)
    assert cli.main(["preproc", "run", "--bids", "raw", "--subject", "01", "--out", "out"]) == code
    assert "sub-01 is left out: no BOLD run of task rest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (["--fmriprep-args=--use-aroma", "--backend", "fmriprep-docker"], "no option --use-aroma"),
        (["--fmriprep-args=--x 'a", "--backend", "fmriprep-docker"], "a quotation mark is not closed"),
        (["--backend", "fmriprep"], "preproc.backend"),
        (["--tasks", "nback"], "sub-02 has no usable scan"),
    ],
)
def test_one_subject_that_cannot_be_preprocessed_is_a_sentence(tmp_path, monkeypatch, capsys, words, meaning):
    monkeypatch.chdir(tmp_path)
    root = write_dataset(tmp_path / "raw")
    write_image(root / "sub-02/func/sub-02_task-rest_bold.nii.gz", frames=200)
    assert cli.main(["preproc", "run", "--bids", "raw", "--subject", "02", "--out", "out", *words]) == 1
    assert meaning in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "words", [["--threads", "0"], ["--threads", "-1"], ["--mem-mb", "0"], ["--mem-mb", "8GB"]]
)
def test_a_job_without_threads_or_memory_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        cli.main(["preproc", "run", "--bids", "raw", "--subject", "02", "--out", "out", *words])
    assert "expected a whole number of 1 or more" in capsys.readouterr().err
