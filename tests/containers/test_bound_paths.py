"""What a container sees: the same by `fmriprep-docker` and by Apptainer's command line, and nothing that may not be."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from container_engine import HERE, STAND_IN

pytestmark = pytest.mark.usefixtures("with_fmriprep")


@pytest.fixture
def apptainer(tmp_path: Path, monkeypatch) -> str:
    """Apptainer, or a stand-in for its command line, in PATH; an image file comes back."""
    if shutil.which("apptainer"):
        pytest.skip("Apptainer is here: its images are no names of podman's")
    tool = tmp_path / "tools/apptainer"
    tool.parent.mkdir()
    tool.write_text(f"#!{sys.executable}\n{(HERE / 'stand_in_apptainer.py').read_text()}")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    (tmp_path / "fmriprep.sif").write_text(STAND_IN)
    return str(tmp_path / "fmriprep.sif")


@pytest.fixture
def named(tmp_path: Path) -> tuple[str, ...]:
    """Arguments that name paths."""
    for name in ("filter.json", "config.toml", "plugin.yml"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "old").mkdir()
    return (
        *("--bids-filter-file", str(tmp_path / "filter.json"), f"--config-file={tmp_path / 'config.toml'}"),
        *("-d", f"smriprep={tmp_path / 'old'}", "--fs-subjects-dir", str(tmp_path / "fs")),
        *("--nipype-plugin-file", str(tmp_path / "plugin.yml")),
    )


@pytest.mark.parametrize("backend", ["fmriprep-docker", "fmriprep-apptainer"])
def test_every_path_among_the_arguments_is_there(job, named, apptainer, tmp_path, backend):
    image = STAND_IN if backend == "fmriprep-docker" else apptainer
    job("02", STAND_IN)  # another person's raw data lie beside
    (tmp_path / "preproc/sees.json").unlink()
    end = job("01", image, backend=backend, fmriprep_args=named)
    assert (end.code, end.status and end.status["status"]) == (0, "ok"), end.log
    seen = json.loads((tmp_path / "preproc/sees.json").read_text())
    assert seen["absent"] == []
    assert seen["subjects"] == ["sub-01"]
    assert (seen["templates"], seen["autoupdate"]) == (True, "off")
    options = dict(pairwise(seen["words"]))
    written = {seen["words"][1], options.get("--work-dir", options.get("-w")), options["--fs-subjects-dir"]}
    assert set(seen["writable"]) == written
    assert (tmp_path / "fs").is_dir()


def test_folders_that_vanish_and_images_to_fetch_are_faults_of_the_site(
    job, apptainer, tmp_path, monkeypatch
):
    end = job("01", "docker://nipreps/fmriprep:25.2.7", backend="fmriprep-apptainer")
    assert (end.code, end.status) == (1, None)
    assert "cannot be opened or fetched: apptainer pull it on a machine with network" in end.said
    Path(apptainer).unlink()
    end = job("01", apptainer, backend="fmriprep-apptainer")
    assert (end.code, end.status) == (1, None)
    assert f"preproc.image: there is no file {apptainer}" in end.said


@pytest.mark.parametrize(("label", "status"), [("registration", "failed"), ("program", None)])
def test_faults_are_told_apart_as_with_docker(job, apptainer, label, status):
    end = job(label, apptainer, backend="fmriprep-apptainer")
    assert (end.status and end.status["status"]) == status, end.log
