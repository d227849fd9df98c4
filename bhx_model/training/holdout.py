"""The loss on held-out subjects."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import nn

from bhx_model.data.reader import Reader
from bhx_model.training.distributed import Processes
from bhx_model.training.stages import Stage

#: Samples of a batch of the holdout.
BATCH: Final = 16


@torch.no_grad()
def evaluate_holdout(
    stage: Stage, model: nn.Module, processes: Processes, workers: int = 1
) -> tuple[dict[str, float], list[str]]:
    """Losses on the subjects held out: what is reported in training, and that of predicting the mean of a batch.

    Masks and batches are the same every time, however many processes divide them.

    Returns
    -------
    losses : dict
        ``loss``, ``mean_predictor_loss`` and whatever else the model reports as ``*_loss``: means over the samples.
    bad : list of str
        Samples in batches of which any loss is not finite.
    """
    model.eval()
    mine = stage.holdout(BATCH)[processes.rank :: processes.world]
    sums: dict[str, float] = {}
    bad: list[str] = []
    drafts = (lambda memory, numbers=numbers: stage.draft(numbers, 0, None, memory) for numbers in mine)
    for batch in Reader(workers, processes.device).batches(drafts, ahead=1):
        args, kwargs = stage.inputs(batch)
        with stage.autocast(processes.device):
            objective, stats = model(*args, **kwargs)
        reported = {"loss": objective} | stats
        found = {name: float(value) for name, value in reported.items() if is_loss(name)}
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value * len(batch.keys)
        bad += batch.keys if not all(map(math.isfinite, found.values())) else []
    model.train()
    names = sorted(set(processes.gather(list(sums))))  # a process may have no batch of the holdout
    totals = processes.sum([sums.get(name, 0.0) for name in names])
    return dict(zip(names, (total / stage.n_holdout for total in totals), strict=True)), processes.gather(bad)


def is_loss(name: str) -> bool:
    """Whether a number that a model reports is a loss, and so a mean over samples."""
    return name == "loss" or name.endswith("_loss")
