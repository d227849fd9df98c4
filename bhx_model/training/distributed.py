"""Processes of a distributed training: rank and world size, barriers, and values on which all agree."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from bhx_model.device import cuda_works
from bhx_model.errors import BhxError, SiteError, format_error

logger = logging.getLogger(__name__)

#: How long a process waits for the others: the first to have checked its shards for the last.
PATIENCE = timedelta(hours=1)

#: What gloo, NCCL and PyTorch's store say when a process that they speak to has ended, or its node.
_LOST = re.compile(
    r"Connection (?:closed|reset) by peer(?: \[[^\]]*\])?|Broken pipe|remote process exited|Timed out waiting \d+ms"
)


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
        """Whether `flag` is true in any process; all get the same answer."""
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

    def first_only(self, work: Callable[[], object]) -> None:
        """Let the first process do what may fail, as writing files does; all wait for it, and end with its error.

        Raises
        ------
        BhxError, OSError
            What `work` raised.
        """
        error: BhxError | OSError | None = None
        if self.first:
            try:
                work()
            except (BhxError, OSError) as raised:
                error = raised
        if self.any(error is not None):
            said = self.gather([] if error is None else [format_error(error)])
            raise SiteError(said[0]) if error is None else error


#: A training of one process, on the CPU.
ALONE = Processes(0, 1, torch.device("cpu"))


@contextmanager
def start() -> Iterator[Processes]:
    """Join the processes of this training, over NCCL on GPUs and gloo on CPUs, and leave them at the end.

    torchrun's environment variables (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) say who they
    are, on one node or many.

    Raises
    ------
    SiteError
        If this node has fewer GPUs than processes, PyTorch cannot use them, or the processes do not find each other, or
        lose one.
    """
    own = this_process()
    if own.world == 1:
        yield own
        return
    _meet(own.device)
    try:
        yield dataclasses.replace(own, rank=torch.distributed.get_rank())
    except RuntimeError as error:  # gloo has no error of its own
        if (how := _LOST.search(str(error))) is None:
            raise
        msg = f"another process of this training is gone ({how[0][:60]}): its log says why; the same command resumes"
        raise SiteError(f"{msg} from the last checkpoint") from error
    # not after an error: the others may be waiting for this process, and it would wait for them; torchrun ends them
    torch.distributed.destroy_process_group()


def this_process(named: torch.device | None = None) -> Processes:
    """Rank and size of this process's group as torchrun set them, without communication.

    Parameters
    ----------
    named : torch.device, optional
        What it computes on, instead of a GPU of its own where there are GPUs.

    Raises
    ------
    SiteError
        If this node has fewer GPUs than processes, or PyTorch cannot use them.
    """
    rank, world, local = (
        int(os.environ.get(name, usual))
        for name, usual in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    device = named or torch.device("cpu")
    if named is None and cuda_works():
        if local >= torch.cuda.device_count():
            msg = f"process {local} of this node finds {torch.cuda.device_count()} GPUs: start one process per GPU"
            raise SiteError(msg)
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    return Processes(rank if world > 1 else 0, world, device)


def _meet(device: torch.device) -> None:
    """Join the other processes, over gloo also on GPUs for which this PyTorch has no NCCL.

    Raises
    ------
    SiteError
        If they do not find each other.
    """
    backends = ["nccl", "gloo"] if device.type == "cuda" else ["gloo"]
    for backend in backends:
        try:
            torch.distributed.init_process_group(
                backend, timeout=PATIENCE, device_id=device if backend == "nccl" else None
            )
            return
        except RuntimeError as error:  # of PyTorch, NCCL and gloo, over many lines
            if backend == "nccl" and not torch.distributed.is_nccl_available():
                logger.warning(
                    "this PyTorch has no NCCL: gradients are exchanged over gloo, slowly; install its build for CUDA"
                )
                continue
            said = " ".join(str(error).split())[:100]
            advice = "NCCL_DEBUG=INFO shows why, " if backend == "nccl" else ""
            msg = (
                f"the processes do not find each other ({said}): {advice}{backend.upper()}_SOCKET_IFNAME names the network "
                "to use"
            )
            raise SiteError(msg) from error
