"""What tests of real containers share: an engine for all of them, and a job on a small dataset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from settings_files import settings_file

sys.path.insert(0, str(Path(__file__).parent))

import container_engine

from bhx_prep.config.fmriprep_parser import fmriprep_python
from bhx_prep.config.preproc import PreprocSection
from bhx_prep.preproc import fmriprep, template_files

#: Set by `tests/containers/run`: a machine that can run containers then has to.
REQUIRED = "BHX_CONTAINERS_REQUIRED"
SPACES = ("MNI152NLin2009cAsym:res-2", "MNI152NLin2009cAsym")


@pytest.fixture(scope="session")
def engine() -> Iterator[Path]:
    """Folder with a `docker` that starts real containers, and the images."""
    if (reason := container_engine.why_not()) is not None:
        pytest.skip(reason)
    try:
        with container_engine.running() as tools:
            yield tools
    except RuntimeError as error:
        if os.environ.get(REQUIRED):
            raise
        pytest.skip(str(error))


@pytest.fixture
def docker(engine: Path, monkeypatch) -> Path:
    """`docker` in PATH."""
    monkeypatch.setenv("PATH", f"{engine}{os.pathsep}{os.environ['PATH']}")
    return engine


@pytest.fixture
def with_fmriprep(docker: Path) -> Path:
    """`docker` in PATH, with fMRIPrep to mount."""
    if fmriprep_python() is None:
        pytest.skip("no fMRIPrep here (BHX_FMRIPREP_PYTHON): tests/containers/run")
    return docker


@pytest.fixture(scope="session")
def templates(tmp_path_factory) -> Path:
    """TemplateFlow's home with stand-ins for the files that fMRIPrep needs, and no content of any other."""
    home = tmp_path_factory.mktemp("templateflow")
    template_files.fetch(home, [])
    for arguments in ((), ("--cifti-output",)):
        section = PreprocSection(output_spaces=SPACES, fmriprep_args=arguments).model_dump(mode="json")
        for name in template_files.needed(section):
            if name.endswith(".nii.gz"):
                nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)).to_filename(home / name)
            else:
                (home / name).write_text("a stand-in")
    return home


@dataclass
class End:
    """How a job ended: its exit code, the status file or None, its log, and what it said."""

    code: int
    status: dict | None
    log: str
    said: str


@pytest.fixture
def job(tmp_path: Path, templates: Path, capsys):
    """Preprocess a subject of a small dataset; how it ended comes back."""
    raw = tmp_path / "raw"
    (tmp_path / "license.txt").write_text("somebody\n")

    def run(subject: str, image: str, *, runs=("task-rest",), t1w=True, mem_mb=24000, **changes) -> End:
        names = [*(["anat/sub-{}_T1w"] if t1w else []), *(f"func/sub-{{}}_{run}_bold" for run in runs)]
        usable = []
        for name in names:
            path = raw / f"sub-{subject}" / f"{name.format(subject)}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (8, 8, 8, 20) if "bold" in name else (8, 8, 8)
            nib.Nifti1Image(np.ones(shape, np.int16), np.diag([20.0, 20.0, 20.0, 1.0])).to_filename(path)
            usable.append([str(path.relative_to(raw)), 2.0 if "bold" in name else None, None])
        (raw / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
        (raw / "task-rest_bold.json").write_text('{"RepetitionTime": 2.0, "TaskName": "rest"}')
        (tmp_path / "index.json").write_text(json.dumps({"scans": {subject: usable}}))
        settings = PreprocSection(
            backend="fmriprep-docker",
            image=image,
            fs_license=tmp_path / "license.txt",
            templateflow_home=templates,
            output_spaces=SPACES,
        ).model_dump(mode="json")
        out = tmp_path / "preproc"
        code = fmriprep.main(
            [
                *("--subject", subject, "--cohort", "abide1", "--root", str(raw), "--tasks", "rest"),
                *(
                    "--scans",
                    str(tmp_path / "index.json"),
                    "--preproc",
                    settings_file({**settings, **changes}),
                ),
                *("--out", str(out), "--status", str(out / f"sub-{subject}_status.json")),
                *("--work", str(tmp_path / "work"), "--threads", "2", "--mem-mb", str(mem_mb)),
            ]
        )
        status, log = out / f"sub-{subject}_status.json", out / f"logs/sub-{subject}_fmriprep.log"
        return End(
            code,
            json.loads(status.read_text()) if status.is_file() else None,
            log.read_text() if log.is_file() else "",
            capsys.readouterr().err,
        )

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Make a folder of the job a disk of 4 MB: ``work``, or ``preproc`` for the derivatives."""
    mounted: list[Path] = []

    def mount(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", "size=4m", "bhx", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
