"""Processes that share a command's work: they end with it, and one that is killed is a sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from bhx_model.errors import SiteError
from bhx_prep.process_pool import process_pool

#: Starts a process, waits until it has worked, and is killed.
_KILLED = """
import os, signal
from bhx_prep.process_pool import process_pool
if __name__ == "__main__":
    with process_pool() as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""

#: Prints how many threads each library of linear algebra takes in a process.
_THREADS = """
from bhx_prep.process_pool import process_pool
def threads(_):
    import scipy.linalg, threadpoolctl
    return [library["num_threads"] for library in threadpoolctl.threadpool_info()]
if __name__ == "__main__":
    with process_pool() as pool:
        print(*pool.submit(threads, None).result())
"""


def test_others_work_and_results_keep_their_order():
    with process_pool() as pool:
        assert list(pool.map(abs, [-3, 1, -2])) == [3, 1, 2]
        assert pool.submit(os.getpid).result() != os.getpid()


def test_each_computes_with_one_thread(tmp_path):
    script = tmp_path / "threads.py"
    script.write_text(_THREADS, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment, timeout=600, check=True
    )
    assert set(done.stdout.split()) == {"1"}


def test_a_process_that_is_killed_is_said():
    with pytest.raises(SiteError, match="killed, most often because memory is short"), process_pool() as pool:
        pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()


def test_an_error_in_a_process_is_the_commands_own():
    with pytest.raises(ZeroDivisionError), process_pool() as pool:
        list(pool.map(divmod, [1], [0]))


def test_processes_end_with_the_command_that_was_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(_KILLED, encoding="utf-8")
    # what it started has its standard output, too, which is at its end when they are
    done = subprocess.run(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, timeout=600, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 0
