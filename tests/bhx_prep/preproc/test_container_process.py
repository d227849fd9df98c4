"""A container ends with its job, however the job ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bhx_prep.preproc import container_process
from bhx_prep.preproc.container_process import run_container
from bhx_prep.preproc.faults import recognise

#: Starts a container that would stay for long, and says its number.
JOB = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
from bhx_prep.preproc.container_process import run_container
words = ["sh", "-c", f"echo $$ > {sys.argv[1]}.part; mv {sys.argv[1]}.part {sys.argv[1]}; exec sleep 60"]
run_container(words, sys.stdout, pathlib.Path("."), docker=False)
"""


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process end with its parent")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_container_ends_with_its_job(tmp_path, number):
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, str(tmp_path / "container")], stderr=subprocess.DEVNULL
    )
    assert wait_until((tmp_path / "container").exists)
    container = int((tmp_path / "container").read_text())
    assert alive(container)
    job.send_signal(number)
    code = job.wait(30)
    assert wait_until(lambda: not alive(container))
    if number in (signal.SIGTERM, signal.SIGHUP):
        assert code == 128 + number


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", -9), ("echo said", 0)])
def test_how_it_ended_and_what_it_said(tmp_path, script, code):
    before = signal.getsignal(signal.SIGTERM)
    with (tmp_path / "log").open("w") as log:
        assert run_container(["sh", "-c", script], log, tmp_path, docker=False) == code
    assert (tmp_path / "log").read_text() == ("said\n" if code == 0 else "")
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_does_not_hear_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(container_process, "GRACE_S", 0.1)
    waits = subprocess.Popen.wait

    def asked(self, timeout=None):
        if timeout == container_process.LOOK_S:
            assert wait_until((tmp_path / "deaf").exists)
            os.kill(os.getpid(), signal.SIGTERM)
        return waits(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", asked)
    script = f"trap '' TERM; touch {tmp_path}/deaf; while :; do sleep 0.05; done"
    with (tmp_path / "log").open("w") as log, pytest.raises(SystemExit):
        run_container(["sh", "-c", script], log, tmp_path, docker=False)
    own = str(tmp_path / "deaf").encode()
    assert not [
        p for p in Path("/proc").glob("[0-9]*/cmdline") if own in _read(p) and "pytest" not in str(_read(p))
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_container_that_waits_for_a_killed_process_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(container_process, "LOOK_S", 0.02)
    monkeypatch.setattr(container_process, "BROKEN_S", 0.05)
    with (tmp_path / "log").open("w") as log:
        words = ["sh", "-c", "echo concurrent.futures.process.BrokenProcessPool: x; exec sleep 60"]
        assert run_container(words, log, tmp_path, docker=False) == -signal.SIGTERM
    said = recognise(-signal.SIGTERM, (tmp_path / "log").read_text(), [], "image")
    assert said.kind == "memory"
