"""The order in which samples are read, and prefetching them.

The order of pretraining is a pure function of (seed, epoch); evaluation goes through the list of samples. Neither the
number of processes nor that of reading threads changes what is read, or in which order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")


def epoch_batches(
    buckets: Sequence[Hashable], *, batch_size: int, seed: int, epoch: int
) -> list[list[list[int]]]:
    """Order of one pass over the samples, every sample once.

    Samples of equal bucket (same patch length, same number of patches) share batches, so that nothing is
    padded. What is left of the buckets fills batches that mix them; only one batch may be smaller.

    Parameters
    ----------
    buckets : Sequence[Hashable]
        Bucket of each sample; sortable.
    batch_size : int
        Samples of an update, over all processes.
    seed, epoch : int
        The order is a pure function of these two.

    Returns
    -------
    list of batches, each a list of groups of one bucket, each a list of sample numbers. Always
    ``ceil(samples / batch_size)`` batches.
    """
    random = np.random.default_rng([seed, epoch])
    by_bucket: dict[Hashable, list[int]] = {}
    for number in random.permutation(len(buckets)).tolist():
        by_bucket.setdefault(buckets[number], []).append(number)
    batches: list[list[list[int]]] = []
    left: list[int] = []
    for bucket in sorted(by_bucket):  # type: ignore[type-var]
        numbers = by_bucket[bucket]
        full = len(numbers) - len(numbers) % batch_size
        batches += [[numbers[start : start + batch_size]] for start in range(0, full, batch_size)]
        left += numbers[full:]
    for start in range(0, len(left), batch_size):
        mixed: dict[Hashable, list[int]] = {}
        for number in left[start : start + batch_size]:
            mixed.setdefault(buckets[number], []).append(number)
        batches.append(list(mixed.values()))
    return [batches[place] for place in random.permutation(len(batches)).tolist()]


def pieces(batch: Sequence[Sequence[int]], *, size: int, rank: int, world: int) -> list[list[int]]:
    """One process' share of a batch, in pieces of at most `size` samples of one bucket.

    Over all ranks every sample of the batch comes once.
    """
    cut = [list(group[start : start + size]) for group in batch for start in range(0, len(group), size)]
    return cut[rank::world]


def in_order(
    tasks: Iterable[Callable[[], Result]], *, workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield results of `tasks` in their order, computed by `workers` threads up to `ahead` tasks early.

    Positioned reads and tensor operations release the interpreter lock, and threads need no copy between
    processes: on this work they beat worker processes several times over. 0 workers compute in place.
    """
    if workers == 0:
        yield from (task() for task in tasks)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="reader")
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
