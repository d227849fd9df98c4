"""Prefetch batches onto the device with threads that share the samples of a batch.

Reading, decompressing and copying release the interpreter's lock, and threads need no copy between processes: on this work
they beat worker processes several times over. However many there are, the same batches come in the same order.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import torch

from bhx_model.data.batch import Batch, Draft
from bhx_model.data.memory import Memory

CPU: Final = torch.device("cpu")
#: Batches that are read, or being read, beside the one in use.
AHEAD: Final = 2
#: Threads of a process, at most: more wait for each other (on 16 cores beside an H200, 16 read a third less than 8).
MOST: Final = 8

#: What begins a batch: where memory is, its draft.
Drafting = Callable[[Memory], Draft]


def threads_per_process(
    cores: int | None = None, environment: Mapping[str, str] = os.environ, here: int | None = None
) -> int:
    """Reading threads of this process: the cores of its node, divided among the processes there.

    Parameters
    ----------
    cores : int, optional
        Cores of the whole job, on all of its nodes; None if not known.
    environment : Mapping
        With torchrun's WORLD_SIZE and LOCAL_WORLD_SIZE, and Slurm's SLURM_CPUS_PER_TASK.
    here : int, optional
        Cores that this process may use; by default what it is bound to and its container allows.
    """
    if here is None:
        import joblib  # scikit-learn's own; it knows affinities and quotas

        here = joblib.cpu_count()
    given = environment.get("SLURM_CPUS_PER_TASK", "")
    if given.isdecimal():
        here = min(here, int(given))
    world = int(environment.get("WORLD_SIZE", "1"))
    threads = here // int(environment.get("LOCAL_WORLD_SIZE", world))
    if cores is not None:
        threads = min(threads, cores // world)
    return min(max(threads, 1), MOST)


class Reader:
    """Threads that read, and the memory they read into.

    Parameters
    ----------
    workers : int
        Threads; 0 reads in place.
    device : torch.device
        Where batches go. To a GPU they are copied from pinned memory, beside its work.
    """

    def __init__(self, workers: int, device: torch.device = CPU):
        on_gpu = device.type == "cuda"
        if on_gpu and device.index is None:  # a thread has to be told which
            device = torch.device("cuda", torch.cuda.current_device())
        self.device = device
        self.memory = Memory(pinned=on_gpu)
        self._copies = torch.cuda.Stream(device) if on_gpu else None
        self._pool = ThreadPoolExecutor(workers, "reader", self._begin_thread) if workers else None

    def _begin_thread(self) -> None:
        if self._copies is not None:  # a new thread is on the first GPU
            torch.cuda.set_device(self.device)

    def batches(self, drafts: Iterable[Drafting], ahead: int = AHEAD) -> Generator[Batch, None, None]:
        """Yield the batches of drafts in their order, on the device. No more than `ahead` + 2 are held in memory.

        An error of a sample is raised where its batch would come. The threads end with this.
        """
        waiting: deque[Future[tuple[Batch, Any]]] = deque()
        try:
            for drafting in drafts:
                waiting.append(self._begin(drafting))
                if len(waiting) > (ahead if self._pool else 0):
                    yield self._ready(waiting.popleft())
            while waiting:
                yield self._ready(waiting.popleft())
        finally:
            self.close()

    def beside(self, task: Callable[[], Any]) -> None:
        """Run something in a thread that is needed later; without threads, run it now."""
        if self._pool is not None:
            self._pool.submit(task)

    def close(self) -> None:
        """End the threads; what they have not begun is not read."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, drafting: Drafting) -> Future[tuple[Batch, Any]]:
        if self._pool is not None:
            return _Filling(self, self._pool, drafting).done
        done: Future[tuple[Batch, Any]] = Future()
        done.set_result(self.move(drafting(self.memory).read()))
        return done

    def move(self, batch: Batch) -> tuple[Batch, Any]:
        """Copy a batch to the device; returns the event that marks the end of the copy, None if copies are synchronous."""
        if self._copies is None:
            return batch.to(self.device), None
        with torch.cuda.stream(self._copies):
            moved = batch.pin().to(self.device)
            there = torch.cuda.Event()
            there.record(self._copies)
        return moved, there

    def _ready(self, future: Future[tuple[Batch, Any]]) -> Batch:
        batch, there = future.result()
        if there is not None:
            work = torch.cuda.current_stream(self.device)
            work.wait_event(there)
            for tensor in batch.tensors.values():  # its memory belongs to the copies, and is used by the work
                tensor.record_stream(work)
        return batch


class _Filling:
    """One batch that the threads of a pool read together."""

    def __init__(self, reader: Reader, pool: ThreadPoolExecutor, drafting: Drafting):
        self.done: Future[tuple[Batch, Any]] = Future()
        self._reader, self._pool, self._lock = reader, pool, threading.Lock()
        self._left = 0
        pool.submit(self._guarded, lambda: self._draft(drafting))

    def _draft(self, drafting: Drafting) -> None:
        draft = drafting(self._reader.memory)
        self._left = len(draft.fills)
        self._batch = draft.batch
        for fill in draft.fills:  # there is one at least: a batch has samples
            self._pool.submit(self._guarded, lambda fill=fill: self._fill(fill))

    def _fill(self, fill: Callable[[], None]) -> None:
        if self.done.done():  # another sample has failed
            return
        fill()
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self.done.set_result(self._reader.move(self._batch))

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do a part of the work; its exceptions are raised where the batch is awaited."""
        try:
            work()
        except BaseException as error:
            with self._lock:
                if not self.done.done():
                    self.done.set_exception(error)
