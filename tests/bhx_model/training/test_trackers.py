"""Trackers get the numbers of the metrics, once, and never end a training."""

from __future__ import annotations

import socket
import sys
import types
from pathlib import Path

import pytest
from training_runs import arguments

from bhx_model.errors import SiteError
from bhx_model.training import runlog, trackers, train


def fake(monkeypatch, name: str, **members) -> None:
    """Stand in for a package that need not be installed."""
    module = types.ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def track(run: Path, name: str, step: int, rows: dict[int, dict]) -> None:
    """Write rows of metrics as a training does that starts from a step."""
    run.mkdir(exist_ok=True)
    metrics = runlog.Metrics(run / "metrics.jsonl", step, [trackers.open_tracker(name, run, step)])
    for at, values in rows.items():
        metrics.write(at, values)
    metrics.close()


def test_tensorboard_has_the_numbers_of_the_metrics(tmp_path: Path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    fake(monkeypatch, "torch.utils.tensorboard", SummaryWriter=SummaryWriter)
    track(tmp_path, "tensorboard", 3, {4: {"loss": 0.5, "note": "text", "bad": float("nan")}})
    assert written == [(str(tmp_path / "tensorboard"), 4), ("loss", 0.5, 4), "closed"]


def test_weights_and_biases_resumes_the_run_of_the_folder(tmp_path: Path, monkeypatch):
    begun, logged = [], []
    run = types.SimpleNamespace(log=lambda values, step: logged.append((step, values)), finish=lambda: None)
    fake(monkeypatch, "wandb", init=lambda **options: begun.append(options) or run, Settings=dict)
    track(tmp_path / "function-1a", "wandb", 0, {1: {"loss": 2.0, "lr": 1}})
    assert begun[0]["id"] == "function-1a"
    assert begun[0]["resume"] == "allow"
    assert logged == [(1, {"loss": 2.0, "lr": 1.0})]


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_one_that_is_not_installed_is_a_sentence(name: str, tmp_path: Path, monkeypatch):
    for module in ("torch.utils.tensorboard", "mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SiteError, match=rf"pip install 'bhx\[{name}\]'"):
        trackers.open_tracker(name, tmp_path, 0)


def test_the_command_says_so_before_it_trains(house, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for words in (["--tensorboard"], ["--track", "tensorboard"]):
        assert train.main([*arguments(house, tmp_path, "structure"), *words]) == 1
        assert "pip install 'bhx[tensorboard]'" in capsys.readouterr().err


def test_one_that_fails_is_left_with_a_warning(tmp_path: Path, monkeypatch, caplog):
    class Down:
        def log(self, values, step):
            raise ConnectionError("no route")

    fake(monkeypatch, "wandb", init=lambda **options: Down(), Settings=dict)
    track(tmp_path, "wandb", 0, {1: {"loss": 2.0}, 2: {"loss": 1.0}})
    assert caplog.text.count("the tracker wandb fails (no route)") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2

    def refuse(**options):
        raise RuntimeError("no key")

    fake(monkeypatch, "wandb", init=refuse, Settings=dict)
    with pytest.raises(SiteError, match=r"wandb cannot be opened \(no key\)"):
        trackers.open_tracker("wandb", tmp_path, 0)


def test_mlflow_has_the_metrics_once_in_a_local_store(tmp_path: Path, monkeypatch):
    """A killed run sent more than its checkpoint holds: the resumed one adds what is new, to the same run."""
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / "runs/function-1a"
    run.parent.mkdir()
    track(run, "mlflow", 0, {1: {"loss": 3.0}, 2: {"loss": 2.0}, 3: {"loss": 1.5}})
    track(run, "mlflow", 2, {3: {"loss": 1.5}, 4: {"loss": 1.0, "lr": 0.1}})
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("bhx")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "function-1a"
    assert found.info.status == "FINISHED"
    sent = client.get_metric_history(found.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in sent] == [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]
    assert [m.value for m in client.get_metric_history(found.info.run_id, "lr")] == [0.1]
    assert set(found.data.tags) == {"bhx.stage", "mlflow.runName"}


def test_tensorboard_itself_has_the_scalars_once(tmp_path: Path):
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra tensorboard"
    )
    track(tmp_path, "tensorboard", 0, {1: {"loss": 3.0}, 2: {"loss": 2.0}, 3: {"loss": 1.5}})
    track(tmp_path, "tensorboard", 2, {3: {"loss": 1.5}, 4: {"loss": 1.0}})
    events = reading.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    sent = [(event.step, event.value) for event in events.Scalars("loss")]
    assert sent == [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]


def test_weights_and_biases_gets_numbers_and_nothing_else(tmp_path: Path, monkeypatch):
    """Offline: what would be sent is in a file; neither the machine, nor paths, nor what is printed."""
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "function-1a"
    run.mkdir()
    tracker = trackers.open_tracker("wandb", run, 0)
    print("sub-0042")
    tracker.write(1, {"loss": 3.0})
    tracker.close()
    wandb.teardown()  # its own process then has written all
    (kept,) = (run / "wandb").glob("offline-run-*/*.wandb")
    sent = kept.read_bytes()
    assert b"loss" in sent
    beyond = {"a line": "sub-0042", "the machine": socket.gethostname(), "Python": sys.executable}
    assert [what for what, text in beyond.items() if text.encode() in sent] == []
    assert [path.name for path in kept.parent.glob("files/*")] == []
