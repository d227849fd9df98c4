"""`bhx app`: a BIDS App's arguments become a configuration and targets of Snakemake; what cannot be is a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from small_bids import write_json, write_subject

from bhx_prep import cli
from bhx_prep.commands import app
from bhx_prep.config import config

STATUS = "results/ds01/preproc/sub-01_status.json"


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch) -> Path:
    """A raw dataset of two subjects, the second without a T1w image."""
    for label in ("01", "02"):
        write_subject(tmp_path / "ds01", label)
    (tmp_path / "ds01/sub-02/anat/sub-02_T1w.nii.gz").unlink()
    write_json(tmp_path / "ds01/dataset_description.json", Name="x", BIDSVersion="1.10.0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FS_LICENSE", raising=False)
    return tmp_path / "ds01"


@pytest.fixture
def call(dataset: Path, monkeypatch, capsys) -> Callable[..., tuple[int, list[str], str]]:
    """Run the command without Snakemake: exit code, arguments that Snakemake got, log."""

    def run(*words: str, bids: str = "ds01", out: str = "out", ends: int = 0, status: dict | None = None):
        started: list[str] = []

        def pretend(arguments: list[str]) -> int:
            started.extend(arguments)
            if status is not None:
                write_json(Path(STATUS), subject="01", **status)
            return ends

        monkeypatch.setattr(app, "_run", pretend)
        monkeypatch.chdir(dataset.parent)
        code = cli.main(["app", bids, out, *words])
        return (
            code,
            started[started.index("--workflow-profile") + 2 :] if started else [],
            capsys.readouterr().err,
        )

    return run


def test_levels_are_targets_of_the_plan(call, tmp_path: Path):
    assert call("participant")[:2] == (0, ["features", "--cores", "all"])
    assert call("group", "--n-cpus", "3")[:2] == (0, ["cohort_ds01", "--cores", "3"])
    code, arguments, _ = call(
        "participant", "--participant-label", "sub-01", "--", "-n", "-v", "--profile", "slurm"
    )
    assert (code, arguments[0]) == (0, str(tmp_path / "out" / STATUS))
    assert arguments[1:3] == ["-n", "-v"]  # no cores beside a profile
    assert arguments[-1].endswith("profiles/slurm")


def test_arguments_become_a_configuration(call, dataset: Path, tmp_path: Path):
    (dataset / "sub-01/ses-a").mkdir()
    names = tmp_path / "names.txt"
    names.write_text("a\nb\n")
    (tmp_path / "atlas-CC2_space-MNI152NLin6Asym_dseg.nii.gz").write_bytes(b"")
    (tmp_path / "license.txt").write_text("x")
    words = [
        "--participant_label",
        "01",
        "--session-label",
        "ses-a",
        "--task_id",
        "task-rest",
        "movie",
        "--atlas",
    ]
    words += ["atlas-CC2_space-MNI152NLin6Asym_dseg.nii.gz", "--atlas-names", "names.txt", "--cohort", "mine"]
    words += [
        "--backend",
        "fmriprep-apptainer",
        "--fs-license-file",
        "license.txt",
        "--image",
        "f.sif",
        "-w",
        "work",
    ]
    assert call("group", *words)[0] == 0
    made = config.load(tmp_path / "work/config.yaml")
    cohort = made.cohorts["mine"]
    assert (cohort.subjects, cohort.select, cohort.tasks) == (("01",), {"ses": ("a",)}, ("movie", "rest"))
    assert (made.preproc.fs_license, made.preproc.image) == (
        tmp_path / "license.txt",
        str(tmp_path / "f.sif"),
    )
    assert (made.atlas.label, made.features.harmonics) == ("CC2", "none")
    assert made.results == tmp_path / "out/results"
    assert not (tmp_path / "out/config.yaml").exists()


def test_the_licence_may_be_named_by_the_environment(call, tmp_path: Path, monkeypatch):
    (tmp_path / "license.txt").write_text("x")
    monkeypatch.setenv("FS_LICENSE", str(tmp_path / "license.txt"))
    assert call("participant", "--backend", "fmriprep-docker")[0] == 0
    made = yaml.safe_load((tmp_path / "out/config.yaml").read_text())
    assert made["preproc"]["fs_license"] == str(tmp_path / "license.txt")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--participant-label", "09"], "has no sub-09; it has 2 subjects, e.g. sub-01"),
        (["--session-label", "9"], "has no ses-9; it has no sessions"),
        (["--participant-label", "../01"], "is not a BIDS label"),
        (["--participant-label", "02"], "sub-02 has no scan that can be used"),
        (["--backend", "fmriprep-docker"], "asks for FreeSurfer's licence: give --fs-license-file"),
        (["--fs-license-file", "none.txt"], "there is no licence"),
        (["--atlas", "Schaefer17n123p"], "atlas.parcels"),
        (["--atlas", "AAL"], "no such file, and no name as Schaefer17n400p"),
        (["--atlas", "ds01/dataset_description.json"], "--atlas-names: name a file"),
        (["--atlas-names", "names.txt"], "name the image as --atlas"),
        (["--cohort", "My_Study"], "use lower-case letters and digits"),
        (["--n-cpus", "0"], "a number of cores from 1"),
        (["--n-cpus", "2", "--", "-j4"], "none after `--`"),
        (["--task-id", "re/st"], "is not a BIDS label"),
        (["-w", "ds01/work"], "--work-dir"),
    ],
)
def test_arguments_that_cannot_be_used(words: list[str], sentence: str, call):
    code, arguments, log = call("participant", *words)
    assert (code, arguments) == (1, [])
    assert sentence in log


def test_folders_that_cannot_be_used(call, dataset: Path):
    for bids, out, sentence in (
        ("none", "out", "there is no folder"),
        (".", "out", "has no dataset_description.json"),
        ("ds01", "ds01", "lies in the BIDS dataset"),
        ("ds01", "ds01/derivatives/bhx", "lies in the BIDS dataset"),
        ("ds01", ".", "is itself a dataset"),
        ("ds01", "file", "is a file"),
    ):
        (dataset.parent / "file").touch()
        if sentence == "is itself a dataset":
            write_json(dataset.parent / "dataset_description.json", Name="y")
        code, arguments, log = call("group", bids=bids, out=out)
        assert (code, arguments) == (1, []), (bids, out)
        assert sentence in log
    write_json(dataset / "dataset_description.json", Name="x", DatasetType="derivative")
    assert "is a dataset of type derivative" in call("group")[2]
    (dataset / "dataset_description.json").write_text("[")
    assert "is not a JSON object" in call("group")[2]


def test_a_configuration_of_the_users_is_kept(call, tmp_path: Path):
    assert call("group")[0] == 0
    assert call("group", "--cohort", "other")[0] == 0  # its own it may replace
    file = tmp_path / "out/config.yaml"
    edited = file.read_text() + "batch_size: 10\n"
    file.write_text(edited)
    code, _, log = call("group")
    assert code == 1
    assert "or was edited: use `bhx run` there" in log
    assert file.read_text() == edited


def test_a_subject_that_was_named_and_failed_is_an_error(call):
    named = ["participant", "--participant-label", "01"]
    assert call(*named, status={"status": "ok", "reason": None})[0] == 0
    code, _, log = call(*named, status={"status": "failed", "reason": "no brain"})
    assert code == 1
    assert "sub-01: no brain" in log
    assert call(*named, ends=7)[0] == 7


def test_the_version_and_the_levels_are_shown(capsys):
    for words, shown in ((["--version"], "bhx 0."), (["--help"], "analysis levels:")):
        with pytest.raises(SystemExit) as ended:
            cli.main(["app", *words])
        assert ended.value.code == 0
        assert shown in capsys.readouterr().out


@pytest.mark.slow
def test_snakemake_plans_what_is_asked_for(dataset: Path, root: Path):
    words = [
        "app",
        "ds01",
        "out",
        "participant",
        "--participant-label",
        "01",
        "--",
        "-n",
        "--quiet",
        "progress",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "bhx_prep.cli", *words],
        cwd=dataset.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout + done.stderr
    assert "run_embedded" in shown
    assert "extract_features" not in shown
    assert json.loads((dataset.parent / "out/results/config.resolved.json").read_text())["cohorts"]["ds01"]
