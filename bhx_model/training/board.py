"""Messages between processes that divide work among them: only the first process waits, at the end."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import Final

import torch.distributed

from bhx_model.errors import SiteError
from bhx_model.training.distributed import Processes

#: Time between two looks at the board, s.
PAUSE_S: Final = 0.2
#: How long the processes look for each other.
PATIENCE: Final = timedelta(minutes=30)


class Board:
    """Where each process says that its share is done, or why not.

    Nothing is exchanged over GPUs, and no call waits for all: a process that has done its share ends.

    Parameters
    ----------
    processes : Processes
        torchrun's variables say where the board is.

    Raises
    ------
    SiteError
        If the processes do not find each other.
    """

    def __init__(self, processes: Processes):
        self._own = f"share-{processes.rank}"
        self._all = [f"share-{rank}" for rank in range(processes.world)]
        self._store: torch.distributed.Store
        if processes.world == 1:
            self._store = torch.distributed.HashStore()
            return
        try:
            self._store, _, _ = next(torch.distributed.rendezvous("env://", timeout=PATIENCE))
        except RuntimeError as error:
            said = " ".join(str(error).split())[:100]
            msg = (
                f"the processes do not find each other ({said}): GLOO_SOCKET_IFNAME names the network to use"
            )
            raise SiteError(msg) from error

    def say(self, sentence: str = "") -> None:
        """Say that this process is done, or what went wrong."""
        with contextlib.suppress(RuntimeError):  # the first is gone, and has said why
            self._store.set(self._own, f"={sentence}")

    def wait(self) -> None:
        """Wait until every process has done its share, for as long as that takes.

        Raises
        ------
        SiteError
            If one says that something went wrong.
        """
        left = self._all
        while left:
            said = {key: self._store.get(key).decode()[1:] for key in left if self._store.check([key])}
            if wrong := [sentence for sentence in said.values() if sentence]:
                raise SiteError(wrong[0])
            left = [key for key in left if key not in said]
            if left:
                time.sleep(PAUSE_S)
