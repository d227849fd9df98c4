"""What a machine with GPUs would trip over, found on one without: tensors that are nowhere, and a pretended CUDA."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch

from bhx_model.data.batch import Batch
from bhx_model.errors import SiteError
from bhx_model.training import distributed, loop, optim, stages, train
from bhx_model.training.step_outcome import AsyncCopy, StepOutcome

NOWHERE = torch.device("meta")


@pytest.fixture
def nowhere(monkeypatch):
    """A device whose tensors refuse to meet others and to give away their numbers."""

    def autocast(kind, dtype=None, enabled=True):
        assert kind == NOWHERE.type or not enabled  # a model is built on the CPU
        return contextlib.nullcontext()

    monkeypatch.setattr(torch, "autocast", autocast)
    return train.Processes(0, 1, NOWHERE)


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("structure", {}),
        ("function", {}),
        ("fusion", {}),
        ("fusion", {"model.inputs": "online"}),
        ("fusion", {"model.inputs": "online", "model.loss_tokens": "all"}),
    ],
)
def test_a_step_stays_on_its_device_and_does_not_wait_for_it(trained, nowhere, stage, changes):
    sources = stages.Sources(
        shards=[trained["town"], trained["ward"]], split=trained["split"], rois=trained["rois"],
        tokens=[trained["tokens_town"], trained["tokens_ward"]], structure=trained["structure"],
        function=trained["function"],
    )  # fmt: skip
    config = train.load_preset(stage, "tiny").override({**changes, "train.accumulate": 2})
    opened = stages.open_stage(config, sources, 0, NOWHERE)
    model = opened.build().to(NOWHERE)
    optimizer = optim.adamw(optim.parameter_groups(model.named_parameters()), betas=config.train.betas)
    parts, weights = loop.rank_share(opened, 0, nowhere)
    assert len(parts) > 1
    losses, stats = loop.backward(model, opened, parts, weights, nowhere)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if stage == "function":
        model.update_target(0.9)
    assert {t.device for t in (losses, norm, *stats.values())} == {NOWHERE}
    outcome = StepOutcome(
        0, losses, norm, stats, parts=parts, weights=weights, stop=False, unsaved=False, processes=nowhere
    )
    with pytest.raises(RuntimeError, match="meta"):  # else this would prove nothing; and all is read at once
        outcome.read()


@pytest.fixture
def cuda(monkeypatch):
    """Four GPUs, pretended; what was asked of them."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append(("set", device)))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 6)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, **more: asked.append((backend, more))
    )
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: asked.append("left"))
    return asked


def processes_of_node(monkeypatch, local):
    for name, value in (("RANK", "6"), ("LOCAL_RANK", str(local)), ("WORLD_SIZE", "8")):
        monkeypatch.setenv(name, value)


def test_every_process_of_a_node_takes_its_gpu(cuda, monkeypatch):
    processes_of_node(monkeypatch, 2)
    gpu = torch.device("cuda", 2)
    with distributed.start() as processes:
        assert (processes.rank, processes.world, processes.device) == (6, 8, gpu)
    (set_, (backend, more), left) = cuda
    assert (set_, backend, left) == (("set", gpu), "nccl", "left")
    assert more["device_id"] == gpu
    assert more["timeout"] >= timedelta(minutes=30), "shards are checked before the processes first meet"


def test_without_nccl_gradients_are_exchanged_over_gloo(cuda, monkeypatch, caplog):
    asked = []

    def without_nccl(backend, **more):
        asked.append((backend, more["device_id"]))
        if backend == "nccl":
            raise RuntimeError("Distributed package doesn't have NCCL built in")

    processes_of_node(monkeypatch, 2)
    monkeypatch.setattr(torch.distributed, "init_process_group", without_nccl)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    with distributed.start() as processes:
        assert processes.device == torch.device("cuda", 2)
    assert asked == [("nccl", torch.device("cuda", 2)), ("gloo", None)]
    assert "this PyTorch has no NCCL" in caplog.text


def test_an_nccl_that_fails_is_a_sentence(cuda, monkeypatch):
    def fails(backend, **more):
        raise torch.distributed.DistBackendError("NCCL error in: init.cpp:93,\n unhandled system error")

    processes_of_node(monkeypatch, 2)
    monkeypatch.setattr(torch.distributed, "init_process_group", fails)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    sentence = r"do not find each other \(NCCL error.*NCCL_SOCKET_IFNAME names the network"
    with pytest.raises(SiteError, match=sentence), distributed.start():
        pass


def test_more_processes_than_gpus_are_a_sentence(cuda, monkeypatch):
    processes_of_node(monkeypatch, 4)
    with pytest.raises(ValueError, match="finds 4 GPUs: start one process per GPU"), distributed.start():
        pass


def test_a_process_with_a_fault_does_not_wait_for_the_others(cuda, monkeypatch):
    processes_of_node(monkeypatch, 0)
    with pytest.raises(ValueError, match="gone"), distributed.start():
        raise ValueError("a shard is gone")
    assert "left" not in cuda


def test_batches_are_pinned_ahead_where_there_is_a_gpu(monkeypatch):
    batch = Batch(["a"], {"x": torch.zeros(2)})
    assert batch.pin() is batch
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
    assert batch.pin().tensors["x"].tolist() == [1, 1]
    assert batch.keys == batch.pin().keys


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "[x/pair.cc:553] Connection closed by peer [10.0.0.1]:28550. GLHF!",
            "Connection closed by peer [10.0.0.1]",
        ),
        ("NCCL error: remote process exited or there was a network error", "remote process exited"),
        ("Timed out waiting 3600000ms for recv operation", "Timed out waiting 3600000ms"),
    ],
)
def test_a_process_that_loses_another_says_so(cuda, monkeypatch, said, sentence):
    processes_of_node(monkeypatch, 0)
    with pytest.raises(SiteError) as caught, distributed.start():
        raise RuntimeError(said)
    assert f"another process of this training is gone ({sentence})" in str(caught.value)
    assert len(str(caught.value)) <= 200
    with pytest.raises(RuntimeError, match="ours"), distributed.start():
        raise RuntimeError("a fault of ours")


def test_a_gpus_numbers_are_copied_behind_its_work_and_waited_for_when_they_are_read(monkeypatch):
    asked = []

    class Event:
        def record(self):
            asked.append("recorded")

        def synchronize(self):
            asked.append("waited for")

    class Host:
        def copy_(self, source, non_blocking):
            asked.append(("copied", non_blocking))
            self.numbers = source.tolist

        def tolist(self):
            return self.numbers()

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(
        torch, "empty", lambda shape, dtype, pin_memory: asked.append(("pinned", pin_memory)) or Host()
    )
    of_gpu = SimpleNamespace(is_cuda=True, shape=(2,), dtype=torch.float32, tolist=lambda: [1.0, 2.0])
    numbers = AsyncCopy(of_gpu)
    assert asked == [("pinned", True), ("copied", True), "recorded"]
    assert numbers.read() == [1, 2]
    assert asked[3:] == ["waited for"]
