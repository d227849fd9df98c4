"""Studies to run on a cluster, and one small enough to be run many times.

The small one has two cohorts of a few subjects with time series and trainings of a few steps.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import cluster
import yaml

from bhx_prep.config.config import check
from bhx_prep.demo import timeseries
from bhx_prep.trainings import Trainings

ROOT = Path(__file__).resolve().parents[2]

#: Noticed after seconds, not minutes: tests have no patience. Everything else is the profile as it is shipped.
IMPATIENT = (
    "--slurm-init-seconds-before-status-checks=1",
    "--max-status-checks-per-second=1",
    "--latency-wait=10",
)

CONFIG: dict[str, Any] = {
    "results": "results",
    "batch_size": 4,
    "cohorts": {},
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
    timeseries.fill_pretraining(folder / "town", seed=0, n=8, step_mm=4.0)
    timeseries.fill_patients(folder / "clinic", seed=0, n=16, step_mm=4.0)


class Study:
    """A folder to run Snakemake in: the workflow by links, results of its own.

    Parameters
    ----------
    folder : Path
        Is made.
    """

    #: What every study started, to be ended when its test ends.
    started: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        for name in ("workflow", "rules", "envs", "bhx_model", "profiles", "slurm"):
            (folder / name).symlink_to(ROOT / name)

    def command(self, *arguments: str, profile: str | None = "slurm") -> list[str]:
        """Words of ``snakemake --profile slurm ...``; without a profile it runs here."""
        if profile is None:
            return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        start = [sys.executable, str(ROOT / "tests/slurm/impatient.py")]
        return [*start, "--profile", profile, *arguments, *IMPATIENT]

    def start(
        self,
        *arguments: str,
        environment: dict[str, str],
        log: str = "snakemake.log",
        profile: str | None = "slurm",
    ) -> subprocess.Popen[bytes]:
        """Start Snakemake in a session of its own, its output in a file."""
        with (self.folder / log).open("ab") as out:
            process = subprocess.Popen(
                self.command(*arguments, profile=profile),
                cwd=self.folder,
                env={**environment, **_QUIET},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def run(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        log: str = "snakemake.log",
        profile: str | None = "slurm",
        seconds: float = 1200,
    ) -> int:
        """Run Snakemake to its end; its exit status."""
        process = self.start(
            *arguments, environment=environment or dict(os.environ), log=log, profile=profile
        )
        return process.wait(timeout=seconds)

    def wait_for_line(self, process: subprocess.Popen[bytes], text: str) -> None:
        """Wait until a Snakemake has said something; one that has ended will say no more."""

        def said() -> bool:
            at_work = process.poll() is None
            if text in self.log():
                return True
            assert at_work, f"no {text!r} in: {self.log()[-3000:]}"
            return False

        cluster.wait_until(said, f"{text!r} in {self.folder}/snakemake.log")

    def log(self, name: str = "snakemake.log") -> str:
        """What Snakemake said."""
        return (self.folder / name).read_text(encoding="utf-8", errors="replace")

    def hashes(self) -> dict[str, str]:
        """sha256 of every result, by path.

        No results are logs, what is left of trainings, and transforms, which HDF5 stamps with the time: the images that
        were resampled by them are compared.
        """
        names = {
            str(path.relative_to(self.folder)): path
            for path in sorted(self.folder.glob("results/**/*"))
            if path.is_file()
        }
        return {
            name: hashlib.sha256(_content(path)).hexdigest()
            for name, path in names.items()
            if not name.startswith(("results/logs/", "results/benchmarks/", "results/runs/"))
            and "/preproc/logs/" not in name
            and not name.endswith("_xfm.h5")
        }

    def remove(self, *names: str) -> None:
        """Remove results, so that they are made again."""
        for name in names:
            path = self.folder / "results" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def submitted(self, log: str = "snakemake.log") -> list[str]:
        """Slurm's numbers of the jobs that Snakemake submitted."""
        return re.findall(r"submitted with SLURM jobid (\d+)", self.log(log))

    def rules_run(self, log: str = "snakemake.log") -> list[str]:
        """Rule and wildcards of every job that was started, as ``extract_features town 00000``."""
        blocks = re.findall(
            r"^ *(?:local)?rule (\w+):\n((?: +\w+: .*\n)+)", self.log(log), flags=re.MULTILINE
        )
        return [
            " ".join([name, *re.findall(r"=(\S+?)(?:,|$)", wildcards[0] if wildcards else "")])
            for name, metadata in blocks
            for wildcards in [re.findall(r"^ +wildcards: (.*)$", metadata, flags=re.MULTILINE)]
        ]


class MiniStudy(Study):
    """The small study, with a configuration of its own.

    Parameters
    ----------
    folder : Path
        Is made.
    data : Path
        What `make_data` wrote. Its absolute path stands in the configuration and so in results: studies of the same
        data can be compared by hash, wherever they are.
    like : MiniStudy, optional
        A study whose results, and what Snakemake knows of them, are copied.
    """

    def __init__(self, folder: Path, data: Path, like: MiniStudy | None = None):
        super().__init__(folder)
        self.data = data
        self.config = copy.deepcopy(CONFIG)
        self.config["cohorts"] = {
            name: {"input": "timeseries", "root": str(data / name), "synthetic": True}
            for name in ("town", "clinic")
        }
        self.write_config()
        if like is not None:
            for part in ("results", ".bhx", ".snakemake/metadata"):
                shutil.copytree(like.folder / part, folder / part, symlinks=True)

    def override(self, stage: str, **values: Any) -> None:
        """Change a stage's training, e.g. ``steps=50``."""
        changes = self.config["experiments"]["mini"]["overrides"][stage]
        changes |= {f"train.{name}": value for name, value in values.items()}
        self.write_config()

    def weights(self, *stages: str) -> list[str]:
        """Files of an encoder's weights, where its settings put them."""
        made = Trainings(check(self.config))
        return [str(made.stage_folder("mini", stage) / "model.safetensors") for stage in stages]

    def write_config(self) -> None:
        """Write ``config.yaml``."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config), encoding="utf-8")


def end_all() -> None:
    """End every Snakemake that is still at work, as after a test that failed."""
    for process in Study.started:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    Study.started.clear()


def _content(path: Path) -> bytes:
    """Bytes of a file, without what is about the run and not about its result."""
    if path.name == "index.html":  # the page states how long things took
        return re.sub(rb'<td class="n">[\d.]+ (s|min|h)</td>', b"", path.read_bytes())
    if path.name != "run.json" and not path.name.endswith("_status.json"):
        return path.read_bytes()
    content = json.loads(path.read_text(encoding="utf-8"))
    of_run = ("seconds", "stages", "machine")
    return json.dumps({k: v for k, v in content.items() if k not in of_run}, sort_keys=True).encode()


_QUIET = {"NO_ET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
