"""Run a container as a process of this job, which stops when the job stops."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Final

logger = logging.getLogger(__name__)

#: Seconds that a container and the program that started it are given to end. Slurm gives a job 30 by default.
GRACE_S: Final = 8
#: Seconds between two looks at what is printed, and those that a container is given to end by itself once a process of
#: fMRIPrep's pool was killed: nipype may wait for what that one had at work for ever.
LOOK_S: Final = 10
BROKEN_S: Final = 300
_BROKEN: Final = (b"BrokenProcessPool", b"process pool was terminated abruptly")
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG: Final = 1


def run_container(command: Sequence[str], log: IO[str], scratch: Path, *, docker: bool) -> int:
    """Run a container to its end.

    A container in which a process was killed, and which waits for it for ever, is stopped after `BROKEN_S`.
    Where this process is asked to end (SIGTERM, as by ``scancel``; SIGHUP; Ctrl-C), the container is stopped first. Where
    it is killed, Apptainer's ends with it, and Docker's is stopped when the subject is started again.

    Parameters
    ----------
    command : sequence of str
        What starts it.
    log : text file
        Gets what is printed, and is looked at.
    scratch : Path
        The job's scratch folder, which is mounted into this container and no other.
    docker : bool
        Whether a daemon runs it, which does not stop it with the program that started it.

    Returns
    -------
    int
        The exit code; negative where a signal ended the program that started it.

    Raises
    ------
    SystemExit
        With 128 and the signal's number, after the container has been stopped.
    """
    if docker:
        _stop_docker(scratch, "an earlier attempt left")
    with _Signals() as signals:
        # no terminal to ask on: the wrapper's questions end it instead of waiting for ever
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        try:
            signals.arm()
            return _wait(process, Path(log.name), scratch, docker=docker)
        except BaseException:
            signals.disarm()
            logger.warning("stopping the container")
            _stop(process, scratch, docker=docker)
            raise


def _wait(process: subprocess.Popen, log: Path, scratch: Path, *, docker: bool) -> int:
    """Wait for the end, or until what is printed says that it will not come."""
    read, broken = 0, None
    while True:
        try:
            return process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            if broken is not None:
                if time.monotonic() - broken < BROKEN_S:
                    continue
                logger.warning(
                    "a process of fMRIPrep was killed, and it does not end: stopping the container"
                )
                _stop(process, scratch, docker=docker)
                return process.wait()
            if log.is_file():
                with log.open("rb") as printed:
                    printed.seek(read)
                    new = printed.read()
                read += max(len(new) - 100, 0)  # words may be halved
                broken = time.monotonic() if any(words in new for words in _BROKEN) else None


def _stop(process: subprocess.Popen, scratch: Path, *, docker: bool) -> None:
    if docker:
        _stop_docker(scratch, "stopping")
    _end(process)


class _Signals:
    """Signals that ask this process to end raise `SystemExit`, but only while it is armed."""

    def __init__(self) -> None:
        self.armed, self.caught = False, list[int]()
        self.before: dict[int, object] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                self.before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.caught.append(number)
        if self.armed:
            self.armed = False
            raise SystemExit(128 + number)

    def arm(self) -> None:
        self.armed = True
        if self.caught:
            raise SystemExit(128 + self.caught[0])

    def disarm(self) -> None:
        self.armed = False


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


#: Loaded now: a process between fork and exec may not.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end(process: subprocess.Popen) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue
        break
    with contextlib.suppress(ProcessLookupError):  # what the program itself had started
        os.killpg(process.pid, signal.SIGKILL)


def _stop_docker(scratch: Path, why: str) -> None:
    for container in _containers(scratch):
        logger.warning("%s container %s", why, container)
        _docker("stop", "-t", str(GRACE_S // 2), container)


def _containers(scratch: Path) -> Iterator[str]:
    yield from _docker("ps", "--quiet", "--filter", f"volume={scratch}").split()


def _docker(*words: str) -> str:
    """What docker says; nothing where it fails: the container's own start says why."""
    try:
        done = subprocess.run(
            ["docker", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
