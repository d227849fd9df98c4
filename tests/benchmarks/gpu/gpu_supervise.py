"""Run the parts one after another in a child process with time limits; a part that hangs or dies costs only itself.

The process that measures writes a line for every row that it has, so that nothing found is lost with it. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

#: Seconds that a part may overrun before its process is killed, and that a new process needs to be worth a start.
GRACE_S: Final = 10.0
#: Environment of the process that measures, the name of the file that says what to do.
WORK: Final = "BHX_GPU_WORK"


@dataclasses.dataclass(frozen=True)
class Part:
    """Something to be measured and the seconds it may take."""

    name: str
    limit_s: float


@dataclasses.dataclass
class Work:
    """Input of a process that measures."""

    device: str
    preset: str
    place: str
    """Folder for synthetic data and trainings."""
    rows: str
    """File of the rows, one JSON a line."""
    until: float
    """Wall clock at which everything ends, s."""
    learning_s: float
    parts: list[tuple[str, float]]

    @classmethod
    def read(cls, path: str) -> Work:
        """Read what `write` wrote."""
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")


def append(rows: str | Path, row: dict[str, Any]) -> None:
    """Add a row; it is in the file when this returns."""
    with Path(rows).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_rows(rows: str | Path) -> list[dict[str, Any]]:
    """All whole rows so far."""
    path, found = Path(rows), []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:  # the line that was being written when the process was killed
            continue
    return found


@dataclasses.dataclass
class _Child:
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, work: Work, script: Path, environment: dict[str, str]) -> _Child:
        file = Path(work.place) / f"work-{time.monotonic_ns()}.json"
        work.write(file)
        return cls(
            subprocess.Popen(
                [sys.executable, str(script)],
                env=environment | {WORK: str(file)},
                stdout=sys.stderr,
                start_new_session=True,
            )
        )

    def end(self) -> None:
        """Kill it and what it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def supervise(
    parts: Sequence[Part], work: Work, script: Path, environment: dict[str, str], report: Callable[[], object]
) -> None:
    """Run all parts that time allows; rows of kind ``part`` state how each ended. `report` is called after every part."""
    left = list(parts)
    while left and work.until - time.time() > min(GRACE_S, left[0].limit_s):
        work.parts = [(part.name, part.limit_s) for part in left]
        child = _Child.start(work, script, environment)
        try:
            note = _watch(child, left, work, report)
        finally:
            child.end()
        begun = _begun(read_rows(work.rows))
        ended = {row["part"] for row in read_rows(work.rows) if row["kind"] == "part" and "outcome" in row}
        current = next((part for part in left if part.name in begun and part.name not in ended), None)
        if current is not None:
            append(work.rows, {"kind": "part", "part": current.name, "outcome": note})
        elif not any(part.name in ended for part in left):  # it did not come to its first part
            append(work.rows, {"kind": "part", "part": left[0].name, "outcome": note})
        ended = {row["part"] for row in read_rows(work.rows) if row["kind"] == "part" and "outcome" in row}
        left = [part for part in left if part.name not in ended]
        report()
    for part in left:
        append(work.rows, {"kind": "part", "part": part.name, "outcome": "not begun: the time was up"})


def _begun(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    return {row["part"]: row["began"] for row in rows if row["kind"] == "part" and "began" in row}


def _watch(child: _Child, parts: Sequence[Part], work: Work, report: Callable[[], object]) -> str:
    """Wait for a process to end, or for a part of it to take too long; say which."""
    limits, reported = {part.name: part.limit_s for part in parts}, 0
    while child.process.poll() is None:
        time.sleep(0.1)
        now, rows = time.time(), read_rows(work.rows)
        if now > work.until + GRACE_S / 2:
            return "stopped: the time was up"
        begun = _begun(rows)
        ended = {row["part"] for row in rows if row["kind"] == "part" and "outcome" in row}
        if len(ended) > reported:
            reported = len(ended)
            report()
        for name in begun.keys() - ended:
            if name in limits and now > begun[name] + limits[name] + GRACE_S:
                return f"stopped: it took longer than {limits[name]:.0f} s"
    return f"its process ended with code {child.process.returncode}"
