"""The loss on held-out subjects."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from training_runs import SIX, run_folder, train_here

from bhx_model.config import load_preset
from bhx_model.nets import jepa
from bhx_model.training import checkpoint, stages
from bhx_model.training.distributed import Processes
from bhx_model.training.holdout import evaluate_holdout

TERMS = {
    "loss",
    "mean_predictor_loss",
    "connectivity_loss",
    "connectivity_mean_predictor_loss",
    "whitening_loss",
}


def test_a_holdout_loss_that_is_not_finite_names_step_and_samples(house, tmp_path):
    """The step before went well, but left weights with which nothing can be computed."""
    changes = {**SIX, "train.warmup_steps": 0, "train.lr": 1e18, "train.clip": None, "train.save_every": 1}
    named = r"the holdout's loss of step 1 is not finite, samples: (town|ward)_sub-\d+, "
    with pytest.raises(ValueError, match=named):
        train_here(house, tmp_path, "structure", changes)
    assert checkpoint.steps(run_folder(tmp_path)) == []


@dataclasses.dataclass(frozen=True)
class Part(Processes):
    """One process of many, whose sums are its own, and who hears from the others what is reported."""

    def sum(self, values):
        return values

    def gather(self, names):
        return [*names, *TERMS]


@pytest.fixture
def opened(house):
    sources = stages.Sources(shards=[house["town"], house["ward"]], split=house["split"], rois=house["rois"])
    stage = stages.open_stage(load_preset("function", "tiny"), sources, 0)
    torch.manual_seed(0)
    return stage, stage.build()


def test_all_losses_are_means_over_the_samples(opened):
    """Of batches of one sample each, and of all."""
    stage, model = opened
    alone = Processes(0, 1, torch.device("cpu"))
    found, bad = evaluate_holdout(stage, model, alone)
    assert found.keys() == TERMS
    assert not bad
    numbers = [number for batch in stage.holdout(16) for number in batch]
    assert len(numbers) == stage.n_holdout > len(stage.holdout(16)) > 1
    one_by_one = []
    for batch in stage.holdout(16):
        args, kwargs = stage.inputs(stage.load(batch, 0, None))
        with torch.no_grad():
            one_by_one += [model.eval()(*args, **kwargs)[1]] * len(batch)
    for name in TERMS:
        wanted = sum(float(stats[name]) for stats in one_by_one) / len(numbers)
        assert found[name] == pytest.approx(wanted, rel=1e-6), name


def test_many_processes_find_the_same(opened):
    """More than there are batches: some have none."""
    stage, model = opened
    whole, _ = evaluate_holdout(stage, model, Processes(0, 1, torch.device("cpu")))
    world = len(stage.holdout(16)) + 1
    parts = [evaluate_holdout(stage, model, Part(r, world, torch.device("cpu")))[0] for r in range(world)]
    for name in TERMS:
        assert sum(part[name] for part in parts) == pytest.approx(whole[name], rel=1e-6), name


def test_a_term_that_is_not_finite_is_seen_on_the_holdout(opened, monkeypatch):
    stage, model = opened
    monkeypatch.setattr(jepa, "whitening_loss", lambda patches, kernel: patches.new_full((1,), float("nan")))
    _, bad = evaluate_holdout(stage, model, Processes(0, 1, torch.device("cpu")))
    assert len(bad) == stage.n_holdout


def test_the_run_says_how_well_connectivity_is_predicted(trained):
    loss = json.loads((trained["function"] / "run.json").read_text())["loss"]
    last = [json.loads(line) for line in (trained["function"] / "metrics.jsonl").read_text().splitlines()][-1]
    for name in ("connectivity", "connectivity_mean_predictor"):
        assert loss[name] == last[f"holdout_{name}_loss"]
    assert "connectivity" not in json.loads((trained["structure"] / "run.json").read_text())["loss"]
