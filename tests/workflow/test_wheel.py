"""What a wheel holds, and that it works in an empty folder: built once, laid out as pip does, read-only to its studies."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import skeleton
import yaml

TIMESERIES = Path(__file__).parents[1] / "skeletons/timeseries-two-tr.yml"


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory) -> Path:
    """The wheel of the sdist of this checkout, as `python -m build` makes it, without a network."""
    pytest.importorskip("hatchling", reason="builds the wheel; `make environments` installs it")
    out, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source")

    def build(kind: str, folder: Path) -> None:
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    build("sdist", root)
    with tarfile.open(next(out.glob("*.tar.gz"))) as file:
        file.extractall(source, filter="data")
    build("wheel", next(source.iterdir()))
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory) -> Path:
    """Folder with what the wheel holds."""
    place = tmp_path_factory.mktemp("my site-packages")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(place)
    return place


def start(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python with the installed packages in place of this checkout's."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def written(place: Path) -> dict[Path, int]:
    """When each file of an installation was written, without Python's own bytecode."""
    files = (path for path in place.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path: path.lstat().st_mtime_ns for path in files}


def tracked(root: Path) -> list[Path]:
    """Files of the checkout, without links."""
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [Path(name) for name in listed.stdout.splitlines() if not (root / name).is_symlink()]


def test_a_wheel_holds_everything_that_runs(root: Path, wheel: Path):
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = set()
    for path in tracked(root):
        top = path.parts[0]
        if path.is_relative_to("workflow/bhx_prep"):
            expected.add(str(path.relative_to("workflow")))
        elif path == Path("bhx_model/release/brainmarks_models.py"):
            expected.add("brainmarks/models/bhx.py")  # a plug-in of Brainmarks' namespace
        elif top == "bhx_model":
            expected.add(str(path))
        elif top in ("workflow", "rules", "envs", "profiles"):
            expected.add(f"bhx_prep/pipeline/{path}")
    assert len(expected) > 200
    assert expected - held == set()
    others = {name for name in held - expected if ".dist-info/" not in name}
    assert {Path(name).parts[:4] for name in others} <= {("bhx_prep", "pipeline", "workflow", "profiles")}


def test_a_study_of_an_installed_package_is_planned_and_started(installed: Path, tmp_path: Path):
    """All of it by what was installed, into which nothing is written."""
    before = written(installed)
    described = skeleton.build(TIMESERIES, tmp_path / "s")
    made = start(installed, tmp_path, "bhx_prep.cli", "init", "s")
    assert made.returncode == 0, made.stderr
    assert yaml.safe_load((tmp_path / "s/config.yaml").read_text()) == described["config"]
    planned = start(installed, tmp_path / "s", "bhx_prep.cli", "run", "-n", described["target"])
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert skeleton.job_counts(planned.stdout) == described["jobs"]
    ran = start(installed, tmp_path / "s", "snakemake", "--cores", "1", "ingest")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (tmp_path / "s/results/a/index.parquet").is_file()
    assert (tmp_path / "s/.bhx/code/bhx_prep").readlink() == installed / "bhx_prep"
    assert written(installed) == before


def test_a_job_runs_the_installed_code_and_no_other_package_of_its_folder(installed: Path, tmp_path: Path):
    """Whatever Python it is of, as one that conda brings: packages beside the code are not that one's."""
    (installed / "numpy_of_another_python.py").touch()
    code = "import pathlib as p, bhx_prep.installation as i; i.link_code(p.Path()); print(i.job_prefix(p.Path()))"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}
    said = subprocess.run([sys.executable, "-c", code], env=environment, **options)
    asked = "import bhx_prep, bhx_model, importlib.util as u; print(bhx_prep.__file__, bhx_model.__file__)"
    asked += "; print(u.find_spec('numpy_of_another_python'))"
    job = subprocess.run(["bash", "-c", f'{said.stdout.strip()} python -c "{asked}"'], **options)
    files, other = job.stdout.splitlines()
    assert files == f"{tmp_path}/.bhx/code/bhx_prep/__init__.py {tmp_path}/.bhx/code/bhx_model/__init__.py"
    assert other == "None"
