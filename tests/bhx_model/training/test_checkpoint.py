"""Checkpoints: broken, unfinished, of another model, and which of them stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_runs import lines, run_folder, same_weights, stopped_after, train_here

from bhx_model.nets import factory
from bhx_model.training import checkpoint, optim, train


@pytest.mark.parametrize("file", ["model.safetensors", "optim.safetensors", "state.json"])
def test_killed_while_a_checkpoint_is_written_resumes_from_the_one_before(
    house, straight, tmp_path, monkeypatch, file
):
    class Killed(BaseException):
        """Nothing catches it, as nothing catches a kill."""

    def dying(write):
        def writes(*arguments):
            write(*arguments)
            path = next(argument for argument in arguments if isinstance(argument, Path))
            if path.name == file and path.parent.name.endswith("step-0000006"):
                path.write_bytes(path.read_bytes()[:20])
                raise Killed

        return writes

    with monkeypatch.context() as patched:
        for name in ("save_tensors", "write_json"):
            patched.setattr(checkpoint, name, dying(getattr(checkpoint, name)))
        with pytest.raises(Killed):
            train_here(house, tmp_path, "function")
    assert checkpoint.steps(run_folder(tmp_path)) == [3]
    assert train_here(house, tmp_path, "function") == 0
    same_weights(tmp_path / "out", straight / "function" / "out")
    assert not list(run_folder(tmp_path).glob(f"{checkpoint._UNFINISHED}*"))


@pytest.mark.parametrize("file", ["model.safetensors", "optim.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(house, straight, tmp_path, caplog, file):
    assert train_here(house, tmp_path, "function", should_stop=stopped_after(5)) == 75
    run = run_folder(tmp_path)
    assert checkpoint.steps(run) == [3, 5]
    damaged = checkpoint.folder(run, 5) / file
    damaged.write_bytes(damaged.read_bytes()[:20])
    assert train_here(house, tmp_path, "function") == 0
    assert "trying the checkpoint before" in caplog.text
    same_weights(tmp_path / "out", straight / "function" / "out")
    written = lines(tmp_path / "out" / "metrics.jsonl")
    assert written == lines(straight / "function" / "out" / "metrics.jsonl")


def test_a_run_whose_checkpoints_are_all_damaged_never_starts_anew(house, tmp_path):
    assert train_here(house, tmp_path, "structure", should_stop=stopped_after(3)) == 75
    weights = checkpoint.folder(run_folder(tmp_path), 3) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is broken"):
        train_here(house, tmp_path, "structure")


def test_a_checkpoint_of_another_model_is_fatal(house, tmp_path):
    assert train_here(house, tmp_path, "structure", should_stop=stopped_after(3)) == 75
    config = train.load_preset("structure", "tiny").override({"model.width": 32})
    model = factory.build_model(config.model, {"grid": [32, 48, 32]})
    with pytest.raises(ValueError, match="another configuration"):
        checkpoint.load_weights(model, checkpoint.folder(run_folder(tmp_path), 3) / "model.safetensors")


def test_the_last_two_checkpoints_stay_and_every_kth(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = optim.adamw(optim.parameter_groups(list(model.named_parameters())), betas=(0.9, 0.95))
    for step in range(1, 9):
        checkpoint.save(tmp_path, step, model, optimizer, {}, keep_every=3)
    assert checkpoint.steps(tmp_path) == [3, 6, 7, 8]
