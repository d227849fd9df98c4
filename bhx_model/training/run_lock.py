"""The lock of a run folder, which keeps two trainings from writing to it at once."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bhx_model.training import checkpoint_folder
from bhx_model.training.distributed import ALONE, Processes
from bhx_model.training.heartbeat import Heartbeat

logger = logging.getLogger(__name__)

#: Time between two attempts to lock a run folder, s.
PAUSE_S: Final = 0.2


class Lock:
    """A lock on a run folder: the system's, or a heartbeat where the disk has none."""

    def __init__(self, run: Path):
        self._run = run
        self._file = (run / ".lock").open("w")
        self._heartbeat: Heartbeat | None = None

    def take(self) -> bool:
        """Take the lock if it is free; returns whether this process has it.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        if self._heartbeat is None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                return False
            except OSError as error:
                logger.info(
                    "%s cannot be locked (%s): a file that is renewed every few seconds does instead",
                    self._file.name,
                    error.strerror,
                )
                self._heartbeat = Heartbeat(self._run)
        return self._heartbeat.take()

    @property
    def other_lives(self) -> bool:
        """Whether a process that has it is known to live, after it could not be taken."""
        return self._heartbeat is None or self._heartbeat.other_lives

    def release(self) -> None:
        """Give it back, if this process has it."""
        if self._heartbeat is not None:
            self._heartbeat.release()
        self._file.close()


@contextmanager
def lock_run_dir(
    run: Path, should_stop: Callable[[], bool], processes: Processes = ALONE, *, waits: bool = True
) -> Iterator[bool]:
    """Lock a run folder; wait for a training that has it locked.

    The first process locks it. While it waits, all meet after every attempt, for a moment: a collective that was held for as
    long as another training takes would run into its time limit. The system unlocks the folder when the process ends,
    however it ends.

    Parameters
    ----------
    run : Path
    should_stop : Callable
        Asked after every attempt.
    processes : Processes
        This process and the others of the run; all of them call this.
    waits : bool
        False to give up where a training that lives has it locked, as on GPUs that others could use meanwhile.

    Yields
    ------
    bool
        Whether it is locked for these processes; False if `should_stop` was true in one of them before, or if they do not
        wait.
    """
    lock: Lock | None = None
    taken = False

    def attempt() -> None:
        nonlocal lock, taken
        lock = lock or Lock(run)
        taken = lock.take()

    try:
        logged = False
        while not (ours := _everywhere(processes, attempt, lambda: taken)):
            lives = processes.first and lock is not None and lock.other_lives
            if lives and not logged:
                then = (
                    "waiting for it to end"
                    if waits
                    else "ending, so that the GPUs are free: start this again later"
                )
                logger.info("another process trains in %s: %s", run, then)
                logged = True
            if processes.any(should_stop() or (lives and not waits)):
                break
            time.sleep(PAUSE_S)
        yield ours and _is_written(run, should_stop, processes)
    finally:
        if lock is not None:
            lock.release()


def _everywhere(processes: Processes, work: Callable[[], None], done: Callable[[], bool]) -> bool:
    """Let the first process do what may fail; whether it is done, in all processes."""
    processes.first_only(work)
    return processes.any(done())


def _is_written(run: Path, should_stop: Callable[[], bool], processes: Processes) -> bool:
    """Wait for the checkpoint of a killed training, which a separate process is still writing."""
    logged = False
    while processes.any(processes.first and checkpoint_folder.is_written(run)):
        if processes.first and not logged:
            logger.info(
                "the last checkpoint of an earlier training is still being written in %s: waiting", run
            )
            logged = True
        if processes.any(should_stop()):
            return False
        time.sleep(PAUSE_S)
    return True
