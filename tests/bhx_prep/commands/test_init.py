"""`bhx init`: a study's folder that works, and nothing of the user's in it is touched."""

from __future__ import annotations

from pathlib import Path

import skeleton
import yaml

from bhx_prep import cli
from bhx_prep.config.config import check


def test_a_study_has_what_snakemake_looks_for(tmp_path: Path, capsys):
    study = tmp_path / "my study"
    assert cli.main(["init", str(study)]) == 0
    assert "next: cd" in capsys.readouterr().err
    check(yaml.safe_load((study / "config.yaml").read_text()))
    assert (study / "slurm/config.v8+.yaml").is_file()
    assert (study / "profiles/default/config.v8+.yaml").is_file()
    assert (study / "workflow/schemas/config.schema.json").is_file()
    about = (study / "README.md").read_text()
    assert "# my study" in about
    assert "`.snakemake/` | how results were made: keep" in about  # without it no change is seen


def test_its_snakefile_plans_what_the_installed_one_does(tmp_path: Path):
    described = skeleton.build(Path(__file__).parents[2] / "skeletons/timeseries-two-tr.yml", tmp_path)
    assert cli.main(["-q", "init", str(tmp_path)]) == 0
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == described["config"]
    planned = skeleton.snakemake_server.run(tmp_path, ["-n"])
    assert planned.returncode == 0, planned.stdout + planned.stderr
    jobs = skeleton.job_counts(planned.stdout)
    jobs["all"] = jobs.pop("study")
    assert jobs == described["jobs"]


def test_what_is_there_stays(tmp_path: Path, capsys):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "slurm").symlink_to("nowhere")
    assert cli.main(["init", str(tmp_path)]) == 0
    assert "README.md exists and is not changed" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / "slurm").readlink() == Path("nowhere")
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert cli.main(["init", str(tmp_path)]) == 0
    assert "made nothing" in capsys.readouterr().err
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_file_of_that_name_is_a_sentence(tmp_path: Path, capsys):
    (tmp_path / "s").touch()
    assert cli.main(["init", str(tmp_path / "s")]) == 1
    assert "is a file: name a folder" in capsys.readouterr().err
