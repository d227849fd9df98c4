"""Prefetch what each process reads in each step of a training."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Generator, Iterator, Sequence

from bhx_model.data import loader
from bhx_model.data.batch import Batch
from bhx_model.data.reader import Drafting, Reader
from bhx_model.training.distributed import Processes
from bhx_model.training.stages import Stage


@dataclasses.dataclass(frozen=True)
class Share:
    """What a process has of a step: sample numbers of its parts, and their weights in the step's loss.

    Over all processes the parts are the batch, and the weights add up to 1.
    """

    step: int
    epoch: int
    parts: Sequence[Sequence[int]]
    weights: list[float]


class Parts:
    """Micro-batches of a step, each read when it is needed, once; and what is known of them after the step."""

    def __init__(self, batches: Iterator[Batch], count: int):
        self._batches, self._count = batches, count
        self.taken: list[Batch] = []
        """Those asked for so far, without their tensors."""

    def __iter__(self) -> Iterator[Batch]:
        """Read them."""
        for _ in range(self._count):
            batch = next(self._batches)
            self.taken.append(dataclasses.replace(batch, tensors={}))
            yield batch


def share(stage: Stage, step: int, processes: Processes) -> Share:
    """Choose this process' parts of a step; nothing is read."""
    t = stage.config.train
    epoch, place = divmod(step, math.ceil(stage.n_train / t.batch_size))
    batch = stage.epoch(epoch, t.batch_size)[place]
    size = sum(map(len, batch))
    # cut so that all processes do the same amount of work
    most = math.ceil(t.batch_size / (processes.world * t.parts))
    mine = loader.pieces(batch, size=most, rank=processes.rank, world=processes.world)
    # a process without a part of the batch takes part in the exchange of gradients with a weight of 0
    return Share(step, epoch, mine or [batch[0][:1]], [len(numbers) / size for numbers in mine] or [0.0])


def steps(
    stage: Stage, numbers: range, processes: Processes, workers: int
) -> Generator[tuple[Parts, list[float]], None, None]:
    """Yield this process' parts of each of these steps, and their weights.

    `reader.AHEAD` parts are read beside the one in use. The next epoch is planned while its predecessor is read.
    """
    reader = Reader(workers, processes.device)
    batches = reader.batches(_drafts(stage, numbers, processes, reader))
    try:
        for step in numbers:
            weights = share(stage, step, processes).weights
            parts = Parts(batches, len(weights))
            yield parts, weights
    finally:
        batches.close()
        reader.close()


def _drafts(stage: Stage, numbers: range, processes: Processes, reader: Reader) -> Iterator[Drafting]:
    t = stage.config.train
    per_epoch = math.ceil(stage.n_train / t.batch_size)
    for step in numbers:
        mine = share(stage, step, processes)
        if step % per_epoch == per_epoch // 2 and (mine.epoch + 1) * per_epoch < numbers.stop:
            reader.beside(functools.partial(stage.epoch, mine.epoch + 1, t.batch_size))
        for part in mine.parts:
            yield functools.partial(stage.draft, part, step, mine.epoch)
