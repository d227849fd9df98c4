"""What a training reads, and what ends it: a shard that is damaged, cut or gone is a sentence, soon."""

from __future__ import annotations

import shutil
import time

import children
import pytest
import torch
from training_runs import SIX, arguments

from bhx_model.data import reader, shard_hashes, shards, volumes
from bhx_model.data.memory import Memory
from bhx_model.errors import DataError
from bhx_model.training import feed, stages, train
from bhx_model.training.distributed import Processes

CPU = torch.device("cpu")


def open_house(house, stage="function", changes=SIX):
    sources = stages.Sources(shards=[house["town"], house["ward"]], split=house["split"], rois=house["rois"])
    return stages.open_stage(train.load_preset(stage, "tiny").override(changes), sources, 0)


@pytest.mark.parametrize("world", [1, 2])
def test_all_processes_together_read_what_each_step_needs_from_any_step_on(house, world):
    """However many threads read, and in however many parts: the same samples, cut and masked alike."""
    changes = {**SIX, "train.accumulate": 2, "train.steps": 12}
    found = {}
    for first, workers in ((0, 0), (0, 3), (5, 1)):
        for rank in range(world):
            processes, stage = Processes(rank, world, CPU), open_house(house, changes=changes)
            steps = range(first, 12)
            for step, (parts, weights) in zip(
                steps, feed.steps(stage, steps, processes, workers), strict=True
            ):
                read = list(parts)
                assert [b.keys for b in parts.taken] == [b.keys for b in read]
                assert len(read) == len(weights)
                expected = feed.share(stage, step, processes)
                for batch, numbers in zip(read, expected.parts, strict=True):
                    plain = stage.load(numbers, step, expected.epoch)
                    assert batch.keys == plain.keys
                    for name, tensor in plain.tensors.items():
                        torch.testing.assert_close(
                            batch.tensors[name], tensor, rtol=0, atol=0, equal_nan=True
                        )
                found.setdefault((rank, step), []).append([batch.keys for batch in read])
    assert all(
        listed.count(listed[0]) == len(listed) == (3 if step >= 5 else 2)
        for (_, step), listed in found.items()
    )
    for epoch in range(3):  # of four steps
        keys = [
            key
            for (rank, step), listed in found.items()
            if step // 4 == epoch
            and feed.share(open_house(house, changes=changes), step, Processes(rank, world, CPU)).weights[0]
            for part in listed[0]
            for key in part
        ]
        assert len(keys) == len(set(keys)) == 13


class HostMemory(Memory):
    """Memory of a reader for a GPU, without one: what is read into it is what a GPU gets."""

    def __init__(self, *, pinned):
        super().__init__()
        self.pinned = True

    def empty(self, shape, dtype):
        return torch.full(tuple(shape), 77, dtype=dtype)


@pytest.mark.parametrize("workers", [0, 3])
def test_what_is_read_for_a_gpu_is_the_same_on_it(house, monkeypatch, workers):
    monkeypatch.setattr(reader, "Memory", HostMemory)
    monkeypatch.setattr(shards, "read_t1w_into", None)  # differences are read
    stage, processes = open_house(house, "structure", {**SIX, "train.accumulate": 2}), Processes(0, 1, CPU)
    read = [batch for parts, _ in feed.steps(stage, range(3), processes, workers) for batch in parts]
    monkeypatch.undo()
    shares = [feed.share(stage, step, processes) for step in range(3)]
    plain = [stage.load(numbers, one.step, one.epoch) for one in shares for numbers in one.parts]
    for ours, theirs in zip(read, plain, strict=True):
        assert ours.keys == theirs.keys
        assert ours.tensors.keys() == theirs.tensors.keys()
        for name, tensor in theirs.tensors.items():
            assert torch.equal(ours.tensors[name], tensor)


def test_an_epoch_is_planned_once(house, monkeypatch):
    stage = open_house(house)
    planned = []
    plan = stages.plan_series
    monkeypatch.setattr(
        stages, "plan_series", lambda sample, *a, **k: planned.append(k["epoch"]) or plan(sample, *a, **k)
    )
    steps = range(12)
    for _, (parts, _) in zip(steps, feed.steps(stage, steps, Processes(0, 1, CPU), 3), strict=True):
        list(parts)
    assert sorted(planned) == sorted([0, 1, 2] * stage.n_train)


@pytest.fixture
def town(house, tmp_path):
    return shutil.copytree(house["town"].parent, tmp_path / "town") / "index.json"


@pytest.mark.parametrize("fault", ["gone", "cut", "damaged", "unreadable"])
@pytest.mark.parametrize("stage", ["structure", "function"])
def test_a_shard_that_is_lost_during_the_training_is_a_sentence(
    house, town, tmp_path, capsys, monkeypatch, stage, fault
):
    modality = {"structure": "t1w", "function": "bold"}[stage]
    verify = shard_hashes.verify

    def lost(*args, **kwargs):  # whatever happens, happens after the shards were checked
        verify(*args, **kwargs)
        for tar in town.parent.glob(f"{modality}-*.tar"):
            content = tar.read_bytes()
            tar.unlink()
            if fault == "cut":
                tar.write_bytes(content[:700])
            elif fault == "damaged":
                tar.write_bytes(bytes(len(content)))
            elif fault == "unreadable":
                tar.mkdir()

    monkeypatch.setattr(shard_hashes, "verify", lost)
    # with a code of connectivity, a model reads a few runs when it is built, which is no part of the feed
    plain = {"model.connectivity_code": 0, "model.connectivity_weight": 0.0}
    changes = {**SIX, **plain} if stage == "function" else SIX
    assert train.main(arguments({**house, "town": town}, tmp_path, stage, changes)) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if " ERROR " in line]
    assert f"{modality}-0000" in said
    assert {"gone": "is gone", "cut": "was cut", "damaged": "no stored", "unreadable": "cannot read"}[
        fault
    ] in said
    assert "again" in said
    assert len(said.partition(" ERROR ")[2].replace(str(town.parent), "")) <= 200


def test_a_bug_in_a_thread_ends_the_training_with_its_traceback(house, tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(volumes, "decode", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        train.main(arguments(house, tmp_path, "structure"))


def lose_the_shards():
    def lost(sample, out):
        raise DataError(f"the shard {sample.shard} is gone, though its index names it: pack it again")

    shards.read_t1w_into = lost


def test_an_error_of_one_process_ends_all(house, tmp_path):
    pair = children.start_all(
        arguments(house, tmp_path, "structure"), 2, faults={1: lose_the_shards}, log=tmp_path / "log"
    )
    began = time.monotonic()
    assert children.end(pair) == [1, 1]
    assert time.monotonic() - began < 100  # the other waits for gradients, for which it has an hour
    assert "is gone, though its index names it" in (tmp_path / "log.1").read_text()
