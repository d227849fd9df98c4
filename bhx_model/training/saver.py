"""When checkpoints are saved, and by which process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bhx_model.training import checkpoint, checkpoint_folder
from bhx_model.training.checkpoint_writer import Writing
from bhx_model.training.distributed import Processes


class Saver:
    """Saves the checkpoints of a training; all processes call its methods, the first one writes.

    Under torchrun, which kills its processes 30 s after it was asked to end, another process writes, however long it takes,
    and the training goes on meanwhile.

    Parameters
    ----------
    run : Path
        Run folder.
    processes : Processes
    keep_every : int
        Keep checkpoints at multiples of it for ever.

    Attributes
    ----------
    longest_s : float
        Time that the slowest save took, s: what a training needs before its time ends.
    """

    def __init__(self, run: Path, processes: Processes, keep_every: int):
        self.run, self.processes, self.keep_every = run, processes, keep_every
        self.by_another = "TORCHELASTIC_RUN_ID" in os.environ
        self.longest_s = 0.0
        self._writing: list[Writing] = []
        if processes.first:
            checkpoint_folder.remove_unfinished(run)

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: dict[str, Any],
        *,
        ending: bool = False,
    ) -> None:
        """Save after `step` updates.

        Parameters
        ----------
        step, model, optimizer, state
            See `bhx_model.training.checkpoint.save`.
        ending : bool
            The training ends for lack of time: nothing is waited for before the state is handed over.

        Raises
        ------
        SiteError
            If this checkpoint, or one before, could not be saved.
        """

        def write() -> None:
            if self.by_another:
                if not ending:  # two at a time are all that has room in memory
                    self._wait()
                self._writing.append(
                    checkpoint.save_by_another(
                        self.run, step, model, optimizer, state, keep_every=self.keep_every
                    )
                )
                return
            began = time.monotonic()
            checkpoint.save(self.run, step, model, optimizer, state, keep_every=self.keep_every)
            self.longest_s = max(self.longest_s, time.monotonic() - began)

        self.processes.first_only(write)

    @property
    def failed(self) -> bool:
        """Whether a checkpoint that another process was to write is missing; only the first process knows."""
        failed = [writing.failed for writing in self._writing]
        self.longest_s = max([self.longest_s, *(w.seconds for w in self._writing if w.seconds is not None)])
        return any(failed)

    def finish(self) -> None:
        """Wait until everything is saved.

        Raises
        ------
        SiteError
            If something could not be.
        """
        self.processes.first_only(self._wait)

    def _wait(self) -> None:
        while self._writing:
            self._writing.pop(0).wait()
