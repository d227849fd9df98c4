"""What to install where a package is missing."""

from __future__ import annotations

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


def without(*modules: str) -> list[str]:
    """Start Python as if packages were not installed."""
    code = f"import sys; sys.modules.update(dict.fromkeys({modules!r})); sys.argv = sys.argv[1:]; "
    return [
        sys.executable,
        "-c",
        code + "import runpy; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)",
    ]


@pytest.mark.parametrize(
    ("words", "extras"),
    [
        (["bhx_prep.cli", "synth"], "workflow"),
        (["bhx_prep.cli", "doctor", "--help"], "workflow"),
        (["bhx_model.train", "--help"], "model"),
    ],
    ids=" ".join,
)
def test_a_missing_package_is_one_sentence(words: list[str], extras: str):
    done = subprocess.run([*without("yaml", "torch"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert re.search(rf"is not installed: pip install 'bhx\[{extras}", line)


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_and_version_need_no_extra(words: list[str]):
    command = [*without("yaml", "torch", "pydantic", "pandas", "nibabel"), "bhx_prep.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("usage: bhx", "bhx 0."))
