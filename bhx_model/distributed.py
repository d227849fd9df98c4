"""Processes of one training: who am I, who else is there, and agreeing on something."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed


@dataclass(frozen=True)
class Processes:
    """One process among those that torchrun started; alone without torchrun."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether any process says yes; all get the same answer."""
        return bool(self.sum([float(flag)])[0] > 0)

    def sum(self, values: list[float]) -> list[float]:
        """Sum of each value over the processes."""
        if self.world == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def gather(self, names: list[str]) -> list[str]:
        """Names from all processes, in the order of their ranks."""
        if self.world == 1:
            return names
        everyone: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(everyone, names)
        return [name for listed in everyone for name in listed]

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.world > 1:
            torch.distributed.barrier()


@contextmanager
def start() -> Iterator[Processes]:
    """Join the processes of this training, over NCCL on GPUs and gloo on CPUs, and leave them at the end.

    torchrun's environment variables (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) say who they
    are, on one node or many.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world == 1:
        yield Processes(0, 1, device)
        return
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(torch.distributed.get_rank(), world, device)
    finally:
        torch.distributed.destroy_process_group()
