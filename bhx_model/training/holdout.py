"""The loss on subjects who are held out of the training."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import nn

from bhx_model.data import loader
from bhx_model.training.distributed import Processes
from bhx_model.training.stages import Stage

#: Samples of a batch of the holdout.
BATCH: Final = 16


@torch.no_grad()
def evaluate_holdout(
    stage: Stage, model: nn.Module, processes: Processes
) -> tuple[dict[str, float], list[str]]:
    """Loss on the subjects held out, and that of predicting the mean of a batch.

    Masks and batches are the same every time, however many processes divide them.

    Returns
    -------
    losses : dict
        ``loss`` and ``mean_predictor_loss``.
    bad : list of str
        Samples in batches whose losses are not finite.
    """
    model.eval()
    mine = stage.holdout(BATCH)[processes.rank :: processes.world]
    loss_sum = mean_predictor_sum = 0.0
    bad: list[str] = []
    tasks = (lambda numbers=numbers: stage.load(numbers, 0, None).pin() for numbers in mine)
    for batch in loader.in_order(tasks, workers=1, ahead=1):
        args, kwargs = stage.inputs(batch.to(processes.device))
        with stage.autocast(processes.device):
            loss, stats = model(*args, **kwargs)
        one, baseline = float(stats.get("loss", loss)), float(stats["mean_predictor_loss"])
        loss_sum += one * len(batch.keys)
        mean_predictor_sum += baseline * len(batch.keys)
        bad += batch.keys if not math.isfinite(one + baseline) else []
    model.train()
    loss_sum, mean_predictor_sum = processes.sum([loss_sum, mean_predictor_sum])
    losses = {"loss": loss_sum / stage.n_holdout, "mean_predictor_loss": mean_predictor_sum / stage.n_holdout}
    return losses, processes.gather(bad)
