"""Metrics as JSON lines and as TensorBoard's events."""

from __future__ import annotations

import sys
import types

from training_runs import arguments, lines

from bhx_model.training import runlog, train


def test_metrics_past_the_checkpoint_of_a_killed_run_go(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 3}\n{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
    metrics = runlog.Metrics(path, 3)
    metrics.write(4, {"loss": float("inf"), "lr": 0.5})
    metrics.close()
    assert lines(path) == [{"step": 2}, {"step": 3}, {"step": 4, "loss": None, "lr": 0.5}]


def test_tensorboard_has_the_numbers_of_the_metrics(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    metrics = runlog.Metrics(tmp_path / "metrics.jsonl", 3, tmp_path / "board")
    metrics.write(4, {"loss": 0.5, "note": "text"})
    metrics.close()
    assert written == [(str(tmp_path / "board"), 4), ("loss", 0.5, 4), "closed"]


def test_tensorboard_that_is_not_there_is_a_sentence(house, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train.main([*arguments(house, tmp_path, "structure"), "--tensorboard"]) == 1
    assert "pip install 'bhx[tensorboard]'" in capsys.readouterr().err
