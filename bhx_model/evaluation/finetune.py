"""Fine-tuning: the fusion's encoder and a head, trained together on cached tokens."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bhx_model.config import EvaluationConfig
from bhx_model.data import loader
from bhx_model.data.batch import Batch
from bhx_model.errors import DataError
from bhx_model.evaluation import metrics
from bhx_model.evaluation.epochs import learning_rate, scaled_target
from bhx_model.evaluation.labelled_tokens import LabelledTokens, autocast, fusion_arguments
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.heads import EndpointModel, HubHead, endpoint_loss, n_outputs
from bhx_model.nets.vit import Kept
from bhx_model.training import optim
from bhx_model.training.step_outcome import AsyncCopy, reads_late
from bhx_model.training.trained import Trained

logger = logging.getLogger(__name__)


def finetune(
    data: LabelledTokens,
    trained: Trained,
    settings: EvaluationConfig,
    seed: int,
    device: torch.device,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Train on the runs of the training subjects; the epoch that is best on the validation subjects predicts.

    Returns
    -------
    scores : ndarray, (n, classes) probabilities or (n, 1) predictions
    chosen : dict
        ``epoch``, counted from 1, and the settings.

    Raises
    ------
    DataError
        If a gradient is not finite.
    """
    torch.manual_seed(seed)
    labels = data.labels
    model = _build(data, trained, settings).to(device)
    used = _used(model)
    depth = model.fusion.config.depth
    groups = optim.parameter_groups(used, layer_decay=settings.layer_decay, n_blocks=depth)
    optimizer = optim.adamw(groups, betas=(0.9, 0.999))

    target, scale, centre = scaled_target(labels)
    runs = [int(n) for n in np.flatnonzero(labels.of("train")[data.subject])]
    buckets = [data.patches(run) for run in runs]
    per_epoch = -(-len(runs) // settings.batch_size)
    best: tuple[float, int, dict[str, Tensor]] | None = None
    val = labels.of("val")
    # the gradient of a step is looked at when the next one is queued, so that a GPU never runs out of work
    queued: list[tuple[int, AsyncCopy, list[int]]] = []
    for epoch in range(settings.epochs):
        model.train()
        order = loader.epoch_batches(buckets, batch_size=settings.batch_size, seed=seed, epoch=epoch)
        batches = [_parts([[runs[place] for place in group] for group in batch], settings) for batch in order]
        for place, groups in enumerate(data.read(batches)):
            step = epoch * per_epoch + place
            lr = learning_rate(settings, step, per_epoch)
            optim.set_schedule(optimizer, lr=lr, weight_decay=settings.weight_decay)
            kept = _kept(model, order[place], settings, device)
            _backward(model, groups, kept, target, data, trained, settings, device)
            norm = torch.nn.utils.clip_grad_norm_([p for _, p in used], settings.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            queued.append((step, AsyncCopy(norm), [n for numbers, _ in groups for n in numbers]))
            if len(queued) > 1 or not reads_late(device):
                _check(*queued.pop(0), data)
        while queued:
            _check(*queued.pop(0), data)
        scores = predict(data, val, model, trained, device) * scale + centre
        loss = metrics.selection_loss(labels.target[val], scores[val], labels.n_classes)
        if best is None or loss < best[0]:
            best = (loss, epoch + 1, {name: value.clone() for name, value in model.state_dict().items()})
        logger.info(
            "%s finetune seed %d: epoch %d of %d, validation loss %.4f, best %.4f in epoch %d",
            labels.endpoint, seed, epoch + 1, settings.epochs, loss, best[0], best[1],
        )  # fmt: skip
    assert best is not None
    model.load_state_dict(best[2])
    everyone = np.ones(len(labels.subjects), bool)
    scores = predict(data, everyone, model, trained, device) * scale + centre
    return scores, {"epoch": best[1], "settings": dataclasses.asdict(settings)}


def _backward(
    model: EndpointModel,
    groups: Sequence[tuple[list[int], Batch]],
    kept: Sequence[Kept],
    target: Tensor,
    data: LabelledTokens,
    trained: Trained,
    settings: EvaluationConfig,
    device: torch.device,
) -> None:
    """Leave the gradient of a batch's loss, the mean over its runs, in the parameters; nothing here waits for a GPU."""
    size = sum(len(runs) for runs, _ in groups)
    for (runs, batch), of_part in zip(groups, kept, strict=True):
        labels = Batch(batch.keys, {"wanted": target[data.subject[runs]]}).pin().to(device)
        with autocast(trained, device):
            output = model(*fusion_arguments(batch, device), of_part)
            loss = endpoint_loss(output, labels.tensors["wanted"], data.labels.kind, settings.label_smoothing)
        (loss * (len(runs) / size)).backward()


def _parts(batch: Sequence[Sequence[int]], settings: EvaluationConfig) -> list[list[int]]:
    """Cut the groups of a batch into parts that go through the network at once, see `EvaluationConfig.accumulate`."""
    return [list(group[part]) for group in batch for part in _cuts(len(group), settings)]


def _cuts(n: int, settings: EvaluationConfig) -> list[slice]:
    """Where a group of `n` runs is cut into parts."""
    size = -(-settings.batch_size // settings.accumulate)
    return [slice(first, first + size) for first in range(0, n, size)]


def _kept(
    model: EndpointModel, batch: Sequence[Sequence[int]], settings: EvaluationConfig, device: torch.device
) -> list[Kept]:
    """Draw which branches the runs of every part skip: for whole groups, so that it is the same however they are cut."""
    found: list[Kept] = []
    for group in batch:
        drawn = model.fusion.blocks.draw(len(group), device)
        for part in _cuts(len(group), settings):
            found.append([None if of_block is None else of_block[part] for of_block in drawn])
    return found


def _check(step: int, norm: AsyncCopy, runs: list[int], data: LabelledTokens) -> None:
    """Refuse a gradient of a step that is not finite."""
    if not math.isfinite(norm.read()):
        subjects = ", ".join(sorted({data.labels.subjects[data.subject[run]] for run in runs}))
        msg = f"the gradient of step {step + 1} is not finite, subjects: {subjects}: lower --set lr"
        raise DataError(msg)


def _build(data: LabelledTokens, trained: Trained, settings: EvaluationConfig) -> EndpointModel:
    """Make a copy of the trained fusion with a new head."""
    base = cast(FusionModel, trained.model)
    fusion = FusionModel(dataclasses.replace(base.config, drop_path=settings.drop_path), base.inputs)
    fusion.load_state_dict(base.state_dict())
    head = HubHead(base.config.width, n_outputs(data.labels.kind, data.labels.n_classes))
    return EndpointModel(fusion, head)


def _used(model: EndpointModel) -> list[tuple[str, torch.nn.Parameter]]:
    """Weights that are trained: the decoder takes no part."""
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if not name.startswith(("fusion.decoder", "fusion.mask"))
    ]


@torch.no_grad()
def predict(
    data: LabelledTokens,
    subjects: np.ndarray,
    model: EndpointModel,
    trained: Trained,
    device: torch.device,
) -> np.ndarray:
    """Probabilities or (scaled) predictions, averaged over runs; 0 for those who are not in `subjects`, (n,) bool."""
    model.eval()
    n_classes = data.labels.n_classes
    total = np.zeros((len(data.labels.subjects), n_classes or 1))
    found: list[tuple[list[int], Tensor]] = []
    for ((runs, batch),) in data.read(data.equal_batches(subjects)):
        with autocast(trained, device):
            output = model(*fusion_arguments(batch, device)).float()
        found.append((runs, output.softmax(dim=-1) if n_classes else output))
    for runs, output in found:
        # to the CPU first: not every device has float64
        np.add.at(total, data.subject[runs], output.cpu().double().numpy())
    return total / np.bincount(data.subject, minlength=len(total))[:, None]
