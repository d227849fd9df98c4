"""Attentive probe: one learned query that attends to frozen tokens, hub tokens or those of every ROI."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from bhx_model.config import EvaluationConfig
from bhx_model.evaluation import metrics
from bhx_model.evaluation.epochs import learning_rate, scaled_target
from bhx_model.evaluation.labels import Labels
from bhx_model.nets.heads import AttentiveProbe, endpoint_loss, n_outputs
from bhx_model.training import optim

#: Subjects that are predicted at once: keys and values of all ROIs of all subjects would fill the memory.
CHUNK = 256
CPU = torch.device("cpu")


def attentive_probe(
    labels: Labels,
    tokens_NHD: np.ndarray,
    heads: int,
    settings: EvaluationConfig,
    seed: int,
    device: torch.device = CPU,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Train on the training subjects; the epoch that is best on the validation subjects predicts.

    Parameters
    ----------
    labels : Labels
    tokens_NHD : ndarray, (n, H, D)
        Hub tokens, or tokens of H ROIs; standardised here, by the training subjects.
    heads : int
        Attention heads.
    settings : EvaluationConfig
        Epochs, batch size, learning rate, warm-up, weight decay and label smoothing.
    seed : int
    device : torch.device
        Where the probe computes.

    Returns
    -------
    scores : ndarray, (n, classes) probabilities or (n, 1) predictions
    chosen : dict
        ``epoch``, counted from 1, and the settings.
    """
    torch.manual_seed(seed)
    train, val = labels.of("train"), labels.of("val")
    spread = tokens_NHD[train].std(axis=(0, 1))
    scaled = (tokens_NHD - tokens_NHD[train].mean(axis=(0, 1))) / np.where(spread > 0, spread, 1)
    x = torch.from_numpy(scaled).float()
    target, scale, centre = scaled_target(labels)
    model = AttentiveProbe(x.shape[-1], n_outputs(labels.kind, labels.n_classes), heads).to(device)
    optimizer = optim.adamw(optim.parameter_groups(list(model.named_parameters())), betas=(0.9, 0.999))
    subjects = np.flatnonzero(train)
    per_epoch = -(-len(subjects) // settings.batch_size)
    best: tuple[float, int, np.ndarray] | None = None
    for epoch in range(settings.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(subjects)
        for place in range(per_epoch):
            batch = order[place * settings.batch_size :][: settings.batch_size]
            lr = learning_rate(settings, epoch * per_epoch + place, per_epoch)
            optim.set_schedule(optimizer, lr=lr, weight_decay=settings.weight_decay)
            output, wanted = model(x[batch].to(device)), target[batch].to(device)
            loss = endpoint_loss(output, wanted, labels.kind, settings.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            output = torch.cat([model(part.to(device)).cpu() for part in x.split(CHUNK)])
        scores = (output.softmax(dim=-1) if labels.n_classes else output).double().numpy() * scale + centre
        found = metrics.selection_loss(labels.target[val], scores[val], labels.n_classes)
        if best is None or found < best[0]:
            best = (found, epoch + 1, scores)
    assert best is not None
    return best[2], {"epoch": best[1], "settings": dataclasses.asdict(settings)}
