"""Trainings of a few steps in this process, and what they leave."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file

from bhx_model.training import stages, train

SIX = {
    "train.steps": 6,
    "train.warmup_steps": 2,
    "train.batch_size": 4,
    "train.save_every": 3,
    "train.log_every": 2,
}


def arguments(house, folder, stage, changes=SIX, **more):
    words = ["--stage", stage, "--preset", "tiny", "--set", json.dumps(changes)]
    words += ["--shards", str(house["town"]), str(house["ward"])]
    words += ["--split", str(house["split"]), "--rois", str(house["rois"])]
    words += ["--run-root", str(folder / "runs"), "--out", str(folder / "out")]
    for name, value in more.items():
        words += [f"--{name}", *([value] if isinstance(value, str) else value)]
    return words


def run_folder(folder):
    (found,) = (folder / "runs").iterdir()
    return found


def stopped_after(steps):
    """A should_stop that is true after so many calls."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) == steps


def train_here(house, folder, stage, changes=SIX, should_stop=lambda: False, step_version=0, **more):
    """Run the loop in this process."""
    words = train._parse(arguments(house, folder, stage, changes, **more))
    config = train.load_preset(stage, "tiny").override(changes)
    sources = stages.Sources(shards=words.shards, split=words.split, rois=words.rois, tokens=words.tokens)
    return train.train(
        config, sources, seed=0, step_version=step_version, run_root=words.run_root, out=words.out,
        workers=2 if words.workers is None else words.workers,
        processes=train.Processes(0, 1, torch.device("cpu")), should_stop=should_stop,
    )  # fmt: skip


def same_weights(one, other):
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
