"""The order of samples, and reading ahead."""

from __future__ import annotations

import threading

import pytest

from bhx_model.data import loader


def test_an_epoch_has_every_sample_once():
    buckets = [(18, 6)] * 10 + [(12, 6)] * 7 + [(18, 5)] * 3
    batches = loader.epoch_batches(buckets, batch_size=4, seed=3, epoch=0)
    assert len(batches) == 5
    assert sorted(n for batch in batches for group in batch for n in group) == list(range(20))
    assert all(len({buckets[n] for n in group}) == 1 for batch in batches for group in batch)
    assert sum(len(batch) == 1 for batch in batches) >= 3
    assert all(sum(map(len, batch)) == 4 for batch in batches)


def test_order_depends_on_seed_and_epoch_only():
    buckets = [(18, n % 3) for n in range(50)]
    first = loader.epoch_batches(buckets, batch_size=8, seed=1, epoch=2)
    assert first == loader.epoch_batches(buckets, batch_size=8, seed=1, epoch=2)
    assert first != loader.epoch_batches(buckets, batch_size=8, seed=1, epoch=3)
    assert first != loader.epoch_batches(buckets, batch_size=8, seed=2, epoch=2)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_ranks_share_a_batch_without_loss_or_repeat(world):
    for batch in loader.epoch_batches([n % 4 for n in range(37)], batch_size=10, seed=0, epoch=0):
        shares = [loader.pieces(batch, size=3, rank=r, world=world) for r in range(world)]
        numbers = [n for share in shares for piece in share for n in piece]
        assert sorted(numbers) == sorted(n for group in batch for n in group)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_any_number_of_workers_gives_the_same_order(workers):
    # the first task is the slowest: order must not follow completion
    gate = threading.Event()
    if workers < 2:
        gate.set()

    def task(n):
        if n == 0:
            gate.wait(10)
        if n == 3:
            gate.set()
        return n

    tasks = [lambda n=n: task(n) for n in range(20)]
    assert list(loader.in_order(tasks, workers=workers, ahead=6)) == list(range(20))


def test_a_readers_fault_reaches_the_loop():
    def fail():
        raise ValueError("the shard x is gone")

    with pytest.raises(ValueError, match="is gone"):
        list(loader.in_order([lambda: 1, fail, lambda: 2], workers=2, ahead=2))
