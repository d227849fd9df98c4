"""Fine-tuning of the fusion."""

from __future__ import annotations

import numpy as np
import torch

from bhx_model.config import EvaluationConfig
from bhx_model.data import loader, token_index
from bhx_model.evaluation import finetune as module
from bhx_model.evaluation import metrics
from bhx_model.evaluation.finetune import finetune
from bhx_model.evaluation.labelled_tokens import join
from bhx_model.evaluation.labels import read_labels
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
