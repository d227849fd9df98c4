"""Processes that share the work of one command, and end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Final

from bhx_model.errors import SiteError

#: Beyond this, the disk or the memory of a small machine is what limits.
MOST: Final = 4
#: Variables by which libraries of linear algebra are told how many threads to take.
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def process_pool() -> Iterator[Executor]:
    """Processes on the cores of this machine, at most `MOST`; they start with the first task.

    They are spawned, not forked: Snakemake has threads. Each computes with one thread, or they would be in each other's
    way. An interrupt from the keyboard ends the tasks that have not begun; where the command's own process is killed, its
    processes end as well.

    Yields
    ------
    concurrent.futures.Executor

    Raises
    ------
    SiteError
        If one of the processes was killed.
    """
    n = min(os.cpu_count() or 1, MOST)
    try:
        with ProcessPoolExecutor(n, multiprocessing.get_context("spawn"), initializer=_prepare) as pool:
            yield pool
    except BrokenProcessPool:
        msg = (
            "one of the processes that share this command's work was killed, most often because memory is short: "
            "run it again where more is free"
        )
        raise SiteError(msg) from None


def _prepare() -> None:
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # read when NumPy is imported, with the first task
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command itself ends what is under way
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
