"""Losses that are not finite and targets that collapse stop a training."""

from __future__ import annotations

import children
import pytest
import torch
from training_runs import SIX, arguments, run_folder, train_here

from bhx_model.nets import jepa
from bhx_model.training import checkpoint, loop, stages


def not_a_number_at(monkeypatch, step: int) -> list[bool]:
    """Spoil the loss of a training step, counted from 1; returns whether each forward pass so far was of training."""
    forward, calls = stages.StructureMAE.forward, []

    def spoilt(self, volume, visible):
        calls.append(self.training)
        loss, stats = forward(self, volume, visible)
        return loss * (float("nan") if sum(calls) == step else 1.0), stats

    monkeypatch.setattr(stages.StructureMAE, "forward", spoilt)
    return calls


@pytest.mark.parametrize("late", [False, True])
def test_a_loss_that_is_not_finite_names_step_and_samples(house, tmp_path, monkeypatch, late):
    monkeypatch.setattr(loop, "reads_late", lambda device: late)
    not_a_number_at(monkeypatch, 3)
    with pytest.raises(ValueError, match=r"the loss of step 3 is not finite, samples: (town|ward)_sub-\d+, "):
        train_here(house, tmp_path, "structure", {**SIX, "train.save_every": 1}, workers="0")
    # the weights that were saved before are still good
    assert checkpoint.steps(run_folder(tmp_path)) == [1, 2]


def test_what_is_read_late_is_read_before_anything_is_saved(house, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "reads_late", lambda device: True)
    calls = not_a_number_at(monkeypatch, 4)
    with pytest.raises(ValueError, match="the loss of step 4 is not finite"):
        train_here(
            house, tmp_path, "structure", {**SIX, "train.steps": 8, "train.save_every": 5}, workers="0"
        )
    assert sum(calls) == 5, "one step more was queued"
    assert checkpoint.steps(run_folder(tmp_path)) == []


def test_a_loss_of_one_process_that_is_read_late_ends_all_with_the_same_sentence(house, tmp_path):
    faults = {0: children.read_late, 1: children.spoil_a_batch_and_read_late}
    words, log = arguments(house, tmp_path, "structure", {**SIX, "train.save_every": 6}), tmp_path / "log"
    assert children.end(children.start_all(words, 2, faults=faults, log=log)) == [1, 1]
    first, second = (log.with_suffix(f".{rank}").read_text().splitlines()[-1] for rank in range(2))
    assert "the loss of step 2 is not finite, samples: " in first
    assert first.split("the loss")[1] == second.split("the loss")[1]
    assert checkpoint.steps(run_folder(tmp_path)) == []


def test_a_term_that_is_not_finite_stops_the_run_although_the_reported_loss_is(house, tmp_path, monkeypatch):
    whitening = jepa.whitening_loss
    monkeypatch.setattr(jepa, "whitening_loss", lambda *given: whitening(*given) * float("nan"))
    with pytest.raises(ValueError, match=r"the loss of step 1 is not finite, samples: (town|ward)_sub-\d+_"):
        train_here(house, tmp_path, "function", workers="0")


@pytest.fixture
def flatter(monkeypatch):
    """Sets how much of the targets differs from token to token."""
    layer_norm = torch.nn.functional.layer_norm

    def by(share):
        def flat(x, shape, *args, **kwargs):
            y = layer_norm(x, shape, *args, **kwargs)
            return y[:1, :1].expand_as(y) + share * y if not args and not kwargs else y

        monkeypatch.setattr("bhx_model.nets.jepa.F.layer_norm", flat)

    return by


def test_collapsed_targets_stop_the_run(house, tmp_path, flatter):
    flatter(1e-4)
    with pytest.raises(ValueError, match="targets have collapsed at step 2"):
        train_here(house, tmp_path, "function")


def test_a_jepa_that_collapses_is_stopped(house, tmp_path):
    """Its target follows at once, so it learns that all tokens shall be the same."""
    changes = {
        **SIX, "train.steps": 80, "train.ema": [0.0, 0.0], "train.lr": 0.01, "train.save_every": 80,
        "model.connectivity_weight": 0.0, "model.whitening_weight": 0.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="targets have collapsed at step"):
        train_here(house, tmp_path, "function", changes)


def test_shrinking_targets_are_logged_once(house, tmp_path, flatter, capsys):
    flatter(0.2)
    assert train_here(house, tmp_path, "function") == 0
    assert capsys.readouterr().err.count("on the way to collapse: check the normaliser, raise train.ema") == 1
