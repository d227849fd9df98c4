"""Hub tokens of a frozen fusion, averaged over the runs of each subject."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor

from bhx_model.evaluation import readouts
from bhx_model.evaluation.labelled_tokens import LabelledTokens, autocast, fusion_arguments
from bhx_model.nets.fusion import FusionModel
from bhx_model.training.trained import Trained


def mean_hub_tokens(data: LabelledTokens, trained: Trained, device: torch.device) -> np.ndarray:
    """Mean hub token of every subject, over the tokens and over the subject's runs: (n, D) float64."""
    return _by_subject(data, trained, device, lambda hub_BHD: hub_BHD.cpu().double().mean(dim=1))


def hub_tokens(data: LabelledTokens, trained: Trained, device: torch.device) -> np.ndarray:
    """Hub tokens of every subject, averaged over the subject's runs: (n, H, D) float64."""
    return _by_subject(data, trained, device, lambda hub_BHD: hub_BHD.cpu().double())


def hub_covariance(data: LabelledTokens, trained: Trained, device: torch.device) -> np.ndarray:
    """Gram matrix of the hub tokens of every subject, averaged over the subject's runs: (n, H (H + 1) / 2) float64."""
    return _by_subject(data, trained, device, lambda hub_BHD: readouts.hub_covariance(hub_BHD).cpu().double())


@torch.no_grad()
def _by_subject(
    data: LabelledTokens, trained: Trained, device: torch.device, reduce: Callable[[Tensor], Tensor]
) -> np.ndarray:
    """What `reduce` leaves on the CPU of the hub tokens of every run, averaged over each subject's runs: (n, ...)."""
    model = cast(FusionModel, trained.model).to(device).eval()
    n = len(data.labels.subjects)
    total: np.ndarray | None = None
    for ((runs, batch),) in data.read(data.equal_batches(np.ones(n, bool))):
        with autocast(trained, device):
            found = reduce(model.encode(*fusion_arguments(batch, device))).numpy()
        if total is None:
            total = np.zeros((n, *found.shape[1:]))
        np.add.at(total, data.subject[runs], found)
    assert total is not None  # `join` refuses labels without runs
    n_runs = np.bincount(data.subject, minlength=n)
    return total / n_runs.reshape(-1, *[1] * (total.ndim - 1))
