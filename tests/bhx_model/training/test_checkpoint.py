"""Checkpoints: broken, unfinished, of another model, and which of them stay."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from small_disk import mounted, remount
from training_runs import (
    SIX,
    arguments,
    lines,
    run_folder,
    same_weights,
    stopped_after,
    train_here,
)

from bhx_model.errors import DataError, SiteError
from bhx_model.nets import factory
from bhx_model.training import checkpoint, loop, optim, train
from bhx_model.training.distributed import ALONE, Processes


@pytest.fixture(scope="module")
def stopped(house, tmp_path_factory):
    """Run folder of a training with checkpoints of step 3 and 5; only to be read."""
    folder = tmp_path_factory.mktemp("stopped")
    assert train_here(house, folder, "function", should_stop=stopped_after(5)) == 75
    run = run_folder(folder)
    assert checkpoint.steps(run) == [3, 5]
    return run


def model_of(run):
    """A model and an optimizer that its checkpoints fit, with other values."""
    tensors = checkpoint.read_tensors(checkpoint.folder(run, 3) / "model.safetensors")
    memory = checkpoint.read_tensors(checkpoint.folder(run, 3) / "optim.safetensors")
    model = torch.nn.Module()
    for name, value in tensors.items():
        *path, last = name.split(".")
        place = model
        for part in path:
            if part not in dict(place.named_children()):
                place.add_module(part, torch.nn.Module())
            place = place.get_submodule(part)
        if f"{name}/exp_avg" in memory:
            place.register_parameter(last, torch.nn.Parameter(torch.zeros_like(value)))
        else:
            place.register_buffer(last, torch.zeros_like(value))
    return model, optim.adamw(optim.parameter_groups(model.named_parameters()), betas=(0.9, 0.95))


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
    assert not list(run_folder(tmp_path).glob(".unfinished-*"))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-len(content) // 3] ^= 1
    path.write_bytes(content)


def lie(path):
    state = json.loads(path.read_bytes())
    path.write_text(json.dumps({**state, "samples_seen": 7, "first": None}))


def cut(path):
    path.write_bytes(path.read_bytes()[:20])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", cut),
        ("model.safetensors", flip),
        ("model.safetensors", Path.unlink),
        ("optim.safetensors", empty),
        ("optim.safetensors", flip),
        ("state.json", cut),
        ("state.json", lie),
        ("sha256.json", empty),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(stopped, tmp_path, caplog, file, damage):
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    damage(checkpoint.folder(run, 5) / file)
    model, optimizer = model_of(run)
    step, state = checkpoint.load_last(run, model, optimizer)
    assert (step, state["step"]) == (3, 3)
    assert "trying the checkpoint before" in caplog.text
    # it is not counted among the last two that stay
    assert checkpoint.steps(run) == [3]
    assert f"is now {run / 'damaged-step-0000005'}" in caplog.text
    whole, _ = model_of(stopped)
    checkpoint.load_weights(whole, checkpoint.folder(stopped, 3) / "model.safetensors")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value"),
    [("samples_seen", None), ("count", "7"), ("sum", [1.0]), ("holdout", 3), ("holdout", {"loss": None})],
)
def test_a_state_that_was_edited_by_hand_is_a_sentence(stopped, tmp_path, name, value):
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    place = checkpoint.folder(run, 5)
    state = json.loads((place / "state.json").read_text())
    (place / "state.json").write_text(json.dumps({**state, name: value}))
    (place / "sha256.json").unlink()
    with pytest.raises(
        DataError, match=r"step-0000005 is broken \(.*remove it to resume from the one before"
    ):
        loop._resume(run, *model_of(run), ALONE)


def test_a_training_resumes_before_a_damaged_checkpoint(house, straight, stopped, tmp_path):
    shutil.copytree(stopped.parent, tmp_path / "runs")
    flip(checkpoint.folder(run_folder(tmp_path), 5) / "model.safetensors")
    assert train_here(house, tmp_path, "function") == 0
    same_weights(tmp_path / "out", straight / "function" / "out")
    written = lines(tmp_path / "out" / "metrics.jsonl")
    assert written == lines(straight / "function" / "out" / "metrics.jsonl")


def test_a_renamed_checkpoint_is_not_of_its_step(stopped, tmp_path):
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    checkpoint.folder(run, 5).rename(checkpoint.folder(run, 9))
    assert checkpoint.load_last(run, *model_of(run))[0] == 3


def test_a_checkpoint_of_another_training_is_not_resumed_from(house, stopped, tmp_path, capsys):
    """Its weights have the same names and shapes, and its files the hashes that they should have."""
    shutil.copytree(stopped.parent, tmp_path / "runs")
    run = run_folder(tmp_path)
    changes = {**SIX, "train.lr": 0.01}
    assert train_here(house, tmp_path / "other", "function", changes, stopped_after(5)) == 75
    other = run_folder(tmp_path / "other")
    shutil.rmtree(checkpoint.folder(run, 5))
    shutil.copytree(checkpoint.folder(other, 5), checkpoint.folder(run, 5))
    assert train.main(arguments(house, tmp_path, "function")) == 1
    said = capsys.readouterr().err
    assert f"{checkpoint.folder(run, 5)} is of {other.name}, another training: remove it" in said
    assert not (tmp_path / "out").exists()
    shutil.rmtree(checkpoint.folder(run, 5))
    assert train.main(arguments(house, tmp_path, "function")) == 0


def test_one_that_another_process_cannot_read_is_passed_over_by_all(stopped, tmp_path):
    class One(Processes):
        answers: ClassVar = iter([True, False])

        def any(self, flag):
            return next(self.answers) or flag

    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    assert checkpoint.load_last(run, *model_of(run), One(1, 2, torch.device("cpu")))[0] == 3


def test_checkpoints_of_earlier_versions_have_no_hashes_and_are_read(stopped, tmp_path):
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    (checkpoint.folder(run, 5) / "sha256.json").unlink()
    assert checkpoint.load_last(run, *model_of(run))[0] == 5


@pytest.mark.parametrize("place", ["model.safetensors", "optim.safetensors", "state.json", "sha256.json"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_sentence_and_leaves_the_last_checkpoint(
    stopped, tmp_path, monkeypatch, place, number
):
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    sync = os.fsync

    def full(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith(place):
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SiteError) as raised:
        checkpoint.save(run, 6, *model_of(run), {}, keep_every=100)
    said = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}[number]
    assert f"step 6 could not be saved in {run}, {said}; that of step 5 is intact" in str(raised.value)
    assert checkpoint.steps(run) == [3, 5]
    assert not list(run.glob(".unfinished-*")), "the disk has its space back"
    assert checkpoint.load_last(run, *model_of(run))[0] == 5


def test_a_checkpoint_that_cannot_be_replaced_stays(stopped, tmp_path, monkeypatch):
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    replace = Path.replace

    def full(self, target):
        if self.name == ".unfinished-step-0000005":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SiteError, match="that of step 5 is intact"):
        checkpoint.save(run, 5, *model_of(run), {}, keep_every=100)
    assert checkpoint.load_last(run, *model_of(run))[0] == 5
    assert not list(run.glob(".unfinished-*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 20 MB."""
    with mounted(tmp_path / "disk", "20m") as place:
        yield place


def test_a_disk_that_really_fills_up(house, small_disk, caplog):
    """The first checkpoints fit, later ones do not; with more room the training goes on."""
    changes = {**SIX, "train.save_every": 1, "train.keep_every": 1}
    assert train.main(arguments(house, small_disk, "structure", changes)) == 1
    (said,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert "the disk is full" in said
    run = run_folder(small_disk)
    saved = checkpoint.steps(run)
    assert 0 < len(saved) < 6
    assert not list(run.glob(".unfinished-*"))
    remount(small_disk, "size=64m")
    caplog.clear()
    with caplog.at_level("INFO"):
        assert train.main(arguments(house, small_disk, "structure", changes)) == 0
    assert f"resuming from {checkpoint.folder(run, saved[-1])}" in caplog.text


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
