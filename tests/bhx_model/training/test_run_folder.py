"""The folder of a run: its name, and outputs of a finished run."""

from __future__ import annotations

import json
import shutil

import pytest
from training_runs import SIX, run_folder, same_weights, stopped_after, train_here

from bhx_model.file_hash import file_sha256
from bhx_model.training.checkpoint import load_file


def test_a_finished_run_only_writes_its_outputs_again(house, tmp_path, capsys):
    assert train_here(house, tmp_path, "structure") == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "out")
    assert train_here(house, tmp_path, "structure") == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert "is finished" in capsys.readouterr().err
    assert set(before) == {"model.safetensors", "run.json", "metrics.jsonl"}


def test_a_finished_run_whose_weights_are_damaged_writes_them_again(house, straight, tmp_path, caplog):
    shutil.copytree(straight / "structure", tmp_path, dirs_exist_ok=True)
    weights = run_folder(tmp_path) / "final" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 4
    weights.write_bytes(content)
    assert train_here(house, tmp_path, "structure") == 0
    assert "is not what was written" in caplog.text
    same_weights(tmp_path / "out", straight / "structure" / "out")


@pytest.mark.parametrize("sums", [None, "{}", "[]", ""])
def test_outputs_whose_hashes_are_lost_are_written_again(house, straight, tmp_path, sums):
    shutil.copytree(straight / "structure", tmp_path, dirs_exist_ok=True)
    final = run_folder(tmp_path) / "final"
    content = (final / "model.safetensors").read_bytes()
    (final / "model.safetensors").write_bytes(content[: len(content) // 2])
    (final / "sha256.json").unlink()
    if sums is not None:
        (final / "sha256.json").write_text(sums)
    assert train_here(house, tmp_path, "structure") == 0
    same_weights(tmp_path / "out", straight / "structure" / "out")


@pytest.mark.parametrize("stage", ["structure", "function", "fusion"])
def test_what_an_older_version_of_the_step_trained_is_not_served(trained, straight, tmp_path, stage):
    tokens = (
        {"tokens": [str(trained["tokens_town"]), str(trained["tokens_ward"])]} if stage == "fusion" else {}
    )
    if stage == "fusion":
        assert train_here(trained, tmp_path, stage, **tokens) == 0
        shutil.copytree(tmp_path / "out", tmp_path / "straight")
    else:
        shutil.copytree(straight / stage, tmp_path, dirs_exist_ok=True)
        shutil.copytree(straight / stage / "out", tmp_path / "straight")
    old = run_folder(tmp_path) / "final" / "model.safetensors"
    old.write_bytes(b"weights of older code")
    sums = {"model.safetensors": file_sha256(old)}  # else they were taken for damaged ones
    (old.parent / "sha256.json").write_text(json.dumps(sums))
    assert train_here(trained, tmp_path, stage, **tokens) == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == old.read_bytes(), "of the same version"
    assert train_here(trained, tmp_path, stage, step_version=7, **tokens) == 0
    same_weights(tmp_path / "out", tmp_path / "straight")
    assert old.read_bytes() == b"weights of older code"


def test_settings_that_change_no_result_go_on_from_the_last_checkpoint(house, straight, tmp_path, caplog):
    assert train_here(house, tmp_path, "function", should_stop=stopped_after(3)) == 75
    changes = SIX | {
        "train.accumulate": 2,
        "train.save_every": 1,
        "train.log_every": 3,
        "model.checkpointing": True,
    }
    with caplog.at_level("INFO"):
        assert train_here(house, tmp_path, "function", changes) == 0
    assert "resuming from" in caplog.text
    assert len(list((tmp_path / "runs").iterdir())) == 1
    whole, accumulated = (
        load_file(folder / "model.safetensors")
        for folder in (straight / "function" / "out", tmp_path / "out")
    )
    assert max(float((whole[name] - accumulated[name]).abs().max()) for name in whole) < 2e-3


def test_a_run_of_another_length_is_named_and_not_continued(house, tmp_path, caplog):
    assert train_here(house, tmp_path, "structure", should_stop=stopped_after(3)) == 75
    with caplog.at_level("INFO"):
        train_here(house, tmp_path, "structure", SIX | {"train.steps": 8}, should_stop=stopped_after(1))
        assert "has the same settings and 6 steps" in caplog.text
        caplog.clear()
        train_here(house, tmp_path, "structure", SIX | {"train.lr": 1e-5}, should_stop=stopped_after(1))
    assert "same settings" not in caplog.text
