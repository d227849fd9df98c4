"""Training that starts from given weights: what it takes of them, and how it differs from one that resumes."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_shards import NAMES
from training_runs import SIX, arguments, run_folder, same_weights

from bhx_model.training import train, warm_start
from bhx_model.training.checkpoint import load_file
from bhx_model.training.trained import load_trained


def started(house, folder, stage, init_from, changes=SIX, **more):
    return train.main(arguments(house, folder, stage, changes, **{"init-from": str(init_from)}, **more))


@pytest.mark.parametrize("stage", ["structure", "function"])
def test_it_starts_from_the_given_weights(house, trained, tmp_path, stage, caplog):
    """With a rate of learning of almost 0 they stay as they were given."""
    still = SIX | {"train.lr": 1e-12, "train.weight_decay": 0.0}
    still |= {"train.weight_decay_end": 0.0, "train.min_lr": 0.0} if stage == "function" else {}
    assert started(house, tmp_path, stage, trained[stage], still) == 0
    ours, theirs = (load_trained(folder, stage) for folder in (tmp_path / "out", trained[stage]))
    given = dict(theirs.model.named_parameters())
    for name, parameter in ours.model.named_parameters():
        # the target follows its encoder a little in every step
        assert torch.allclose(parameter, given[name], atol=1e-2 if name.startswith("target.") else 1e-6), name
    assert f"warm start from {trained[stage]}" in caplog.text
    assert "resuming" not in caplog.text
    assert ours.run["inputs"]["init_from"] == theirs.sha256
    assert ours.run["loss"]["first"] is not None  # it was trained


def test_its_run_has_another_name_and_resumes_without_the_weights(house, trained, straight, tmp_path, caplog):
    shutil.copytree(straight / "structure", tmp_path, dirs_exist_ok=True)
    cold = run_folder(tmp_path)
    given = shutil.copytree(trained["structure"], tmp_path / "given")
    assert started(house, tmp_path, "structure", given) == 0
    (warm,) = {folder for folder in (tmp_path / "runs").iterdir() if folder.name != cold.name}
    cold_weights = (straight / "structure/out/model.safetensors").read_bytes()
    assert (tmp_path / "out/model.safetensors").read_bytes() != cold_weights
    whole = shutil.copytree(tmp_path / "out", tmp_path / "whole")
    shutil.rmtree(warm / "final")
    shutil.rmtree(warm / "step-0000006")
    caplog.clear()
    assert started(house, tmp_path, "structure", given) == 0
    assert "resuming from" in caplog.text
    assert "warm start" not in caplog.text
    same_weights(tmp_path / "out", whole)


def test_what_does_not_fit_is_named_key_by_key(house, trained, tmp_path, caplog):
    changes = SIX | {"model.depth": 3, "model.decoder_width": 48}
    assert started(house, tmp_path, "structure", trained["structure"], changes) == 0
    report = json.loads((run_folder(tmp_path) / warm_start.REPORT).read_text())
    assert any(key.startswith("encoder.blocks.1.") for key in report["taken"])
    assert all(key.startswith("encoder.blocks.2.") for key in report["not among them, random"])
    assert report["not among them, random"]
    assert report["of another shape, random"]
    for what in ("not among them, random", "of another shape, random"):
        for key in report[what]:
            assert f"warm start: {what}: {key}" in caplog.text
    model = set(load_file(tmp_path / "out/model.safetensors"))
    assert model == {
        key.partition(" ")[0]
        for what, keys in report.items()
        if what not in ("folder", "sha256", warm_start.OTHERWISE)
        for key in keys
    } - set(report["unknown here, dropped"])


def test_weights_that_were_trained_with_other_settings_are_warned_of(house, trained, tmp_path, caplog):
    """Of equal shape, they compute something else: with other heads, or another window of a patch."""
    changes = SIX | {"model.heads": 4, "model.base_tr_s": 1.0, "model.checkpointing": True, "train.steps": 2}
    assert started(house, tmp_path, "function", trained["function"], changes) == 0
    report = json.loads((run_folder(tmp_path) / warm_start.REPORT).read_text())
    assert report[warm_start.OTHERWISE] == ["heads 2, here 4", "base_tr_s 0.735, here 1.0"]
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    for setting in report[warm_start.OTHERWISE]:
        assert f"warm start: trained with other settings: {setting}" in said


def test_buffers_are_those_of_the_subjects_trained_on_now(house, trained, tmp_path):
    other = shutil.copytree(trained["function"], tmp_path / "given")
    tensors = load_file(other / "model.safetensors")
    name = next(key for key in tensors if key.endswith("median_R"))
    tensors[name] += 5
    warm_start.checkpoint.save_tensors(tensors, other / "model.safetensors")
    assert started(house, tmp_path, "function", other) == 0
    ours = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(ours[name], tensors[name] - 5)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("stage", "holds function, but no structure to start from"),
        ("order", "is of other ROIs than this training: row 0 is"),
        ("nothing", "fits this configuration: choose the preset that it was trained with"),
        ("folder", "no folder"),
    ],
)
def test_weights_that_cannot_be_started_from_are_refused(house, trained, tmp_path, capsys, fault, sentence):
    given, stage = shutil.copytree(trained["function"], tmp_path / "given"), "function"
    if fault == "stage":
        stage = "structure"
    elif fault == "order":
        run = json.loads((given / "run.json").read_text())
        run["model_metadata"]["roi_names"] = [NAMES[1], NAMES[0], *NAMES[2:]]
        (given / "run.json").write_text(json.dumps(run))
    elif fault == "nothing":
        warm_start.checkpoint.save_tensors({"x": torch.zeros(2)}, given / "model.safetensors")
    else:
        shutil.rmtree(given)
    assert started(house, tmp_path, stage, given) == 1
    assert sentence in capsys.readouterr().err


def test_an_export_can_be_started_from(house, trained, tmp_path):
    from bhx_model.release import export

    export.export(trained["function"], trained["rois"], tmp_path / "export")
    assert started(house, tmp_path, "function", tmp_path / "export") == 0
    report = json.loads((run_folder(tmp_path) / warm_start.REPORT).read_text())
    assert report["not among them, random"] == report["of another shape, random"] == []
