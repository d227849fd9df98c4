"""A study about real people in a folder: series laid out, the workflow run, predictions read, expectations stated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import DataError
from bhx_model.evaluation.intervals import Interval, Run, interval, read_run

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared/data"


@dataclass(frozen=True)
class Check:
    """Something that is expected, whether it holds, and by what."""

    expected: str
    holds: bool
    by: str


def lay_out(name: str, folder: Path) -> None:
    """Lay the series `name` of ../shared/data out in `folder`, unless they are there."""
    if not (folder / "names.txt").exists():
        script = DATA / "real_series.py"
        subprocess.run([sys.executable, script, name, folder], check=True, stdout=subprocess.DEVNULL)


def write_config(shipped: Path, folder: Path, changes: dict[str, Any]) -> None:
    """Write a configuration that stands beside this file into `folder`, with the top-level keys of `changes`."""
    values = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    with atomic_write(folder / "config.yaml") as part:
        part.write_text(yaml.safe_dump(values | changes, sort_keys=False), encoding="utf-8")


def snakemake(folder: Path, *targets: str) -> None:
    """Make targets of the study in `folder`; its log only if it fails."""
    done = subprocess.run(
        [
            sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow/Snakefile", "--cores",
            os.environ.get("CORES", "2"), "--quiet", "all", "--rerun-incomplete", "--", *targets,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/workflow"},
    )  # fmt: skip
    if done.returncode:
        msg = f"the study in {folder} failed: {(done.stdout + done.stderr)[-2000:]}"
        raise DataError(msg)


def runs_of(folder: Path, endpoint: str, method: str, experiments: str = "") -> list[Run]:
    """Test people of a row, a run per split.

    Parameters
    ----------
    folder : Path
        Of the study.
    endpoint, method : str
    experiments : str
        Pattern of the experiments that made the row, which score different splits; empty for rows that need none.
    """
    of = f"experiments/{experiments}/" if experiments else ""
    files = (folder / "results").glob(f"{of}endpoints/{endpoint}/{method}_seed-*/predictions.parquet")
    found = {int(file.parent.name.rpartition("-")[2]): file for file in files}
    if not found:
        msg = f"{endpoint} has no row {method} in {folder}: make it again, in an empty folder"
        raise DataError(msg)
    return [read_run(found[seed]) for seed in sorted(found)]


def score(folder: Path, endpoint: str, method: str, metric: str) -> Interval:
    """A metric of a row, with its interval."""
    return interval(runs_of(folder, endpoint, method), metric)


def holds(found: Interval, value: float) -> bool:
    """Whether an interval holds a value."""
    return found.low is not None and found.high is not None and found.low <= value <= found.high


def percent(found: Interval) -> str:
    """A share as percent, with its interval."""
    if found.point is None or found.low is None or found.high is None:
        return "undefined"
    return f"{100 * found.point:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def print_tables(folder: Path, endpoints: Sequence[str]) -> None:
    """Print the tables as the workflow wrote them."""
    for endpoint in endpoints:
        print((folder / f"results/tables/{endpoint}.md").read_text(encoding="utf-8"))


def print_checks(checks: Sequence[Check]) -> int:
    """Print what is expected and whether it holds; returns 1 where something does not."""
    print("| expected | holds | by |\n| --- | --- | --- |")
    for check in checks:
        print(f"| {check.expected} | {'yes' if check.holds else '**NO**'} | {check.by} |")
    return int(not all(check.holds for check in checks))


def fresh(folder: Path) -> Path:
    """Return `folder` as an absolute path, made where it is absent."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def empty(folder: Path) -> None:
    """Remove what an earlier run left of a study's results."""
    shutil.rmtree(folder / "results", ignore_errors=True)
