"""Where the pipeline's files are, in a checkout and in a package, and which code jobs find."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bhx_prep import installation


@pytest.fixture
def installed(tmp_path: Path, monkeypatch) -> Path:
    """As if this code were installed, with the pipeline in its package."""
    package = tmp_path / "site-packages/bhx_prep"
    (package / "pipeline/profiles/slurm").mkdir(parents=True)
    (package / "pipeline/profiles/slurm/config.v8+.yaml").touch()
    (package / "__init__.py").touch()
    monkeypatch.setattr(installation, "_PACKAGE", package)
    return package


def test_a_checkout_is_where_it_is(root: Path, tmp_path: Path, monkeypatch):
    monkeypatch.delenv("BHX_ANTS_PYTHON", raising=False)
    assert installation.is_checkout()
    assert installation.folder() == root
    assert installation.python_path(tmp_path) == [root, root / "workflow"]
    assert installation.ants_python(tmp_path) == root / ".venv-ants/bin/python"
    assert set(installation.profiles()) == {path.parent.name for path in root.glob("profiles/*/*.yaml")}
    installation.link_code(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_installation_is_in_its_package_and_its_studies_have_links_to_the_code(
    installed: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.delenv("BHX_ANTS_PYTHON", raising=False)
    study = tmp_path / "my study"
    assert installation.folder() == installed / "pipeline"
    assert list(installation.profiles()) == ["slurm"]
    assert installation.ants_python(study) == study / ".venv-ants/bin/python"
    (study / ".bhx/code").mkdir(parents=True)
    (study / ".bhx/code/bhx_prep").symlink_to(tmp_path / "an earlier one")
    for _ in range(2):
        installation.link_code(study)
    (code,) = installation.python_path(study)
    assert {path.name: path.readlink().name for path in code.iterdir()} == {
        "bhx_prep": "bhx_prep",
        "bhx_model": "bhx_model",
    }
    assert (code / "bhx_prep").readlink() == installed
    (study / ".bhx/data-packages").mkdir()
    assert installation.python_path(study) == [code, study / ".bhx/data-packages"]


def test_what_an_installation_lacks_is_a_sentence(installed: Path):
    with pytest.raises(installation.SiteError, match=r"lacks .*rules: install it again"):
        installation.file("rules")


def test_jobs_find_this_python_unless_another_is_brought(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("BHX_ANTS_PYTHON", "/my ants/python")
    shown = 'command -v python; echo "$BHX_ANTS_PYTHON"; echo "$PYTHONPATH"'

    def said(*deployed: str) -> list[str]:
        command = installation.job_prefix(tmp_path, deployed) + shown
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    python, ants, code = said()
    assert Path(python).parent == Path(sys.executable).parent
    assert ants == "/my ants/python"
    assert code.split(":") == [str(path) for path in installation.python_path(tmp_path)]
    assert said("CONDA")[1] == "python"
    assert said("CONDA", "APPTAINER")[1] == "/my ants/python"  # an image names its own
    monkeypatch.delenv("BHX_ANTS_PYTHON")
    assert said("APPTAINER")[1] == "python"


def test_jobs_are_told_the_device_of_the_configuration(tmp_path: Path):
    assert " BHX_DEVICE=mps " in installation.job_prefix(tmp_path, device="mps")
    assert "BHX_DEVICE" not in installation.job_prefix(tmp_path)  # one that is set by hand stays


def test_the_version_is_that_of_the_code_that_runs(root: Path):
    """Not of what is installed: an environment of the embedded preprocessing, of conda, or an image may have no BHX."""
    sources = [*root.glob("bhx_model/**/*.py"), *root.glob("workflow/bhx_prep/**/*.py")]
    asking = [path.name for path in sources if re.search(r"""version\(["']bhx["']\)""", path.read_text())]
    assert asking == []
