"""Compare the GPUs that planned jobs request with those of this machine, when Snakemake starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bhx_model import gpus
from bhx_model.errors import ConfigError, SiteError

#: Rules that may ask for GPUs, and those of them that train an experiment.
RULES: Final = ("embed_tokens", "read_function_tokens", "evaluate_model")
TRAINING: Final = ("train_encoder", "train_fusion")
#: The preset that trains on a CPU within minutes.
ON_CPU: Final = "tiny"


@dataclass(frozen=True)
class PlannedJob:
    """Resources that a planned job requests.

    `experiment` is the first that uses what it makes, `partition` Slurm's where the job is submitted, over how many `nodes`.
    """

    rule: str
    experiment: str
    preset: str
    gpus: int
    partition: str | None = None
    nodes: int | None = None


def check(jobs: Iterable[PlannedJob], *, submits: bool) -> list[str]:
    """Compare planned jobs with this machine, or with the partitions that they go to.

    Parameters
    ----------
    jobs : iterable of PlannedJob
        Those of `RULES` and `TRAINING`.
    submits : bool
        Whether they are submitted to Slurm, which knows best how many GPUs it has.

    Returns
    -------
    list of str
        What works, but not as it should.

    Raises
    ------
    SiteError
        If this machine has GPUs, but fewer than a job asks for.
    ConfigError
        If the GPUs of a job cannot be spread evenly over the nodes that the profile gives it.
    """
    jobs = list(jobs)
    if submits:
        for job in jobs:
            if job.nodes is not None and job.nodes > 1 and (job.gpus % job.nodes or not job.gpus):
                raise ConfigError(
                    f"experiments.{job.experiment}.gpus: {job.gpus} cannot be spread evenly over the {job.nodes} nodes that "
                    f"the profile gives {job.rule}: change one of them"
                )
        return _in_partitions([job for job in jobs if job.rule in TRAINING])
    here = gpus.present()
    mine = gpus.visible(here, os.environ)
    most = max((job.gpus for job in jobs), default=0)
    if len(mine) < most and here:
        raise SiteError(gpus.too_few(most, len(here), len(mine)))
    lines = []
    for job in _one_of_each(jobs):
        if job.gpus and not here:
            lines.append(
                f"experiments.{job.experiment}.gpus: {job.gpus}, but nvidia-smi lists no GPU here: unless PyTorch finds any,"
                " the jobs use the CPU"
            )
        if mine and _is_idle(job):
            lines.append(_idle(job, "though GPUs are here"))
    return lines


def _is_idle(job: PlannedJob) -> bool:
    return job.rule in TRAINING and not job.gpus and job.preset != ON_CPU


def _idle(job: PlannedJob, where: str) -> str:
    return f"experiments.{job.experiment}.gpus: 0 trains preset {job.preset} on the CPU, for months, {where}: set gpus"


def _one_of_each(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    """The first job of every experiment, of those that train if there are any."""
    ordered = sorted(jobs, key=lambda job: job.rule not in TRAINING)
    return list({job.experiment: job for job in reversed(ordered)}.values())[::-1]


def _in_partitions(jobs: Sequence[PlannedJob]) -> list[str]:
    lines, known = [], {}
    for job in _one_of_each(jobs):
        if not _is_idle(job) or job.partition is None:
            continue
        if job.partition not in known:
            known[job.partition] = has_gpus(job.partition)
        if known[job.partition]:
            lines.append(_idle(job, f"and partition {job.partition} has GPUs"))
    return lines


def has_gpus(partition: str) -> bool:
    """Whether nodes of a partition of Slurm have GPUs; False where Slurm does not answer."""
    command = ["sinfo", "--noheader", f"--partition={partition}", "--format=%G"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return "gpu" in listed
