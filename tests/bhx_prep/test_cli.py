"""Every command of ``bhx`` explains itself, and a user's mistake is a sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bhx_model.command_line import CommandParser
from bhx_prep.cli import COMMANDS, main
from bhx_prep.commands import doctor


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"example: bhx {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        *(["config", action] for action in ("defaults", "schema", "reference", "presets", "check", "write")),
        *(["shards", action] for action in ("pack", "index", "verify", "ls", "cat")),
        ["export", "timeseries"],
    ],
    ids=" ".join,
)
def test_help_of_an_action_has_an_example(words: list[str], capsys):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    assert f"example: bhx {' '.join(words)}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "words", [["-q", "config", "check"], ["config", "-q", "check"], ["config", "check", "-q"]]
)
def test_the_log_is_on_stderr_and_as_long_as_asked_for(words: list[str], tmp_path: Path, capsys):
    (tmp_path / "data").mkdir()
    file = tmp_path / "config.yaml"
    file.write_text(f"cohorts: {{a: {{input: bids, root: {tmp_path}/data}}}}\n")
    assert main(["config", "check", str(file)]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"INFO {file} is valid" in shown.err
    assert main([*words, str(file)]) == 0
    assert capsys.readouterr() == ("", "")


def test_methods_that_no_experiment_gives_are_named(tmp_path: Path, capsys):
    for label in range(10, 30):
        (tmp_path / f"a/sub-{label}/func").mkdir(parents=True)
    ages = "".join(f"sub-{label}\t{label}\n" for label in range(10, 30))
    (tmp_path / "a/participants.tsv").write_text(f"participant_id\tage\n{ages}")
    file = tmp_path / "config.yaml"
    file.write_text(
        f"cohorts: {{a: {{input: timeseries, root: {tmp_path}/a}}}}\n"
        "experiments: {e: {cohorts: [a], preset: tiny, stages: [function]}}\n"
        "endpoints: {x: {cohort: a, column: age, kind: regression, pretraining_overlap: mark}}\n"
    )
    assert main(["config", "check", str(file)]) == 0
    assert (
        "no experiment trains the stage fusion, so that probe, hub_tokens, finetune give no rows"
        in capsys.readouterr().err
    )
    file.write_text(file.read_text().replace("stages: [function]", "seed: 1"))
    assert main(["config", "check", str(file)]) == 0
    assert "give no rows" not in capsys.readouterr().err


def test_help_keeps_acronyms(capsys):
    with pytest.raises(SystemExit):
        main(["config", "schema", "--help"])
    assert "Print the JSON schema, for editors." in capsys.readouterr().out


def test_unknown_command_is_named(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["idnex"])
    assert ended.value.code == 2
    assert "idnex" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["init", ""], ["export", "timeseries", "abide1", "--out", ""]], ids=["word", "option"]
)
def test_an_empty_path_is_refused(words: list[str], capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert "the path is empty: is a variable of the shell not set?" in capsys.readouterr().err


def test_paths_of_options_name_the_home_folder(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = CommandParser()
    parser.add_argument("--out", type=Path)
    assert parser.parse_args(["--out=~/a b"]).out == tmp_path / "a b"
    with pytest.raises(SystemExit):
        parser.parse_args(["--out=~nobodyatall/x"])
    assert "there is no home folder for ~nobodyatall" in capsys.readouterr().err


def test_doctor_names_what_is_missing_and_the_cure(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text(
        "cohorts: {a: {input: bids, root: /nowhere}}\n"
        "preproc: {backend: fmriprep-apptainer, fs_license: /nowhere/license.txt}\n"
    )
    missing = {f.what: f.fix for f in doctor.examine(file) if f.level == "missing"}
    assert any("FreeSurfer licence" in what for what in missing)
    assert any("cohort a: no folder /nowhere" in what for what in missing)
    assert all(missing.values())


def test_doctor_looks_at_what_nodes_without_network_need(tmp_path: Path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/singularity").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def found(image: str) -> dict[str, str]:
        file = tmp_path / "config.yaml"
        preproc = {"backend": "fmriprep-apptainer", "image": image}
        file.write_text(json.dumps({"cohorts": {"a": {"input": "bids", "root": "a"}}, "preproc": preproc}))
        return {f.what: f.level for f in doctor.examine(file)}

    image = tmp_path / "fmriprep.sif"
    assert found(str(image))[f"preproc.image: no file {image}"] == "missing"
    image.touch()
    assert found(str(image))[f"preproc.image: {image} is empty"] == "missing"
    image.write_text("SIF")
    assert found(str(image)).items() >= {f"image {image}": "ok", "singularity is in PATH": "ok"}.items()
    assert (
        found("nipreps/fmriprep")["preproc.image nipreps/fmriprep is no file: every job will fetch it"]
        == "note"
    )


def test_doctor_reports_a_broken_configuration(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("cohort: {}\n")
    assert any("did you mean 'cohorts'" in f.what for f in doctor.examine(file) if f.level == "missing")


def test_planning_imports_nothing_heavy():
    code = "import sys, bhx_prep.study, bhx_prep.step_versions; print([m for m in HEAVY if m in sys.modules])"
    code = f"HEAVY = ['torch', 'nibabel', 'nilearn', 'scipy', 'sklearn', 'matplotlib', 'bids2table']; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_packages_do_not_import_each_other(root: Path):
    code = (
        "import sys, bhx_model, bhx_model.contract; print('torch' in sys.modules, 'bhx_prep' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    for path in (root / "bhx_model").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) bhx_prep\b", path.read_text(), flags=re.MULTILINE), path
    for path in (root / "workflow/bhx_prep").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) torch\b", path.read_text(), flags=re.MULTILINE), path
