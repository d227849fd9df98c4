"""Fine-tuning: the fusion's encoder and a head, trained together on cached tokens."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bhx_model.config import EvaluationConfig
from bhx_model.data import loader
from bhx_model.errors import DataError
from bhx_model.evaluation import metrics
from bhx_model.evaluation.epochs import learning_rate, scaled_target
from bhx_model.evaluation.labelled_tokens import LabelledTokens, autocast, fusion_arguments
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.heads import EndpointModel, HubHead, endpoint_loss, n_outputs
from bhx_model.training import optim
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
    # the decoder takes no part
    used = [
        (name, p)
        for name, p in model.named_parameters()
        if not name.startswith(("fusion.decoder", "fusion.mask"))
    ]
    depth = model.fusion.config.depth
    groups = optim.parameter_groups(used, layer_decay=settings.layer_decay, n_blocks=depth)
    optimizer = optim.adamw(groups, betas=(0.9, 0.999))

    target, scale, centre = scaled_target(labels)
    runs = [int(n) for n in np.flatnonzero(labels.of("train")[data.subject])]
    buckets = [data.patches(run) for run in runs]
    per_epoch = -(-len(runs) // settings.batch_size)
    best: tuple[float, int, dict[str, Tensor]] | None = None
    val = labels.of("val")
    for epoch in range(settings.epochs):
        model.train()
        order = loader.epoch_batches(buckets, batch_size=settings.batch_size, seed=seed, epoch=epoch)
        batches = [[[runs[place] for place in group] for group in batch] for batch in order]
        for place, groups in enumerate(data.read(batches)):
            step = epoch * per_epoch + place
            lr = learning_rate(settings, step, per_epoch)
            optim.set_schedule(optimizer, lr=lr, weight_decay=settings.weight_decay)
            size = sum(len(numbers) for numbers, _ in groups)
            for numbers, batch in groups:
                wanted = target[data.subject[numbers]].to(device)
                with autocast(trained, device):
                    output = model(*fusion_arguments(batch, device))
                    loss = endpoint_loss(output, wanted, labels.kind, settings.label_smoothing)
                (loss * (len(numbers) / size)).backward()
            norm = torch.nn.utils.clip_grad_norm_([p for _, p in used], settings.clip)
            if not torch.isfinite(norm):
                subjects = sorted(
                    {labels.subjects[data.subject[n]] for numbers, _ in groups for n in numbers}
                )
                msg = f"the gradient of step {step + 1} is not finite, subjects: {', '.join(subjects)}: lower --set lr"
                raise DataError(msg)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
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


def _build(data: LabelledTokens, trained: Trained, settings: EvaluationConfig) -> EndpointModel:
    """Make a copy of the trained fusion with a new head."""
    base = cast(FusionModel, trained.model)
    fusion = FusionModel(dataclasses.replace(base.config, drop_path=settings.drop_path), base.inputs)
    fusion.load_state_dict(base.state_dict())
    head = HubHead(base.config.width, n_outputs(data.labels.kind, data.labels.n_classes))
    return EndpointModel(fusion, head)


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
    for ((runs, batch),) in data.read(data.equal_batches(subjects)):
        with autocast(trained, device):
            output = model(*fusion_arguments(batch, device)).float()
        if n_classes:
            output = output.softmax(dim=-1)
        np.add.at(total, data.subject[runs], output.double().cpu().numpy())
    return total / np.bincount(data.subject, minlength=len(total))[:, None]
