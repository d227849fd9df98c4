"""The file that makes Snakemake train a fusion again that is of something else, with or without a record of it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bhx_model.config import load_preset
from bhx_prep.config.config import check
from bhx_prep.fusion_recipe import write_recipes
from bhx_prep.step_versions import STEPS
from bhx_prep.trainings import Trainings


class Planned:
    """Snakemake's start: what is written, and whether the fusion is older than what it depends on."""

    def __init__(self, results: Path):
        self.results, self.changes = results, {}
        self.start()
        for path in (self.trainings.tokens("e", "a"), self.trainings.rois("e"), self.split):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.name)
        self.publish()

    @property
    def split(self) -> Path:
        return self.trainings.subjects_folder("e") / "pretrain.json"

    @property
    def file(self) -> Path:
        return self.results / "experiments/e/fusion.json"

    def start(self) -> bool:
        """Start it; whether the fusion is trained again."""
        raw = {
            "results": str(self.results),
            "cohorts": {"a": {"input": "timeseries", "root": "a", "tr_s": 2.0}},
            "experiments": {"e": {"cohorts": ["a"], "preset": "tiny", **self.changes}},
        }
        config = check(raw)
        self.trainings = Trainings(config)
        write_recipes(config, self.trainings)
        weights = self.results / "experiments/e/fusion/run.json"
        if not (weights.exists() and self.file.exists()):
            return True
        return self.file.stat().st_mtime_ns > weights.stat().st_mtime_ns

    def publish(self, **changes: Any) -> None:
        """End the training of a fusion, later than all before."""
        read = {"rois": self.trainings.rois("e"), "split": self.split}
        inputs: dict[str, Any] = {name: hash_of(path) for name, path in read.items()}
        inputs["tokens"] = [["a", hash_of(self.trainings.tokens("e", "a"))]]
        settings = load_preset("fusion", "tiny").override(self.changes.get("overrides", {}).get("fusion", {}))
        run = {
            "config": settings.to_dict(),
            "seed": 0,
            "step_version": STEPS["train_fusion"],
            "inputs": inputs,
            **changes,
        }
        weights = self.results / "experiments/e/fusion/run.json"
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_text(json.dumps(run))
        before = self.file.stat().st_mtime_ns - 10**9
        os.utime(self.file, ns=(before, before))


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    return Planned(tmp_path)


def test_right_weights_are_not_trained_again(planned):
    assert not planned.start()
    planned.changes = {"overrides": {"fusion": {"train.accumulate": 4, "train.log_every": 3}}, "gpus": 2}
    assert not planned.start(), "what changes no result"


def test_a_raised_version_trains_again_once(planned, monkeypatch):
    monkeypatch.setitem(STEPS, "train_fusion", STEPS["train_fusion"] + 1)
    assert planned.start()
    planned.publish()
    assert not planned.start()


@pytest.mark.parametrize(
    "changes",
    [
        {"overrides": {"fusion": {"model.hub_tokens": 4}}},
        {"overrides": {"structure": {"train.lr": 1e-5}}},
        {"seed": 1},
        {"preset": "small"},
    ],
    ids=str,
)
def test_another_setting_trains_again(planned, changes):
    planned.changes = changes
    assert planned.start()


def test_weights_of_a_job_that_outlived_a_change_are_not_taken_for_new_ones(planned):
    planned.publish(step_version=STEPS["train_fusion"] - 1)
    assert planned.start()
    planned.publish(seed=3)
    assert planned.start()
    planned.publish()
    assert not planned.start()
    planned.trainings.tokens("e", "a").write_text("tokens of other weights")
    assert planned.start()


def test_weights_that_say_nothing_are_trained_again(planned):
    (planned.results / "experiments/e/fusion/run.json").write_text("{}")
    assert planned.start()


def test_experiments_without_a_fusion_have_no_such_file(planned):
    planned.file.unlink()
    planned.changes = {"stages": ["function"]}
    planned.start()
    assert not planned.file.exists()
