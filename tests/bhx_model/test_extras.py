"""What to install where a package is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from bhx_model.command_line import run_command
from bhx_model.extras import EXTRAS, how_to_install

#: Distributions whose import name is another, of extras that need not be installed here.
OTHER_NAMES = {
    "antspyx": "ants",
    "mlflow-skinny": "mlflow",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
}


def test_extras_are_those_of_the_package(root: Path):
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, brought in EXTRAS.items():
        names = [re.split(r"[<>=\[ ]", wanted)[0] for wanted in declared[extra]]
        assert set(brought) == {OTHER_NAMES.get(name, name.replace("-", "_")) for name in names}, extra
    assert set(declared) - set(EXTRAS) == {"dev", "docs"}
    here = packages_distributions()
    assert {"yaml", "sklearn"} <= set(here)


def test_the_extras_of_a_command_are_named_at_once(monkeypatch):
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in ("yaml", "lapy") else object()
    )
    assert how_to_install("yaml") == "the package yaml is not installed: pip install 'bhx[workflow]'"
    assert how_to_install("yaml", ["workflow", "prep"]) == (
        "the package yaml is not installed: pip install 'bhx[workflow,prep]'"
    )
    assert (
        how_to_install("yaml.nodes", ["model"])
        == "the package yaml is not installed: pip install 'bhx[model]'"
    )
    assert how_to_install("ml4fmri", ["workflow"]) == (
        "the package ml4fmri is not installed: pip install 'bhx[workflow,networks]'"
    )
    assert how_to_install("bhx_model.nothing") is None
    assert how_to_install(None) is None


def test_a_module_of_ours_that_is_not_there_is_a_bug():
    def command():
        raise ModuleNotFoundError("No module named 'bhx_model.x'", name="bhx_model.x")

    with pytest.raises(ModuleNotFoundError):
        run_command(command)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch) -> None:
    """Start every Python as if NumPy alone had been installed with BHX."""
    absent = sorted({name for brought in EXTRAS.values() for name in brought})
    lines = ["import sys", f"sys.modules.update(dict.fromkeys({absent!r}))"]
    (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))


def start(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "extras"),
    [
        (["bhx_prep.cli", "synth"], "workflow,prep"),
        (["bhx_prep.cli", "init", "s"], "workflow"),
        (["bhx_prep.cli", "embed", "--weights", "w", "--cohort", "c", "--out", "f.parquet"], "model"),
        (["bhx_model.train", "--help"], "model"),
        (["bhx_model.release.export", "--help"], "model"),
        (["bhx_prep.evaluation.baselines"], "workflow,prep"),
        (["bhx_prep.preproc.embedded"], "ants"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("bare")
def test_a_missing_package_is_one_sentence(words: list[str], extras: str):
    """Wherever the import fails: at the start of a module, or when its command runs."""
    done = start(*words)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.endswith(f": pip install 'bhx[{extras}]'")


@pytest.mark.usefixtures("bare")
def test_an_import_that_fails_for_another_reason_keeps_its_traceback(tmp_path: Path):
    with (tmp_path / "sitecustomize.py").open("a") as file:
        file.write("\nsys.modules['bhx_model.errors'] = None")
    done = start("bhx_model.training.launch")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
@pytest.mark.usefixtures("bare")
def test_help_and_version_need_no_extra(words: list[str]):
    done = start("bhx_prep.cli", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("usage: bhx", "bhx 0."))
