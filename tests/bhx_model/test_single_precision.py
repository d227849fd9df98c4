"""Embedding and probes on a device that has no float64, as the GPUs of Apple; pretended by tensors that are nowhere."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from endpoint_labels import labels_of, split_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bhx_model.config import EvaluationConfig
from bhx_model.data import shards, token_index
from bhx_model.evaluation import hub_tokens
from bhx_model.evaluation.attentive import attentive_probe
from bhx_model.evaluation.finetune import finetune
from bhx_model.evaluation.function_tokens import FunctionEncoders
from bhx_model.evaluation.labelled_tokens import join
from bhx_model.evaluation.labels import read_labels
from bhx_model.evaluation.readouts import blocks
from bhx_model.inspection.saliency import roi_saliency
from bhx_model.nets import pos_embed
from bhx_model.training.encoders import Encoders
from bhx_model.training.trained import load_trained

NOWHERE = torch.device("meta")


class NoDoublePrecision(TorchDispatchMode):
    """Refuses float64 anywhere but on the CPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, made)):
            if (
                isinstance(tensor, torch.Tensor)
                and tensor.device == NOWHERE
                and tensor.dtype == torch.float64
            ):
                pytest.fail(f"{func} meets float64 on the device")
        return made


@pytest.fixture
def single_precision(monkeypatch):
    """Zeros come to the CPU from a device that has no numbers, and no float64."""

    def on_cpu(tensor):
        return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor

    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "cpu", on_cpu)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: tolist(on_cpu(tensor)))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    pos_embed._time_code.cache_clear()
    with NoDoublePrecision():
        yield


def test_float64_on_the_device_is_found(single_precision):
    torch.zeros(2, dtype=torch.float64)
    with pytest.raises(pytest.fail.Exception, match="meets float64"):
        torch.zeros(2, dtype=torch.float64, device=NOWHERE)


def test_encoders_embed_without_float64(trained, single_precision):
    encoders = Encoders.open(trained["structure"], trained["function"]).to(NOWHERE)
    index = shards.open_index(trained["town"])
    pairs = shards.pair(index.samples["bold"], index.samples["t1w"])[0][:2]
    batch = encoders.load(pairs[:1]).to(NOWHERE)
    structure, function, _ = encoders.encode(batch)
    padded = encoders.function.encode(batch.tensors["series"], batch.patch_frames, pad_to=18)
    assert {structure.device, function.device, padded.device} == {NOWHERE}
    encoders.function.connectivity_code(batch.tensors["series"], batch.patch_frames)
    readers = FunctionEncoders.open(trained["function"], NOWHERE)
    assert {found.device for found in readers.encode(batch).values()} == {NOWHERE}
    blocks(structure, encoders.structure.patches)


def test_probes_and_fine_tuning_need_no_float64(trained, single_precision):
    fusion = load_trained(trained["fusion"], "fusion")
    data = join(read_labels(trained["labels"]), token_index.open_tokens(trained["tokens_town"]))
    for read in (hub_tokens.mean_hub_tokens, hub_tokens.hub_tokens, hub_tokens.hub_covariance):
        assert read(data, fusion, NOWHERE).dtype == np.float64
    fusion = load_trained(trained["fusion"], "fusion")  # the other one is nowhere now
    scores, _ = finetune(data, fusion, EvaluationConfig(epochs=1, batch_size=4, accumulate=2), 0, NOWHERE)
    assert np.isfinite(scores).all()


def test_the_attentive_probe_needs_no_float64(single_precision):
    random = np.random.default_rng(0)
    for target in (random.integers(0, 2, 40), random.normal(size=40)):
        labels = labels_of(target, split_of(20, 10, 10))
        scores, _ = attentive_probe(
            labels, random.normal(size=(40, 6, 8)), 2, EvaluationConfig(epochs=1), 0, NOWHERE
        )
        assert len(scores) == 40
        assert np.isfinite(scores).all()


def test_saliency_needs_no_float64(trained, single_precision, monkeypatch):
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda tensor: tensor.to("cpu") if not tensor.is_meta else moved(tensor)
    )
    encoders = Encoders.open(trained["structure"], trained["function"]).to(NOWHERE)
    index = shards.open_index(trained["town"])
    pairs = shards.pair(index.samples["bold"], index.samples["t1w"])[0]
    batch = encoders.load(pairs[:1]).to(NOWHERE)
    direction = torch.zeros(encoders.function.config.width, dtype=torch.float64)
    found = roi_saliency(encoders.function, batch, lambda tokens, n: tokens.mean(dim=1), direction)
    assert found.shape == (20,)


class _Moved(torch.autograd.Function):
    """Zeros on the CPU, through which a gradient comes back."""

    @staticmethod
    def forward(ctx, tensor):
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return torch.empty(gradient.shape, dtype=gradient.dtype, device=NOWHERE)


moved = _Moved.apply
