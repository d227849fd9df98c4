"""The lock of a run folder: one training at a time, also on disks that have no locks."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import children
import pytest
import torch
from training_runs import SIX, arguments, run_folder, same_weights, train_here

from bhx_model.training import checkpoint_writer, heartbeat, run_lock
from bhx_model.training.distributed import Processes
from bhx_model.training.heartbeat import Heartbeat


@pytest.fixture(params=[errno.ENOLCK, errno.ENOTSUP])
def without_locks(monkeypatch, request):
    """A disk that has none, in this process; hearts beat fast."""

    def without(file, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", without)
    beat_fast(monkeypatch)


def beat_fast(monkeypatch):
    for name, seconds in (("BEAT_S", 0.02), ("STALE_S", 0.5), ("SETTLE_S", 0.1)):
        monkeypatch.setattr(heartbeat, name, seconds)


def test_a_run_waits_for_the_process_that_is_at_it(house, straight, tmp_path, capfd):
    shutil.copytree(straight / "structure", tmp_path, dirs_exist_ok=True)
    with ThreadPoolExecutor(1) as pool:
        with run_lock.lock_run_dir(run_folder(tmp_path), lambda: False) as ours:
            assert ours
            stopped = train_here(house, tmp_path, "structure", should_stop=lambda: True)
            assert stopped == 75, "it may be asked to stop while it waits"
            second = pool.submit(train_here, house, tmp_path, "structure")
            said = []
            children.wait_for(
                lambda: said.append(capfd.readouterr().err) or "waiting for it" in "".join(said)
            )
            assert not second.done()
        assert second.result(60) == 0


@pytest.mark.parametrize(("attempts", "waits"), [(3, True), (3, False)])
def test_processes_meet_after_every_attempt_and_hold_no_collective(tmp_path, monkeypatch, attempts, waits):
    """As many collectives in one that cannot lock as in the first, each entered by both before the next."""
    answers = iter([False] * (attempts - 1) + [True])
    monkeypatch.setattr(run_lock.Lock, "take", lambda lock: next(answers))
    monkeypatch.setattr(run_lock, "PAUSE_S", 0.0)
    meeting, found = threading.Barrier(2), {}

    class Meeting(Processes):
        flags: ClassVar[dict[int, bool]] = {}

        def any(self, flag):
            self.flags[self.rank] = flag
            meeting.wait(30)
            answer = any(self.flags.values())
            meeting.wait(30)
            return answer

    def lock(rank):
        processes = Meeting(rank, 2, torch.device("cpu"))
        with run_lock.lock_run_dir(tmp_path, lambda: False, processes, waits=waits) as ours:
            found[rank] = ours

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(lock, rank) for rank in (0, 1)]:
            future.result(60)
    assert found == {0: waits, 1: waits}
    assert len(list(answers)) == (0 if waits else attempts - 1)


def test_a_job_of_slurm_gives_its_gpus_back_instead_of_waiting(
    house, straight, tmp_path, monkeypatch, caplog
):
    shutil.copytree(straight / "structure", tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with run_lock.lock_run_dir(run_folder(tmp_path), lambda: False) as ours:
        assert ours
        assert train_here(house, tmp_path, "structure") == 75
    assert "ending, so that the GPUs are free" in caplog.text
    assert train_here(house, tmp_path, "structure") == 0


def test_two_trainings_of_two_processes_that_start_together_both_end_well(house, straight, tmp_path):
    """As those of two experiments that share an encoder, in two studies with one folder of runs."""
    started = []
    for name in ("one", "other"):
        words = arguments(house, tmp_path, "structure")
        words[words.index("--out") + 1] = str(tmp_path / name)
        started += children.start_all(words, 2)
    assert children.end(started) == [0, 0, 0, 0]
    same_weights(tmp_path / "one", tmp_path / "other")
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.usefixtures("without_locks")
def test_a_disk_without_locks_keeps_two_trainings_apart_and_says_how(house, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    two = {**SIX, "train.steps": 2}
    assert train_here(house, tmp_path, "structure", two) == 0
    (said,) = [record.message for record in caplog.records if "cannot be locked" in record.message]
    assert said.endswith("a file that is renewed every few seconds does instead")
    run = run_folder(tmp_path)
    assert not (run / ".holder").exists()
    with ThreadPoolExecutor(1) as pool:
        with run_lock.lock_run_dir(run, lambda: False) as ours:
            assert ours
            with run_lock.lock_run_dir(run, lambda: False, waits=False) as second:
                assert not second
            assert "another process trains in" in caplog.text
            waiting = pool.submit(train_here, house, tmp_path, "structure", two)
            time.sleep(0.2)
            assert not waiting.done()
        assert waiting.result(60) == 0


def test_a_heartbeat_that_stopped_gives_the_folder_to_one_of_those_who_wait(tmp_path, monkeypatch):
    beat_fast(monkeypatch)
    killed, others = Heartbeat(tmp_path), [Heartbeat(tmp_path) for _ in range(4)]
    assert killed.take()
    killed._ended.set()  # as after SIGKILL: nobody renews the file, nobody removes it

    def until_somebody_has_it(one):
        while not (taken := one.take()) and not any(other._renewing for other in others):
            pass
        return taken

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(until_somebody_has_it, others)) == 1
    killed.release()  # not its own any more
    assert (tmp_path / ".holder").exists()
    for one in others:
        one.release()
    assert not (tmp_path / ".holder").exists()
    assert killed.other_lives is False


def test_a_checkpoint_that_is_still_written_keeps_the_folder(tmp_path, monkeypatch):
    """On a disk without locks: the training was killed, and the process that it handed its checkpoint to goes on."""
    beat_fast(monkeypatch)
    killed, next_one = Heartbeat(tmp_path), Heartbeat(tmp_path)
    assert killed.take()
    killed._ended.set()
    killed._renewing.join()
    still = threading.Event()
    monkeypatch.setattr(checkpoint_writer.checkpoint_folder, "remove_old", lambda run, keep: still.wait(30))
    monkeypatch.setattr(checkpoint_writer, "_receive", lambda stream: {"state.json": b"{}"})
    monkeypatch.setattr(checkpoint_writer.signal, "signal", lambda *ignored: None)
    with ThreadPoolExecutor(1) as pool:
        words = ["--run", str(tmp_path), "--step", "1", "--keep-every", "1"]
        writing = pool.submit(checkpoint_writer.main, words)
        children.wait_for(lambda: not next_one.take() and next_one.other_lives)
        still.set()
        assert writing.result(30) == 0
