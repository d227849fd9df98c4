"""Metrics as JSON lines."""

from __future__ import annotations

from training_runs import lines

from bhx_model.training import runlog


def test_metrics_past_the_checkpoint_of_a_killed_run_go(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 2}\n{"step": 3}\n{"step": 4, "loss": 1.0}\n' + "[" * 100_000 + '\n{"step": 5, "lo'
    )
    metrics = runlog.Metrics(path, 3)
    metrics.write(4, {"loss": float("inf"), "lr": 0.5})
    metrics.close()
    assert lines(path) == [{"step": 2}, {"step": 3}, {"step": 4, "loss": None, "lr": 0.5}]
