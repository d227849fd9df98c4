"""`bhx run`: Snakemake with what it has to be told filled in, and nothing of what it is told changed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bhx_prep import cli, installation
from bhx_prep.commands import run


@pytest.fixture
def started(monkeypatch, tmp_path: Path) -> list[str]:
    """Words of the process that a command would have become, in an empty folder."""
    words: list[str] = []
    monkeypatch.setattr(os, "execv", lambda file, argv: words.extend(argv))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return words


def test_every_argument_is_snakemakes(started: list[str], root: Path):
    assert cli.main(["-q", "run", "-n", "-q", "--verbose", "tables", "--config", "x=1"]) == 0
    assert started[:3] == [sys.executable, "-m", "snakemake"]
    assert started[3:] == [
        *("--snakefile", str(root / "workflow/Snakefile")),
        *("--workflow-profile", str(root / "profiles/default")),
        *("-n", "-q", "--verbose", "tables", "--config", "x=1"),
    ]


def test_what_is_given_is_not_filled_in(started: list[str]):
    given = ["-s", "mine/Snakefile", "--workflow-profile", "none", "run"]
    assert cli.main(["run", "--", *given]) == 0
    assert started[3:] == given


def test_a_study_s_own_profiles_come_first(started: list[str], root: Path, tmp_path: Path):
    slurm = str(root / "profiles/slurm")
    assert run.words(["--profile", "slurm"])[-1] == slurm
    assert run.words(["--profile=slurm"])[-1] == f"--profile={slurm}"
    assert run.words(["--profile", "unknown"])[-1] == "unknown"
    (tmp_path / ".config/snakemake/slurm").mkdir(parents=True)
    assert run.words(["--profile", "slurm"])[-1] == "slurm"  # Snakemake finds the user's
    for name in ("slurm", "default"):
        (tmp_path / "study/profiles" / name).mkdir(parents=True)
    words = run.words(["--directory", "study", "--profile", "slurm"])
    assert words[-1] == "study/profiles/slurm"
    assert words[words.index("--workflow-profile") + 1] == "study/profiles/default"


def test_a_user_without_a_home_folder_has_no_profiles_there(started: list[str], root: Path, monkeypatch):
    monkeypatch.delenv("HOME")
    # as a container is started by somebody it does not know
    monkeypatch.setattr(os, "getuid", lambda: 987654321)
    assert run.words(["--profile", "slurm"])[-1] == str(root / "profiles/slurm")


def test_without_snakemake_the_extras_are_named(monkeypatch, capsys):
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["run", "-n"]) == 1
    assert (
        "the package snakemake is not installed: pip install 'bhx[workflow,prep,model]'"
        in capsys.readouterr().err
    )


def test_the_shipped_profiles_are_named_in_the_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    shown = "".join(capsys.readouterr().out.split())
    assert all(name in shown for name in set(installation.profiles()) - {"default"})
