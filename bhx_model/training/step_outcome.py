"""Metrics of a training step, copied from the device asynchronously."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
import torch.distributed
from torch import Tensor

from bhx_model.data.batch import Batch
from bhx_model.training.distributed import Processes


class AsyncCopy:
    """An asynchronous copy of a tensor to the host, behind all work queued so far; reading it waits for nothing more."""

    def __init__(self, tensor: Tensor) -> None:
        self._event = None
        if tensor.is_cuda:
            # into memory that the GPU writes by itself: any other copy makes the host wait
            self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensor.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._tensor = tensor

    def read(self) -> Any:
        """Wait until it is here, and return its number, or a list of its numbers."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor.tolist()


#: Numbers that are summed over processes.
_SUMMED: Final = ("loss", "bad", "stop", "unsaved")


class StepOutcome:
    """Loss and gradient norm of one step, and flags that the processes exchange.

    Parameters
    ----------
    step : int
        Number of the step, from 0.
    losses : Tensor, (parts,)
    norm : Tensor, ()
        Of the gradient, the same in all processes.
    stats : mapping of str to Tensor
        What the model reports, if it is to be read.
    parts, weights : sequence
        What the losses are of, see `bhx_model.training.loop.rank_share`.
    stop, unsaved : bool
        Whether this process was asked to stop, and whether it failed to save.
    processes : Processes
        All of them, which make their outcomes at the same time.
    """

    def __init__(
        self, step: int, losses: Tensor, norm: Tensor, stats: Mapping[str, Tensor], *, parts: Sequence[Batch],
        weights: Sequence[float], stop: bool, unsaved: bool, processes: Processes,
    ) -> None:  # fmt: skip
        self.step = step
        self._parts = [batch.keys for batch in parts]
        self._names = list(stats)
        # numbers of the host come in as arguments of kernels: to copy them would make the host wait
        weighted = [loss * weight for loss, weight in zip(losses.unbind(), weights, strict=True) if weight]
        flags = torch.cat([torch.full((1,), float(flag), device=losses.device) for flag in (stop, unsaved)])
        loss = torch.stack(weighted).sum() if weighted else torch.zeros((), device=losses.device)
        summed = torch.cat([torch.stack([loss, losses.isfinite().logical_not().sum().to(loss.dtype)]), flags])
        if processes.world > 1:
            torch.distributed.all_reduce(summed)
        reported = [value.detach().to(losses.dtype).reshape(1) for value in (norm, *stats.values())]
        self._numbers = AsyncCopy(torch.cat([summed, losses, *reported]))

    def read(self) -> None:
        """Wait for the numbers, and set them.

        ``loss``: the mean over the step's samples; ``n_bad``: parts, of all processes, whose losses are not finite; ``bad``:
        the samples of this process' ones; ``norm``; ``stop``, ``unsaved``: whether any process says so; ``stats``.
        """
        numbers = self._numbers.read()
        n = len(_SUMMED)
        self.loss, self.n_bad, stop, unsaved = numbers[:n]
        self.stop, self.unsaved = bool(stop), bool(unsaved)
        losses, (self.norm, *stats) = numbers[n : n + len(self._parts)], numbers[n + len(self._parts) :]
        self.stats = dict(zip(self._names, stats, strict=True))
        self.bad = [
            key
            for keys, loss in zip(self._parts, losses, strict=True)
            if not math.isfinite(loss)
            for key in keys
        ]

    @property
    def keys(self) -> list[str]:
        """All samples of this process."""
        return [key for keys in self._parts for key in keys]


def reads_late(device: torch.device) -> bool:
    """Whether a step's outcome is read when the next step is queued, so that the device never runs out of work.

    On a CPU nothing is queued, and nothing would be won.
    """
    return device.type == "cuda"
