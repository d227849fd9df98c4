"""Batches are read ahead by threads that share their samples: in order, within bounds, and an error ends it."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from bhx_model.data import reader
from bhx_model.data.batch import Batch, Draft
from bhx_model.data.memory import Memory
from bhx_model.data.reader import Reader, threads_per_process
from bhx_model.errors import DataError


def drafts(count, samples=3, fill=lambda batch, sample: None, begun=lambda number: None):
    """Batches whose tensor is the number of the batch, put there sample by sample."""

    def begin(number, memory):
        begun(number)
        numbers = memory.empty((samples,), torch.int64)

        def put(sample):
            fill(number, sample)
            numbers[sample] = number

        batch = Batch([f"{number}-{sample}" for sample in range(samples)], {"numbers": numbers})
        return Draft(batch, [lambda sample=sample: put(sample) for sample in range(samples)])

    return [lambda memory, number=number: begin(number, memory) for number in range(count)]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_come_in_order_and_whole(workers):
    slow = threading.Event()

    def fill(number, sample):
        if workers == 4 and (number, sample) == (0, 1):
            assert slow.wait(10)  # until a later batch is done
        if (number, sample) == (2, 2):
            slow.set()

    found = list(Reader(workers).batches(drafts(9, fill=fill)))
    assert [batch.tensors["numbers"].tolist() for batch in found] == [[n] * 3 for n in range(9)]


def test_threads_share_the_samples_of_a_batch():
    together = threading.Barrier(3)
    (batch,) = Reader(3).batches(drafts(1, fill=lambda *_: together.wait(10)))
    assert batch.keys == ["0-0", "0-1", "0-2"]


@pytest.mark.parametrize("named", ["cuda", "cuda:1"])
def test_every_thread_copies_to_the_gpu_of_its_process(monkeypatch, named):
    """A GPU that is named without a number is the process's; PyTorch refuses such a name where threads are told theirs."""
    asked = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: asked.append(device) or object())
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append(device))
    monkeypatch.setattr(reader, "Memory", lambda pinned: Memory())
    monkeypatch.setattr(Reader, "move", lambda self, batch: (batch, None))
    read = Reader(2, torch.device(named))
    assert len(list(read.batches(drafts(3)))) == 3
    assert set(asked) == {torch.device("cuda", 1)}
    assert len(asked) >= 2


def test_no_more_than_two_batches_are_read_ahead():
    begun = []
    batches = Reader(2).batches(drafts(9, begun=begun.append))
    next(batches)
    time.sleep(0.05)
    assert max(begun) <= reader.AHEAD
    next(batches)
    time.sleep(0.05)
    assert max(begun) <= reader.AHEAD + 1
    batches.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["draft", "sample"])
def test_an_error_comes_where_its_batch_would_and_ends_the_threads(workers, where):
    def broken(number, *_):
        if number == 2:
            raise DataError("the shard x is gone")

    before = threading.active_count()
    what = {"fill": broken} if where == "sample" else {"begun": broken}
    batches = Reader(workers).batches(drafts(5, **what))
    assert [next(batches).keys[0] for _ in range(2)] == ["0-0", "1-0"]
    with pytest.raises(DataError, match="is gone"):
        next(batches)
    assert threading.active_count() == before
    assert list(batches) == []


def test_a_reader_that_is_closed_early_reads_no_further():
    filled = []
    batches = Reader(1).batches(
        drafts(9, samples=50, fill=lambda *place: time.sleep(0.001) or filled.append(place))
    )
    next(batches)
    batches.close()
    done = len(filled)
    time.sleep(0.02)
    assert len(filled) == done < 150


@pytest.mark.parametrize(
    ("here", "cores", "environment", "threads"),
    [
        (16, None, {}, 8),
        (64, None, {}, reader.MOST),
        (64, None, {"SLURM_CPUS_PER_TASK": "8"}, 8),
        (16, None, {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8"}, 2),
        (16, None, {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, 4),
        (2, None, {"WORLD_SIZE": "8"}, 1),
        (64, 64, {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8"}, 8),
        (64, 128, {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}, 8),
        (64, 1, {}, 1),
        (2, 8, {}, 2),
        (4, None, {"SLURM_CPUS_PER_TASK": ""}, 4),
    ],
)
def test_threads_follow_the_cores_of_the_job(here, cores, environment, threads):
    assert threads_per_process(cores, environment, here) == threads


def test_threads_follow_the_cores_that_this_process_is_bound_to(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "3")
    assert threads_per_process(environment={}) <= 3
