"""Trackers of a training's metrics beside ``metrics.jsonl``: TensorBoard, MLflow, Weights & Biases, each chosen by name.

Nothing depends on them: one that fails is left with a warning, and the training goes on. Where they send to is said in their
own environment variables (``MLFLOW_TRACKING_URI``, ``WANDB_MODE``, ..). A training that resumes goes on in the same run.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import SiteError

logger = logging.getLogger(__name__)

#: Name -> extra of BHX that brings it.
TRACKERS: Final = ("tensorboard", "mlflow", "wandb")
#: Project of Weights & Biases, and experiment of MLflow, where the environment names no other.
PROJECT: Final = "bhx"
#: Settings of Weights & Biases with which nothing but numbers goes out.
_NUMBERS_ONLY: Final[Mapping[str, Any]] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "host": "",
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class Tracker(Protocol):
    """Takes numbers of a training."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of a step; those of a step that it has are not added again."""

    def close(self) -> None:
        """Finish writing."""


def open_tracker(name: str, run: Path, step: int) -> Tracker:
    """Open a tracker for a training.

    Parameters
    ----------
    name : str
        One of `TRACKERS`.
    run : Path
        Run folder; its name is that of the tracker's run.
    step : int
        Step that the training starts from.

    Raises
    ------
    SiteError
        If its package is not installed, or it cannot be opened.
    """
    opened = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}[name]
    try:
        return _Failsafe(name, opened(run, step))
    except ImportError as error:
        msg = f"the tracker {name} is not installed: pip install 'bhx[{name}]', or train without it"
        raise SiteError(msg) from error
    except Exception as error:  # of a service: each has errors of its own
        msg = f"the tracker {name} cannot be opened ({str(error)[:80]}): check its settings, or train without it"
        raise SiteError(msg) from error


class TensorBoard:
    """Events in the folder ``tensorboard`` of the run."""

    def __init__(self, run: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the file of events."""
        self._writer.close()


class MLflow:
    """A run of MLflow, whose id the run folder keeps; in the folder ``mlflow`` next to `runs` if no server is named."""

    def __init__(self, run: Path, step: int):
        import mlflow

        uri = os.environ.get("MLFLOW_TRACKING_URI") or (run.absolute().parents[1] / "mlflow").as_uri()
        if uri.startswith("file:"):  # MLflow asks whether files are meant
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self._kept = run / "mlflow_run_id"
        self._id = self._kept.read_text(encoding="utf-8").strip() if self._kept.exists() else self._start(run)
        self._last: dict[str, int] = {}

    def _start(self, run: Path) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        tags = {"bhx.stage": run.name.partition("-")[0]}
        started = self._client.create_run(number, tags=tags, run_name=run.name).info.run_id
        with atomic_write(self._kept) as part:
            part.write_text(f"{started}\n", encoding="utf-8")
        return started

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add metrics; those that a killed process sent after its checkpoint exist already, with the same values."""
        for name, value in values.items():
            if name not in self._last:
                sent = self._client.get_metric_history(self._id, name)
                self._last[name] = max((metric.step for metric in sent), default=-1)
            if step > self._last[name]:
                self._client.log_metric(self._id, name, value, step=step)
                self._last[name] = step

    def close(self) -> None:
        """Say that the run has ended; one that is resumed ends again."""
        self._client.set_terminated(self._id)


class WeightsAndBiases:
    """A run of Weights & Biases with the run folder's name as its id; it takes no step twice by itself.

    Its client would add the machine's name and state, the command with its paths, packages, code, and what is printed.
    """

    def __init__(self, run: Path, step: int):
        import wandb

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._run = wandb.init(
            project=project,
            id=run.name,
            name=run.name,
            resume="allow",
            dir=str(run),
            settings=wandb.Settings(**_NUMBERS_ONLY),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Wait until everything is sent."""
        self._run.finish()


class _Failsafe:
    """A tracker that is left, with a warning, the first time that it fails; it gets numbers that are finite only."""

    def __init__(self, name: str, tracker: Tracker):
        self._name = name
        self._tracker: Tracker | None = tracker

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
        self._try("write", step, numbers)

    def close(self) -> None:
        self._try("close")

    def _try(self, what: str, *values: Any) -> None:
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, what)(*values)
        except Exception as error:  # of a service: each has errors of its own, and none may end a training
            self._tracker = None
            logger.warning(
                "the tracker %s fails (%s) and gets nothing more; metrics.jsonl has everything",
                self._name,
                error,
            )
