"""Fine-tuning of the fusion."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bhx_model.config import EvaluationConfig
from bhx_model.data import loader, token_index
from bhx_model.errors import DataError
from bhx_model.evaluation import finetune as module
from bhx_model.evaluation import metrics
from bhx_model.evaluation.finetune import finetune
from bhx_model.evaluation.labelled_tokens import join
from bhx_model.evaluation.labels import read_labels
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.heads import EndpointModel
from bhx_model.training.trained import load_trained


def test_a_batch_of_several_lengths_trains_as_one(trained, monkeypatch):
    """Runs of other lengths are groups of their own, and count by their number."""
    fusion = load_trained(trained["fusion"], "fusion")
    data = join(read_labels(trained["labels"]), token_index.open_tokens(trained["tokens_town"]))
    settings = EvaluationConfig(epochs=4, warmup_epochs=1, batch_size=4, drop_path=0.0, lr=5e-2)
    order = loader.epoch_batches

    def cut(buckets, **more):
        return [[batch[0][:1], batch[0][1:]] if batch[0][1:] else batch for batch in order(buckets, **more)]

    whole, _ = finetune(data, fusion, settings, 0, torch.device("cpu"))
    monkeypatch.setattr(loader, "epoch_batches", cut)
    parts, _ = finetune(data, fusion, settings, 0, torch.device("cpu"))
    np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_accumulation_changes_nothing_but_rounding(trained):
    """Nor what is skipped at random."""
    fusion = load_trained(trained["fusion"], "fusion")
    deep = dataclasses.replace(fusion.model.config, depth=3)
    fusion = dataclasses.replace(fusion, model=FusionModel(deep, fusion.model.inputs))
    data = join(read_labels(trained["labels"]), token_index.open_tokens(trained["tokens_town"]))
    settings = EvaluationConfig(epochs=3, warmup_epochs=1, batch_size=4, drop_path=0.5, lr=5e-3)
    trained_on = []
    model = EndpointModel.forward

    def noted(self, structure, *more):
        trained_on.extend([len(structure)] if self.training else [])
        return model(self, structure, *more)

    whole, _ = finetune(data, fusion, settings, 0, torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EndpointModel, "forward", noted)
        parts, _ = finetune(data, fusion, dataclasses.replace(settings, accumulate=2), 0, torch.device("cpu"))
    assert max(trained_on) == 2
    np.testing.assert_allclose(parts, whole, atol=1e-4)
    other, _ = finetune(data, fusion, settings, 1, torch.device("cpu"))
    assert np.abs(other - whole).max() > 1e-3


def test_a_gradient_that_is_not_finite_names_step_and_subjects_though_it_is_read_late(trained, monkeypatch):
    fusion = load_trained(trained["fusion"], "fusion")
    data = join(read_labels(trained["labels"]), token_index.open_tokens(trained["tokens_town"]))
    settings = EvaluationConfig(epochs=3, warmup_epochs=1, batch_size=2)
    losses = []

    def spoilt(*arguments):
        losses.append(endpoint_loss(*arguments))
        return losses[-1] * float("nan") if len(losses) == 2 else losses[-1]

    endpoint_loss = module.endpoint_loss
    monkeypatch.setattr(module, "endpoint_loss", spoilt)
    monkeypatch.setattr(module, "reads_late", lambda device: True)
    with pytest.raises(DataError, match=r"the gradient of step 2 is not finite, subjects: \d"):
        finetune(data, fusion, settings, 0, torch.device("cpu"))
    assert len(losses) > 2, "one step more was queued"


def test_the_epoch_that_is_best_on_the_validation_subjects_predicts(trained, monkeypatch):
    fusion = load_trained(trained["fusion"], "fusion")
    data = join(read_labels(trained["labels"]), token_index.open_tokens(trained["tokens_town"]))
    val, scored = data.labels.of("val"), []
    predict, losses = module.predict, iter([3.0, 1.0, 2.0, 1.5])
    monkeypatch.setattr(module, "predict", lambda *a: scored.append(predict(*a)) or scored[-1])
    monkeypatch.setattr(metrics, "selection_loss", lambda *a: next(losses))
    settings = EvaluationConfig(epochs=4, warmup_epochs=1, lr=5e-2, batch_size=4)
    scores, chosen = finetune(data, fusion, settings, 0, torch.device("cpu"))
    assert chosen["epoch"] == 2
    np.testing.assert_allclose(scores[val], scored[1][val], atol=1e-6)
    assert np.abs(scores[val] - scored[3][val]).max() > 1e-3
