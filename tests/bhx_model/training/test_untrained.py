"""The untrained weights of a trained function stage."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from tiny_shards import words

from bhx_model.errors import DataError
from bhx_model.training import stages, train
from bhx_model.training.trained import load_trained
from bhx_model.training.untrained import untrained_function


@pytest.fixture(scope="module")
def still(house, tmp_path_factory):
    """A training of one step, with seed 3, that moves nothing."""
    folder = tmp_path_factory.mktemp("still")
    changes = {"train.steps": 1, "train.lr": 1e-30, "train.min_lr": 1e-30, "train.warmup_steps": 0}
    places = {**house, "runs": folder / "runs"}
    assert train.main([*words(places, "function", folder / "function", changes), "--seed", "3"]) == 0
    return folder / "function"


def test_they_are_those_that_a_training_starts_from(still):
    trained = load_trained(still, "function")
    found = untrained_function(trained).state_dict()
    assert found.keys() == trained.model.state_dict().keys()
    for name, wanted in trained.model.state_dict().items():
        torch.testing.assert_close(found[name], wanted, atol=1e-20, rtol=0, msg=name)


def test_buffers_are_kept_and_weights_are_not(trained):
    function = load_trained(trained["function"], "function")
    found, kept = untrained_function(function), function.model
    for name, buffer in kept.named_buffers():
        assert torch.equal(dict(found.named_buffers())[name], buffer), name
    weights = dict(kept.named_parameters())
    moved = [n for n, p in found.named_parameters() if not torch.equal(p, weights[n])]
    assert len(moved) > len(weights) / 2


def test_they_are_what_the_stage_builds(trained):
    function = load_trained(trained["function"], "function")
    sources = stages.Sources(
        shards=[trained["town"], trained["ward"]], split=trained["split"], rois=trained["rois"]
    )
    torch.manual_seed(0)
    built = stages.FunctionStage(function.config, sources, 0).build()
    for name, wanted in built.state_dict().items():
        torch.testing.assert_close(untrained_function(function).state_dict()[name], wanted, msg=name)


def test_the_random_state_is_left_alone(trained):
    function = load_trained(trained["function"], "function")
    before = torch.get_rng_state()
    untrained_function(function)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_without_a_seed_is_refused(trained):
    function = load_trained(trained["function"], "function")
    run = {
        name: value for name, value in json.loads(json.dumps(dict(function.run))).items() if name != "seed"
    }
    with pytest.raises(DataError, match="states no seed"):
        untrained_function(dataclasses.replace(function, run=run))
