"""The folder of a run: one process at a time, and outputs of a finished run."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import children
import pytest
import torch
from training_runs import SIX, arguments, run_folder, same_weights, stopped_after, train_here

from bhx_model.training import run_folder as run_folder_module
from bhx_model.training.checkpoint import load_file
from bhx_model.training.distributed import Processes
from bhx_model.training.run_folder import lock_run_dir


def test_a_run_waits_for_the_process_that_is_at_it(house, straight, tmp_path, capfd):
    shutil.copytree(straight / "structure", tmp_path, dirs_exist_ok=True)
    with ThreadPoolExecutor(1) as pool:
        with lock_run_dir(run_folder(tmp_path), lambda: False) as ours:
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
    monkeypatch.setattr(run_folder_module, "_locked", lambda file: next(answers))
    monkeypatch.setattr(run_folder_module, "PAUSE_S", 0.0)
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
        with lock_run_dir(tmp_path, lambda: False, processes, waits=waits) as ours:
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
    with lock_run_dir(run_folder(tmp_path), lambda: False) as ours:
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


def test_a_finished_run_only_writes_its_outputs_again(house, tmp_path, capsys):
    assert train_here(house, tmp_path, "structure") == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "out")
    assert train_here(house, tmp_path, "structure") == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert "is finished" in capsys.readouterr().err
    assert set(before) == {"model.safetensors", "run.json", "metrics.jsonl"}


def test_a_finished_run_whose_weights_are_damaged_writes_them_again(house, straight, tmp_path, caplog):
    shutil.copytree(straight / "structure", tmp_path, dirs_exist_ok=True)
    weights = run_folder(tmp_path) / "final" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 4
    weights.write_bytes(content)
    assert train_here(house, tmp_path, "structure") == 0
    assert "is not what was written" in caplog.text
    same_weights(tmp_path / "out", straight / "structure" / "out")


@pytest.mark.parametrize("stage", ["structure", "function", "fusion"])
def test_what_an_older_version_of_the_step_trained_is_not_served(trained, straight, tmp_path, stage):
    tokens = (
        {"tokens": [str(trained["tokens_town"]), str(trained["tokens_ward"])]} if stage == "fusion" else {}
    )
    if stage == "fusion":
        assert train_here(trained, tmp_path, stage, **tokens) == 0
        shutil.copytree(tmp_path / "out", tmp_path / "straight")
    else:
        shutil.copytree(straight / stage, tmp_path, dirs_exist_ok=True)
        shutil.copytree(straight / stage / "out", tmp_path / "straight")
    old = run_folder(tmp_path) / "final" / "model.safetensors"
    old.write_bytes(b"weights of older code")
    (old.parent / "sha256.json").unlink()  # else they were taken for damaged ones
    assert train_here(trained, tmp_path, stage, **tokens) == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == old.read_bytes(), "of the same version"
    assert train_here(trained, tmp_path, stage, step_version=7, **tokens) == 0
    same_weights(tmp_path / "out", tmp_path / "straight")
    assert old.read_bytes() == b"weights of older code"


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.EINVAL])
def test_a_disk_without_locks_is_said_and_trained_on(house, tmp_path, monkeypatch, caplog, number):
    def without(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert train_here(house, tmp_path, "structure", {**SIX, "train.steps": 2}) == 0
    said = [record.message for record in caplog.records if "cannot be locked" in record.message]
    assert len(said) == 1
    assert said[0].endswith("do not start this training twice at a time")


def test_settings_that_change_no_result_go_on_from_the_last_checkpoint(house, straight, tmp_path, caplog):
    assert train_here(house, tmp_path, "function", should_stop=stopped_after(3)) == 75
    changes = SIX | {
        "train.accumulate": 2,
        "train.save_every": 1,
        "train.log_every": 3,
        "model.checkpointing": True,
    }
    with caplog.at_level("INFO"):
        assert train_here(house, tmp_path, "function", changes) == 0
    assert "resuming from" in caplog.text
    assert len(list((tmp_path / "runs").iterdir())) == 1
    whole, accumulated = (
        load_file(folder / "model.safetensors")
        for folder in (straight / "function" / "out", tmp_path / "out")
    )
    assert max(float((whole[name] - accumulated[name]).abs().max()) for name in whole) < 2e-3


def test_a_run_of_another_length_is_named_and_not_continued(house, tmp_path, caplog):
    assert train_here(house, tmp_path, "structure", should_stop=stopped_after(3)) == 75
    with caplog.at_level("INFO"):
        train_here(house, tmp_path, "structure", SIX | {"train.steps": 8}, should_stop=stopped_after(1))
        assert "has the same settings and 6 steps" in caplog.text
        caplog.clear()
        train_here(house, tmp_path, "structure", SIX | {"train.lr": 1e-5}, should_stop=stopped_after(1))
    assert "same settings" not in caplog.text
