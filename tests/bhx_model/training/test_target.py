"""How far the target encoder moves: measured, written down, and warned of where it hardly does."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny_shards import export_words
from training_runs import SIX, stopped_after, train_here

from bhx_model.data.rois import RoiMetadata
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.release import export
from bhx_model.training import schedules
from bhx_model.training.train import load_preset

KEEPS = "keeps %s of its random start over %s steps: lower train.ema, now %s to %s, or raise train.steps"


def test_a_schedule_that_hardly_moves_the_target_warns_once(house, tmp_path, capsys):
    assert train_here(house, tmp_path, "function") == 0
    share = schedules.share_of_start(6, (0.98, 1.0))
    assert share > 0.9
    assert capsys.readouterr().err.count(KEEPS % (f"{share:.0%}".replace("%", " %"), 6, 0.98, 1)) == 1


def test_a_target_that_moves_and_a_stage_without_one_warn_of_nothing(house, tmp_path, capsys):
    assert train_here(house, tmp_path / "function", "function", {**SIX, "train.ema": [0.5, 0.9]}) == 0
    assert train_here(house, tmp_path / "structure", "structure") == 0
    assert "random start" not in capsys.readouterr().err
    assert "target" not in json.loads((tmp_path / "structure/out/run.json").read_text())


@pytest.mark.parametrize("stop", [None, 2])
def test_the_run_says_how_far_the_target_moved(house, tmp_path, stop):
    """Also one that was stopped and resumed, which has not seen the start."""
    changes = {**SIX, "train.ema": [0.5, 0.9]}
    if stop:
        assert train_here(house, tmp_path, "function", changes, should_stop=stopped_after(stop)) == 75
    assert train_here(house, tmp_path, "function", changes) == 0
    found = json.loads((tmp_path / "out/run.json").read_text())["target"]
    torch.manual_seed(0)
    config = load_preset("function", "tiny")
    start = dict(FunctionJEPA(config.model, RoiMetadata.load(house["rois"])).target.named_parameters())
    end = load_file(tmp_path / "out/model.safetensors")
    length = torch.cat([w.flatten().double() for w in start.values()]).norm().item()
    for name, key in (("target", "moved"), ("encoder", "encoder_moved")):
        way = [(end[f"{name}.{k}"].double() - w.double()).flatten() for k, w in start.items()]
        assert found[key] == pytest.approx(torch.cat(way).norm().item() / length, rel=1e-9)
    assert 0 < found["moved"] < found["encoder_moved"]
    assert found["share_of_start"] == schedules.share_of_start(6, (0.5, 0.9))


def changed(trained, folder, edit):
    """A copy of the trained function stage whose run.json is edited."""
    shutil.copytree(trained["function"], folder)
    run = json.loads((folder / "run.json").read_text())
    edit(run)
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def card(trained, folder, function):
    assert export.main(export_words(trained, folder, function=function)) == 0
    return (folder / "README.md").read_text()


def test_the_card_says_that_weights_are_nearly_random(trained, tmp_path):
    """Those of eight steps are."""
    text = card(trained, tmp_path / "short", trained["function"])
    assert "**These weights are nearly random.**" in text
    run = json.loads((trained["function"] / "run.json").read_text())
    assert f"Its weights lie {run['target']['moved']:.3g} times the length of their start" in text
    about = json.loads((tmp_path / "short/config.json").read_text())
    assert about["stages"]["function"]["target"] == run["target"]


def test_the_card_of_a_target_that_moved_does_not(trained, tmp_path):
    function = changed(trained, tmp_path / "f", lambda run: run["target"].update(share_of_start=0.05))
    text = card(trained, tmp_path / "moved", function)
    assert "nearly random" not in text
    assert "which kept 5.0% of its random start" in text


def test_runs_from_before_and_converted_weights_do_not_know(trained, tmp_path):
    function = changed(trained, tmp_path / "f", lambda run: run.pop("target"))
    text = card(trained, tmp_path / "before", function)
    assert "How far the function encoder moved from its random start is not known." in text
    assert "nearly random" not in text
