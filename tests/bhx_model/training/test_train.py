"""The command: signals and time limits, settings, and the switch for deterministic algorithms."""

from __future__ import annotations

import os
import signal

import children
import pytest
import torch
from training_runs import SIX, arguments, run_folder, same_weights

from bhx_model.training import checkpoint, loop, train


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_75(house, tmp_path, number):
    changes = {**SIX, "train.steps": 5000, "train.save_every": 5000, "train.log_every": 1}
    child = children.start(arguments(house, tmp_path, "structure", changes))
    places = []
    children.wait_for(lambda: places or places.extend(tmp_path.glob("runs/*/metrics.jsonl")))
    children.wait_for(lambda: places[0].read_text().count("\n") >= 2)
    os.kill(child.pid, number)
    assert children.end([child]) == [75]
    (step,) = checkpoint.steps(run_folder(tmp_path))
    assert 2 <= step < 5000


def test_processes_whose_torchrun_was_killed_save_and_end(house, tmp_path, monkeypatch):
    """Else they would train on, beside the ones that are started next."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    parents = iter([7, 7, 7])
    monkeypatch.setattr(train.os, "getppid", lambda: next(parents, 1))
    assert train.main(arguments(house, tmp_path, "structure")) == 75
    assert checkpoint.steps(run_folder(tmp_path)) == [3]
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    parents = iter([7])  # a shell that is gone is none of its business
    assert train.main(arguments(house, tmp_path, "structure")) == 0


def test_a_time_limit_saves_and_exits_75(house, tmp_path, capsys):
    assert train.main([*arguments(house, tmp_path, "structure"), "--max-minutes", "0"]) == 75
    assert checkpoint.steps(run_folder(tmp_path)) == [1]
    assert "the same command resumes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train.step": 3}, "did you mean 'train.steps'"),
        ({"model.patch": 10}, "does not divide into patches of 10"),
        ({"train.lr": "fast"}, "expected float"),
        ({"train.lr": float("nan")}, "give a number that is finite"),
    ],
)
def test_bad_settings_are_a_sentence(house, tmp_path, capsys, changes, sentence):
    assert train.main(arguments(house, tmp_path, "structure", changes)) == 1
    assert sentence in capsys.readouterr().err


def test_deterministic_mode_reaches_the_steps_and_ends_with_them(house, straight, tmp_path, monkeypatch):
    seen = []
    backward = loop.backward
    monkeypatch.setattr(
        loop,
        "backward",
        lambda *a, **k: seen.append(torch.are_deterministic_algorithms_enabled()) or backward(*a, **k),
    )
    assert train.main(arguments(house, tmp_path, "function", {**SIX, "train.deterministic": True})) == 0
    assert seen == [True] * 6
    assert not torch.are_deterministic_algorithms_enabled()
    same_weights(tmp_path / "out", straight / "function" / "out")


@pytest.mark.parametrize(("stage", "wanted"), [("structure", True), ("function", False)])
def test_cudnn_attends_only_where_the_number_of_tokens_stays(house, tmp_path, monkeypatch, stage, wanted):
    """It would make a plan for every size of a JEPA's masks; on Hopper, PyTorch 2.11 would choose it."""
    seen, enabled = [], torch.backends.cuda.cudnn_sdp_enabled
    monkeypatch.setattr(train, "train_loop", lambda *_: seen.append(enabled()) or False)
    assert train.main(arguments(house, tmp_path, stage)) == 75
    assert seen == [wanted]
    assert enabled()
