"""What all tests share: where real inputs are, no network, and the same examples every time."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from bhx_model import gpus
from bhx_model.command_line import PACKAGES
from bhx_prep import cli

os.environ.setdefault("NO_ET", "1")  # nipype and fMRIPrep shall not ask the network for newer versions

# the same examples every time, and no verdict on the speed of a machine that others use too
settings.register_profile(
    "bhx", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("bhx")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where tests/bhx_model/training/test_gpu.py computes; all other tests are about CPUs."""
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: let the tests see GPUs")


def pytest_configure(config: pytest.Config) -> None:
    """Hide this machine's GPUs, so that the tests are the same everywhere."""
    if config.getoption("--device") == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def _log_level() -> None:
    """Events are logged, whatever ``-q`` or ``-v`` of an earlier test chose."""
    for name in PACKAGES:
        if logging.getLogger(name).level:
            logging.getLogger(name).setLevel(logging.INFO)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def pretended_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A stand-in for nvidia-smi, which lists the GPUs that it is told; no lock of this machine's is used."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("sh", "cat"):
        (commands / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(commands))
    monkeypatch.setenv(gpus.TAKEN, "0")
    for name in (gpus.VISIBLE, gpus.ASKED, "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "locks").mkdir()
    monkeypatch.setattr(gpus, "LOCKS", tmp_path / "locks")

    def are(*uuids: str, memory: str = "81920", status: int = 0) -> None:
        lines = "".join(f"{n}, {uuid}, H100, {memory}, 535.54\n" for n, uuid in enumerate(uuids))
        command = commands / "nvidia-smi"
        command.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}END\nexit {status}\n", encoding="utf-8")
        command.chmod(0o755)

    return are


@pytest.fixture(scope="session")
def shared():
    """Path of a real input that is kept beside the project; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"real input {name} is not beside this checkout")
        return path

    return find


#: Runs a module's `main`, or that of `bhx` where it has none, and ends the process with SIGKILL where a function of the
#: module is called for the n-th time.
_KILLED = """
import functools, importlib, os, signal, sys
module = importlib.import_module(sys.argv[1])
*owners, name = sys.argv[2].split(".")
owner = functools.reduce(getattr, owners, module)
real, calls = getattr(owner, name), iter(range(int(sys.argv[3]) - 1))
def killed(*args, **kwargs):
    if next(calls, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(owner, name, killed)
main = getattr(module, "main", None) or importlib.import_module("bhx_prep.cli").main
main(sys.argv[4:])
"""


@pytest.fixture(scope="session")
def kill_at() -> Callable[[str, str, int, Sequence[str]], None]:
    """Run a step's command line in a process that is killed, as by the kernel, at the n-th call of a function."""

    def run(module: str, function: str, call: int, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-c", _KILLED, module, function, str(call), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr

    return run


@pytest.fixture
def check_kill(kill_at, tmp_path) -> Callable[[str, str, int, Callable[[Path], list[str]]], None]:
    """Run a step undisturbed, and elsewhere killed and again: both leave the same files, byte for byte.

    Called with the module, the function and its call at which the step is killed, and what makes its arguments of the
    folder that it writes to.
    """

    def check(module: str, function: str, call: int, arguments: Callable[[Path], list[str]]) -> None:
        main = getattr(importlib.import_module(module), "main", cli.main)
        calm, killed = tmp_path / "calm", tmp_path / "killed"
        assert main(arguments(calm)) == 0
        kill_at(module, function, call, arguments(killed))
        assert main(arguments(killed)) == 0
        left = [
            {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
            for out in (calm, killed)
        ]
        assert left[0].keys() == left[1].keys()
        assert [name for name, content in left[0].items() if content != left[1][name]] == []
        assert left[0]

    return check
