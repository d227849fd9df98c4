"""Reports of a training: metrics as JSON lines, a progress line, and trackers if configured."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bhx_model.atomic_write import atomic_write
from bhx_model.training.trackers import Tracker, open_tracker

logger = logging.getLogger(__name__)


def duration(seconds: float) -> str:
    """``"3 s"``, ``"4 min 05 s"`` or ``"2 h 07 min"``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"


class Progress:
    """Rate and time to go, by the steps of this process alone: a resumed run has its own clock."""

    def __init__(self, name: str, first_step: int, steps: int):
        self.name, self.first_step, self.steps = name, first_step, steps
        self.started = time.monotonic()

    def line(self, done: int, samples_per_step: int, values: Mapping[str, float]) -> str:
        """Format the progress line after `done` steps in all."""
        taken = time.monotonic() - self.started
        rate = (done - self.first_step) / max(taken, 1e-9)
        left = duration((self.steps - done) / max(rate, 1e-9))
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        samples = f"{rate * samples_per_step:.3g} samples/s"
        return f"{self.name} {done}/{self.steps}  {numbers}  {samples}  {left} to go"


class Metrics:
    """``metrics.jsonl``: appended line by line, without what a killed run wrote past its checkpoint.

    Parameters
    ----------
    path : Path
    step : int
        Step this run starts from; lines about later steps are removed.
    trackers : sequence of Tracker
        Get the same numbers.

    Attributes
    ----------
    last : set of str
        What is known of the step this run starts from.
    """

    def __init__(self, path: Path, step: int, trackers: Sequence[Tracker] = ()):
        kept, self.last = [], set()
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    row = json.loads(line)
                except (
                    ValueError,
                    RecursionError,
                ):  # the line that was being written when the run was killed
                    continue
                if not (isinstance(row, dict) and isinstance(row.get("step"), int)):
                    continue  # a damaged one
                if row["step"] <= step:
                    kept.append(line)
                if row["step"] == step:
                    self.last |= row.keys()
        with atomic_write(path) as part:
            part.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        # without a buffer: a line that a full disk has no room for is not kept, and tried again at the end
        self._file = path.open("ab", buffering=0)
        self._trackers = trackers

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add one line; numbers that are not finite become null, which JSON can hold.

        Raises
        ------
        OSError
            Naming the file, if the disk is full, or fails.
        """
        row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        line = json.dumps({"step": step, **row}).encode() + b"\n"
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._file.name) from error
        for tracker in self._trackers:
            tracker.write(step, values)

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


class Reporter:
    """Metrics and the progress line of a training; silent in all processes but the first.

    Parameters
    ----------
    stage : str
    run : Path
        Run folder.
    start, steps : int
        Step this run starts from, and the last.
    batch_size : int
        Samples per step.
    trackers : sequence of str
        Names of trackers that get the metrics, too; see `bhx_model.training.trackers`.
    silent : bool
        Report nothing.

    Raises
    ------
    SiteError
        If a tracker is not installed, or cannot be opened.
    """

    def __init__(
        self,
        stage: str,
        run: Path,
        start: int,
        steps: int,
        batch_size: int,
        trackers: Sequence[str],
        silent: bool,
    ):
        self._progress, self._batch_size = Progress(stage, start, steps), batch_size
        self._metrics = None
        if not silent:
            opened = [open_tracker(name, run, start) for name in trackers]
            self._metrics = Metrics(run / "metrics.jsonl", start, opened)

    @property
    def lacks_holdout(self) -> bool:
        """Whether the metrics of the step that the run starts from should be completed with the holdout's."""
        return self._metrics is not None and "holdout_loss" not in self._metrics.last

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Report the loss, learning rate and other numbers after `done` steps in all."""
        if self._metrics is not None:
            self._metrics.write(done, values)
            shown = {name: values[name] for name in ("loss", "lr")}
            logger.info("%s", self._progress.line(done, self._batch_size, shown))

    def holdout(self, done: int, losses: Mapping[str, float]) -> None:
        """Report the losses on the holdout."""
        if self._metrics is not None:
            self._metrics.write(done, {f"holdout_{name}": value for name, value in losses.items()})

    def sync(self) -> None:
        """Wait until all metrics are on the disk."""
        if self._metrics is not None:
            self._metrics.sync()

    def close(self) -> None:
        """Close the files."""
        if self._metrics is not None:
            self._metrics.close()
