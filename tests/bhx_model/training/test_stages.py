"""What each stage reads: shards, split and ROIs that fit each other, and tokens cached or online."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny_shards import NAMES, spoil_series, words, write_cohort, write_rois, write_split
from training_runs import SIX, arguments, run_folder, train_here

from bhx_model.training import stages, train


def test_another_roi_order_is_refused(house, tmp_path, capsys):
    swapped = write_rois(tmp_path / "rois.npz", [NAMES[1], NAMES[0], *NAMES[2:]])
    assert train.main(arguments({**house, "rois": swapped}, tmp_path, "function")) == 1
    assert f"row 0 is '{NAMES[0]}', the model's is '{NAMES[1]}'" in capsys.readouterr().err


def test_cohorts_of_different_grids_are_refused(house, tmp_path, capsys):
    other = write_cohort(tmp_path / "ward", "ward", subjects=5, batches=1, t1w_shape=(32, 32, 32))
    assert train.main(arguments({**house, "ward": other}, tmp_path, "structure")) == 1
    assert "on one grid, there are: town (32, 48, 32), ward (32, 32, 32)" in capsys.readouterr().err


def test_a_cohort_that_is_named_twice_is_refused(house, tmp_path, capsys):
    assert train.main(arguments({**house, "ward": house["town"]}, tmp_path, "function")) == 1
    assert "the index of town is named twice, or two cohorts have its name" in capsys.readouterr().err


def test_subjects_outside_the_split_are_refused(house, tmp_path, capsys):
    short = write_split(tmp_path / "split.json", {"town": 12, "ward": 4})
    assert train.main(arguments({**house, "split": short}, tmp_path, "function")) == 1
    assert "ward/004 and 0 more subjects are not in the split" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [[], {}, {"train": None, "holdout": []}, {"train": [["a"]], "holdout": []}]
)
def test_an_invalid_split_is_an_error_message(house, tmp_path, capsys, content):
    (tmp_path / "split.json").write_text(json.dumps(content))
    places = {**house, "split": tmp_path / "split.json"}
    assert train.main(arguments(places, tmp_path, "function")) == 1
    assert "is no split with the lists train and holdout" in capsys.readouterr().err


def test_a_subject_on_both_sides_of_the_split_is_refused(house, tmp_path, capsys):
    split = json.loads(house["split"].read_text())
    (tmp_path / "split.json").write_text(json.dumps({**split, "holdout": [split["train"][0]]}))
    assert train.main(arguments({**house, "split": tmp_path / "split.json"}, tmp_path, "function")) == 1
    assert "names a subject twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("constant", "never changes"),
        ("short", "shorter than one patch"),
        ("tr", "TR is -2.0 s"),
    ],
)
def test_unusable_series_are_named(house, tmp_path, capsys, fault, sentence):
    town = spoil_series(house["town"], tmp_path / "shards", fault)
    assert train.main(arguments({**house, "town": town}, tmp_path, "function")) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert "town_sub-002_task-rest_run-1" in said


def test_an_altered_shard_stops_the_training(house, tmp_path, capsys):
    town = shutil.copytree(house["town"].parent, tmp_path / "shards") / "index.json"
    tar = town.parent / "t1w-00000.tar"
    content = bytearray(tar.read_bytes())
    content[-3000] ^= 1
    tar.write_bytes(content)
    assert train.main(arguments({**house, "town": town}, tmp_path, "structure")) == 1
    assert "t1w-00000.tar is not the one the index was made of" in capsys.readouterr().err


def test_the_target_follows_by_its_momentum_of_the_step(house, tmp_path):
    """From momentum 0, a copy, to 1, all but a standstill: in the middle of a run it is somewhere between."""
    for name, momentum in (("copy", [0.0, 0.0]), ("still", [0.999999, 1.0]), ("both", [0.0, 1.0])):
        assert train_here(house, tmp_path / name, "function", {**SIX, "train.ema": momentum}) == 0
    weights = {n: load_file(tmp_path / n / "out/model.safetensors") for n in ("copy", "still", "both")}
    apart = {
        n: max(
            float((w[k] - w[k.replace("target.", "encoder.")]).abs().max())
            for k in w
            if k.startswith("target.") and "roi_position" not in k
        )
        for n, w in weights.items()
    }
    assert apart["copy"] == 0.0
    assert 0.0 < apart["both"] < apart["still"]


def fusion_loss(trained, changes, tokens_):
    sources = stages.Sources(
        shards=[trained["town"], trained["ward"]], split=trained["split"], rois=trained["rois"], tokens=tokens_,
        structure=trained["structure"], function=trained["function"],
    )  # fmt: skip
    stage = stages.open_stage(train.load_preset("fusion", "tiny").override(changes), sources, 0)
    torch.manual_seed(0)
    model = stage.build()
    found = {}
    for numbers in stage.holdout(1):
        batch = stage.load(numbers, 0, None)
        args, kwargs = stage.inputs(batch)
        found[batch.keys[0]] = float(model(*args, **kwargs)[0].detach())
    return found


def test_online_inputs_give_the_loss_of_the_cache(trained):
    listed = [trained["tokens_town"], trained["tokens_ward"]]
    cached = fusion_loss(trained, {}, listed)
    online = fusion_loss(trained, {"model.inputs": "online"}, [])
    assert cached.keys() == online.keys()
    assert len(cached) == 6  # two subjects of each cohort are held out, and subject 0 has two runs
    for key, loss in cached.items():
        assert online[key] == pytest.approx(loss, rel=5e-5), key


def test_the_fusion_trains_online(trained, tmp_path, capsys):
    changes = {
        "model.inputs": "online",
        "train.steps": 2,
        "model.loss_tokens": "all",
        "model.decoder": "joint",
    }
    more = ["--structure", str(trained["structure"]), "--function", str(trained["function"])]
    assert (
        train.main([*words({**trained, "runs": tmp_path}, "fusion", tmp_path / "out", changes), *more]) == 0
    )
    assert train.main(words({**trained, "runs": tmp_path}, "fusion", tmp_path / "out", changes)) == 1
    assert "--structure and --function" in capsys.readouterr().err


def test_a_resumed_fusion_equals_a_straight_one(trained, tmp_path):
    listed = ["--tokens", str(trained["tokens_town"]), str(trained["tokens_ward"])]
    command = [*words({**trained, "runs": tmp_path / "runs"}, "fusion", tmp_path / "out"), *listed]
    assert train.main([*command, "--max-minutes", "0"]) == 75
    assert train.main(command) == 0
    ours, theirs = (load_file(p / "model.safetensors") for p in (tmp_path / "out", trained["fusion"]))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_loss_over_padding_needs_online_inputs(trained, tmp_path, capsys):
    listed = ["--tokens", str(trained["tokens_town"]), str(trained["tokens_ward"])]
    command = words({**trained, "runs": tmp_path}, "fusion", tmp_path / "out", {"model.loss_tokens": "all"})
    assert train.main([*command, *listed]) == 1
    assert "set model.inputs to online" in capsys.readouterr().err


def test_tokens_of_different_encoders_are_refused(trained, tmp_path, capsys):
    out = shutil.copytree(trained["tokens_ward"].parent, tmp_path / "ward") / "index.json"
    metadata = json.loads(out.read_text())
    metadata["encoders"]["function"] = "0" * 64
    out.write_text(json.dumps(metadata))
    command = words({**trained, "runs": tmp_path}, "fusion", tmp_path / "out")
    assert train.main([*command, "--tokens", str(trained["tokens_town"]), str(out)]) == 1
    assert "tokens of different encoders" in capsys.readouterr().err


def test_tokens_of_other_shards_are_refused(trained, tmp_path, capsys):
    """The card would name cohorts that were not trained on, or tokens of subjects who are gone stay in use."""
    command = words({**trained, "runs": tmp_path}, "fusion", tmp_path / "out")
    listed = [str(trained["tokens_town"]), str(trained["tokens_ward"])]
    for few in (listed[:1], [listed[0], listed[0]]):
        assert train.main([*command, "--tokens", *few]) == 1
        assert "name one of each for every cohort" in capsys.readouterr().err
    town = shutil.copytree(trained["town"].parent, tmp_path / "town") / "index.json"
    town.write_text(json.dumps({**json.loads(town.read_text()), "synthetic": False}))
    command = words({**trained, "runs": tmp_path, "town": town}, "fusion", tmp_path / "out")
    assert train.main([*command, "--tokens", *listed]) == 1
    assert f"were made of other shards than {town}: make the tokens again" in capsys.readouterr().err


def test_an_altered_cache_is_refused(trained, tmp_path, capsys):
    out = shutil.copytree(trained["tokens_ward"].parent, tmp_path / "ward") / "index.json"
    tar = out.parent / "structure-00000.tar"
    content = bytearray(tar.read_bytes())
    content[3000] ^= 1
    tar.write_bytes(content)
    command = words({**trained, "runs": tmp_path}, "fusion", tmp_path / "out")
    assert train.main([*command, "--tokens", str(trained["tokens_town"]), str(out)]) == 1
    assert "structure-00000.tar is not the one" in capsys.readouterr().err


def test_a_shard_index_is_no_token_index(trained, tmp_path, capsys):
    command = words({**trained, "runs": tmp_path}, "fusion", tmp_path / "out")
    assert train.main([*command, "--tokens", str(trained["town"])]) == 1
    assert "an index of cached tokens of version None" in capsys.readouterr().err


def test_the_structure_stage_reads_no_series_and_needs_no_metadata_of_their_rois(house, tmp_path, capsys):
    words = {}
    for stage in ("structure", "function"):
        given = arguments(house, tmp_path / stage, stage, SIX)
        place = given.index("--rois")
        words[stage] = given[:place] + given[place + 2 :]
    assert train.main(words["structure"]) == 0
    assert (
        "rois"
        not in json.loads((run_folder(tmp_path / "structure") / "final/run.json").read_text())["inputs"]
    )
    assert train.main(words["function"]) == 1
    assert "the stage function reads series: name the metadata of their ROIs" in capsys.readouterr().err
