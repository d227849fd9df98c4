"""The loop: resumed runs, several processes, and switches that must not change the weights."""

from __future__ import annotations

import json
import signal

import children
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_runs import SIX, arguments, lines, run_folder, same_weights, stopped_after, train_here

from bhx_model.training import checkpoint, loop, stages


@pytest.mark.parametrize("stage", ["structure", "function"])
@pytest.mark.parametrize("steps", [2, 3, 4])
def test_stopped_and_resumed_equals_straight_bit_for_bit(house, straight, tmp_path, stage, steps):
    assert train_here(house, tmp_path, stage, should_stop=stopped_after(steps)) == 75
    assert not (tmp_path / "out").exists()
    assert checkpoint.steps(run_folder(tmp_path))[-1] == steps
    assert train_here(house, tmp_path, stage) == 0
    same_weights(tmp_path / "out", straight / stage / "out")
    assert lines(tmp_path / "out/metrics.jsonl") == lines(straight / stage / "out/metrics.jsonl")
    ours, theirs = (
        json.loads((f / "run.json").read_text()) for f in (tmp_path / "out", straight / stage / "out")
    )
    assert {k: v for k, v in ours.items() if k != "seconds"} == {
        k: v for k, v in theirs.items() if k != "seconds"
    }
    assert ours["counts"]["samples_seen"] == {"structure": 22, "function": 18}[stage]


def test_killed_and_started_again_equals_straight(house, tmp_path):
    changes = {**SIX, "train.steps": 40, "train.save_every": 2, "train.log_every": 1}
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    child = children.start(arguments(house, killed, "function", changes))
    places = list(killed.glob("runs/*/metrics.jsonl"))
    children.wait_for(lambda: places or places.extend(killed.glob("runs/*/metrics.jsonl")))
    children.wait_for(lambda: places[0].read_text().count('"lr"') >= np.random.default_rng().integers(5, 20))
    children.kill(child)
    assert child.exitcode == -signal.SIGKILL
    assert not (killed / "out").exists()
    reached = checkpoint.steps(run_folder(killed))
    assert reached
    assert reached[-1] < 40
    assert children.end([children.start(arguments(house, killed, "function", changes))]) == [0]
    assert train_here(house, straight, "function", changes) == 0
    same_weights(killed / "out", straight / "out")
    assert lines(killed / "out/metrics.jsonl") == lines(straight / "out/metrics.jsonl")


@pytest.mark.parametrize("workers", [0, 3])
def test_workers_change_nothing(house, straight, tmp_path, workers):
    assert train_here(house, tmp_path, "function", workers=str(workers)) == 0
    same_weights(tmp_path / "out", straight / "function" / "out")


def test_the_order_of_cohorts_changes_nothing(house, straight, tmp_path):
    swapped = {**house, "town": house["ward"], "ward": house["town"]}
    assert train_here(swapped, tmp_path, "function") == 0
    same_weights(tmp_path / "out", straight / "function" / "out")


def test_accumulation_changes_nothing_but_rounding(house, straight, tmp_path):
    assert train_here(house, tmp_path, "function", {**SIX, "train.accumulate": 4}) == 0
    a = lines(tmp_path / "out/metrics.jsonl")
    b = lines(straight / "function" / "out/metrics.jsonl")
    for ours, theirs in zip(a, b, strict=True):
        for name in {"loss", "holdout_loss", "holdout_mean_predictor_loss"} & ours.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)


@pytest.mark.parametrize(
    ("stage", "changes"),
    [("structure", {}), ("function", {"model.whitening_weight": 0.0}), ("function", {}), ("fusion", {})],
)
def test_two_processes_have_the_gradients_of_one(trained, tmp_path, stage, changes):
    """Equal but for the rounding of float32, which depends on the processor: 1.2e-6 was seen."""
    sources = stages.Sources(
        shards=[trained["town"], trained["ward"]], split=trained["split"], rois=trained["rois"],
        tokens=[trained["tokens_town"], trained["tokens_ward"]],
    )  # fmt: skip
    found = {}
    for world, accumulate in ((1, 1), (2, 3)):
        # the step mixes buckets, and accumulation cuts them further
        preset = {"stage": stage, "set": {**changes, "train.batch_size": 6, "train.accumulate": accumulate}}
        found_here, reports = children.gradients_of(world, preset, sources, 1, tmp_path / str(world))
        assert [t["parts"] > 1 for t in reports] == [world > 1 or stage == "function"] * world
        found[world] = (found_here, children.keys_of(reports), reports[0]["loss"])
    assert found[1][1] == found[2][1]
    assert len(found[1][1]) in (5, 6)
    assert found[1][2] == pytest.approx(found[2][2], rel=1e-6)
    assert found[1][0].keys() == found[2][0].keys()
    largest = max(float(gradient.abs().max()) for gradient in found[1][0].values())
    for name, ours in found[2][0].items():
        theirs = found[1][0][name]
        scale = max(float(theirs.abs().max()), 0.05 * largest)
        assert float((ours - theirs).abs().max()) <= 1e-5 * scale, name


@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_stopped_or_killed_end_where_an_uninterrupted_pair_ends(house, tmp_path, killed):
    """Both stop together when one is asked to; killed, they resume from the last checkpoint."""
    changes = {**SIX, "train.steps": 30, "train.save_every": 10, "train.log_every": 1}
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert children.end(children.start_all(arguments(house, straight, "function", changes), 2)) == [0, 0]
    pair = children.start_all(arguments(house, broken, "function", changes), 2)
    places = []
    children.wait_for(lambda: places or places.extend(broken.glob("runs/*/metrics.jsonl")))
    if killed:
        children.wait_for(lambda: checkpoint.steps(run_folder(broken)))
        for child in pair:
            child.kill()
        assert children.end(pair) == [-signal.SIGKILL] * 2
        assert checkpoint.steps(run_folder(broken))[-1] < 30
    else:
        children.wait_for(lambda: places[0].read_text().count("\n") >= 3)
        pair[1].terminate()
        assert children.end(pair) == [75, 75]
    assert children.end(children.start_all(arguments(house, broken, "function", changes), 2)) == [0, 0]
    same_weights(straight / "out", broken / "out")


def test_compiled_training_computes_the_same(house, straight, tmp_path, monkeypatch):
    compiled = []
    compile_ = torch.compile

    def quickly(function, *, dynamic):
        compiled.append(dynamic)
        # without code generation, which takes minutes on a busy machine and is not ours
        return compile_(function, backend="eager", dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", quickly)
    assert train_here(house, tmp_path, "structure", {**SIX, "train.compile": True}) == 0
    assert compiled == [True]
    ours, theirs = (load_file(f / "out/model.safetensors") for f in (tmp_path, straight / "structure"))
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stop", [False, True])
def test_outcomes_that_are_read_late_change_nothing(house, straight, tmp_path, monkeypatch, stop):
    """As on a GPU, where they are read when the next step is queued; one that is asked to stop does a step more."""
    monkeypatch.setattr(loop, "reads_late", lambda device: True)
    if stop:
        assert train_here(house, tmp_path, "function", should_stop=stopped_after(2)) == 75
        assert checkpoint.steps(run_folder(tmp_path))[-1] == 3
    assert train_here(house, tmp_path, "function") == 0
    same_weights(tmp_path / "out", straight / "function" / "out")
    assert lines(tmp_path / "out/metrics.jsonl") == lines(straight / "function" / "out/metrics.jsonl")
