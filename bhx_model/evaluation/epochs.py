"""What attentive probe and fine-tuning share: their targets and their learning rate."""

from __future__ import annotations

import torch
from torch import Tensor

from bhx_model.config import EvaluationConfig
from bhx_model.evaluation.labels import Labels
from bhx_model.training import schedules


def scaled_target(labels: Labels) -> tuple[Tensor, float, float]:
    """Return what is learned, a value per subject (N,), its scale and its centre.

    Values are in units of their spread among the training subjects: target = learned * scale + centre.
    """
    if labels.n_classes:
        return torch.from_numpy(labels.target), 1.0, 0.0
    values = labels.target[labels.of("train")]
    centre, scale = float(values.mean()), float(values.std()) or 1.0
    # in single precision, as they are compared, since not every device has more
    return torch.from_numpy((labels.target - centre) / scale).float(), scale, centre


def learning_rate(settings: EvaluationConfig, step: int, per_epoch: int) -> float:
    """Learning rate of `step`, of which every epoch has `per_epoch`: a warm-up, then a cosine."""
    steps = settings.epochs * per_epoch
    warmup = min(settings.warmup_epochs * per_epoch, steps - 1)
    return schedules.warmup_cosine(step, steps=steps, warmup=warmup, peak=settings.lr, end=settings.min_lr)
