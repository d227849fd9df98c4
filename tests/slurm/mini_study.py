"""A study small enough to be run many times: two cohorts of a few people at the third door, trainings of a few steps."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bhx_prep.synth import tables

ROOT = Path(__file__).resolve().parents[2]

#: Noticed after seconds, not minutes: tests have no patience. Everything else is the profile as it is shipped.
IMPATIENT = (
    "--slurm-init-seconds-before-status-checks=1",
    "--seconds-between-status-checks=1",
    "--latency-wait=10",
)
#: What the test cluster lacks of a site: accounts, which need a database.
SITE = ("--default-resources", "slurm_partition=cpu", "mem_mb=2000", "runtime=30")

CONFIG: dict[str, Any] = {
    "results": "results",
    "batch_size": 4,
    "cohorts": {
        "town": {"door": "parcellated", "root": "data/town", "synthetic": True},
        "clinic": {"door": "parcellated", "root": "data/clinic", "synthetic": True},
    },
    "features": {"t1w_resolution_mm": 4.0, "t1w_shape": [32, 48, 32], "harmonics": 20, "gradients": 5},
    "experiments": {
        "mini": {
            "cohorts": ["town"],
            "preset": "tiny",
            "overrides": {
                "structure": {"train.steps": 6, "train.warmup_steps": 1, "train.save_every": 2},
                "function": {"train.steps": 6, "train.warmup_steps": 1, "train.save_every": 2},
                "fusion": {"train.steps": 6, "train.warmup_steps": 1, "train.save_every": 2},
            },
        }
    },
    "endpoints": {
        "diagnosis": {
            "cohort": "clinic",
            "column": "diagnosis",
            "kind": "binary",
            "classes": ["control", "patient"],
            "methods": ["probe"],
            "seeds": 1,
        }
    },
}


def make_data(folder: Path) -> None:
    """Write the cohorts' tables and volumes, on a coarse grid."""
    tables.fill_town(folder / "town", seed=0, n=8, step_mm=4.0)
    tables.fill_clinic(folder / "clinic", seed=0, n=16, step_mm=4.0)


class MiniStudy:
    """A folder to run Snakemake in: the workflow by links, its own data, configuration and results.

    Parameters
    ----------
    folder : Path
        Is made.
    data : Path
        What `make_data` wrote; linked person by person, so that cohorts can be changed.
    config : dict
        Of the study.
    """

    def __init__(self, folder: Path, data: Path, config: dict[str, Any] | None = None):
        self.folder = folder
        folder.mkdir(parents=True)
        for name in ("workflow", "rules", "envs", "bhx_model", "profiles", "slurm"):
            (folder / name).symlink_to(ROOT / name)
        for cohort in sorted(data.iterdir()):
            (folder / "data" / cohort.name).mkdir(parents=True)
            for entry in cohort.iterdir():
                (folder / "data" / cohort.name / entry.name).symlink_to(entry)
        self.write_config(config or CONFIG)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write ``config.yaml``."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def command(self, *arguments: str, profile: str | None = "slurm") -> list[str]:
        """Words of ``snakemake --profile slurm ...``; without a profile it runs here."""
        start = [sys.executable, "-m", "snakemake"]
        if profile is None:
            return [*start, "--cores", "2", *arguments]
        return [*start, "--profile", profile, *arguments, *IMPATIENT, *SITE]

    def start(
        self, *arguments: str, environment: dict[str, str], log: str = "snakemake.log", profile: str | None = "slurm"
    ) -> subprocess.Popen[bytes]:
        """Start Snakemake in a session of its own, its output in a file."""
        with (self.folder / log).open("ab") as out:
            return subprocess.Popen(
                self.command(*arguments, profile=profile),
                cwd=self.folder,
                env={**environment, **_QUIET},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        log: str = "snakemake.log",
        profile: str | None = "slurm",
        seconds: float = 600,
    ) -> int:
        """Run Snakemake to its end; its exit status."""
        process = self.start(
            *arguments, environment=environment or dict(os.environ), log=log, profile=profile
        )
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def log(self, name: str = "snakemake.log") -> str:
        """What Snakemake said."""
        return (self.folder / name).read_text(encoding="utf-8", errors="replace")

    def hashes(self, patterns: Sequence[str] = ("results/**/*",)) -> dict[str, str]:
        """sha256 of the results, by path; times and machines that results tell of are left out."""
        found = sorted({path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file()})
        names = {path: str(path.relative_to(self.folder)) for path in found}
        return {
            name: hashlib.sha256(_content(path)).hexdigest()
            for path, name in names.items()
            if not name.startswith(("results/logs/", "results/benchmarks/", "results/runs/"))
        }


def _content(path: Path) -> bytes:
    """Bytes of a file, without what is about the run and not about its result."""
    if path.name != "run.json":
        return path.read_bytes()
    told = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps({k: v for k, v in told.items() if k not in ("seconds", "machine")}, sort_keys=True).encode()


_QUIET = {"NO_ET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
