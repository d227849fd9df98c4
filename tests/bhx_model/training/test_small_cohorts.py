"""Cohorts that are smaller than anything in the model: three people, one repetition time, runs of one patch."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from tiny_shards import evaluation_words, words, write_cohort, write_labels
from training_runs import SIX, lines, stopped_after, train_here

from bhx_model.config import load_preset
from bhx_model.evaluation import __main__ as evaluation
from bhx_model.training import stages, tokens, train

FITTED = ("encoder.connectivity.mean_RM", "encoder.connectivity.spread")


def split_of(path, names, train_on):
    listed = {"train": list(train_on), "holdout": sorted(set(names) - set(train_on))}
    path.write_text(json.dumps(listed))
    return path


@pytest.fixture(scope="module")
def few(house, tmp_path_factory):
    """Two cohorts of one repetition time, of which three people are trained on."""
    folder = tmp_path_factory.mktemp("few")
    names = [f"town/{n:03d}" for n in range(8)] + ["ward/000", "ward/001"]
    return {
        "town": write_cohort(folder / "town/shards", "town", subjects=8, batches=1, trs=(2.0,)),
        "ward": write_cohort(folder / "ward/shards", "ward", subjects=2, batches=1, trs=(2.0,)),
        "rois": house["rois"],
        "runs": folder / "runs",
        "split": split_of(folder / "pretrain.json", names, [f"town/{n:03d}" for n in range(3)]),
        "one": split_of(folder / "one.json", names, ["town/002"]),
    }


def test_three_people_train_all_stages_and_are_evaluated(few, tmp_path):
    """With 16 hub tokens, and with three people to fit an endpoint's model on."""
    made = {name: tmp_path / name for name in ("structure", "function", "fusion")}
    changes = {"train.steps": 4, "train.batch_size": 4}
    for stage in ("structure", "function"):
        assert train.main(words(few, stage, made[stage], changes)) == 0
    encoders = ["--structure", str(made["structure"]), "--function", str(made["function"])]
    indices = []
    for cohort in ("town", "ward"):
        more = ["--shards", str(few[cohort]), "--rois", str(few["rois"]), "--out", str(tmp_path / cohort)]
        assert tokens.main([*encoders, *more]) == 0
        indices.append(str(tmp_path / cohort / "index.json"))
    assert train.main([*words(few, "fusion", made["fusion"], changes), "--tokens", *indices]) == 0
    run = json.loads((made["fusion"] / "run.json").read_text())
    assert run["counts"]["train_subjects"] == 3 < run["config"]["model"]["hub_tokens"]
    for folder in made.values():
        assert all(
            value is None or math.isfinite(value)
            for row in lines(folder / "metrics.jsonl")
            for value in row.values()
        )
    about = {"fusion": made["fusion"], "tokens_town": indices[0]}
    labels = write_labels(tmp_path / "labels.json", "town", range(7))
    for method, more in (
        ("probe", ()),
        ("covariance", ()),
        ("attentive", ("--set", '{"epochs": 2, "warmup_epochs": 1}')),
    ):
        out = tmp_path / method
        assert evaluation.main(evaluation_words(about, out, method, labels, more)) == 0
        card = json.loads((out / "metrics.json").read_text())
        assert card["n_train"] == 3
        assert 0 <= card["metrics"]["accuracy"] <= 1


@pytest.mark.parametrize("patches", [1, 18])
def test_one_run_of_one_patch_trains(few, tmp_path, patches):
    """Nothing differs between runs then, so that the code is not divided by a spread."""
    changes = {**SIX, "model.time_patches": patches}
    assert train_here({**few, "split": few["one"]}, tmp_path, "function", changes) == 0
    weights = load_file(tmp_path / "out/model.safetensors")
    assert weights["encoder.connectivity.spread"] == 1
    assert weights["encoder.connectivity.mean_RM"].ne(0).any()
    assert all(value.isfinite().all() for value in weights.values())
    losses = [row["connectivity_loss"] for row in lines(tmp_path / "out/metrics.jsonl") if "lr" in row]
    assert all(math.isfinite(loss) for loss in losses)


def test_every_process_fits_the_same_code_and_a_checkpoint_holds_it(house, tmp_path):
    """Also one that is resumed after a stop: the code is that of the start, not of the embedding that was trained since."""
    sources = stages.Sources(shards=[house["town"], house["ward"]], split=house["split"], rois=house["rois"])
    built = []
    for _ in range(2):
        torch.manual_seed(0)
        built.append(stages.open_stage(load_preset("function", "tiny"), sources, 0).build().state_dict())
    assert train_here(house, tmp_path, "function", should_stop=stopped_after(3)) == 75
    assert train_here(house, tmp_path, "function") == 0
    trained_ = load_file(tmp_path / "out/model.safetensors")
    for name in FITTED:
        for of in (name, name.replace("encoder", "target", 1)):
            assert torch.equal(built[0][of], built[1][of])
            assert torch.equal(built[0][of], trained_[of])
            assert built[0][of].isfinite().all()
    assert built[0][FITTED[1]] != 1
