"""What Slurm knows of the jobs of a folder: those in its queue, also of a Snakemake that was killed."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: States of a job that still holds, or will hold, an allocation.
ALIVE = frozenset({"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "STOPPED"})


@dataclass(frozen=True)
class Job:
    """One job in Slurm's queue.

    `what` is the rule with its wildcards as the plugin writes them into the job's comment, ``extract_features_town_00003``;
    of a group it is the names of its rules.
    """

    number: str
    state: str
    what: str
    elapsed: str
    node: str


def alive(folder: Path) -> list[Job] | None:
    """Jobs that were submitted from a folder and have not ended.

    Parameters
    ----------
    folder : Path
        Where Snakemake runs.

    Returns
    -------
    list of Job, or None
        None where there is no Slurm, or it does not answer.
    """
    command = ["squeue", "--noheader", "--me", "--format=%i|%T|%M|%N|%Z|%k"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    jobs = []
    for line in done.stdout.splitlines():
        number, state, elapsed, node, place, comment = line.split("|", 5)
        if state in ALIVE and comment.startswith("rule_") and _same(place, folder):
            what = comment.removeprefix("rule_").replace("_wildcards_", "_", 1)
            jobs.append(Job(number, state, what, elapsed, node))
    return jobs


def at_work(folder: Path, logs: Path) -> dict[tuple[str, ...], str]:
    """What runs on nodes now: rule and its sorted wildcards to the job's number, node and time.

    Parameters
    ----------
    folder : Path
        Where Snakemake runs.
    logs : Path
        `slurm-logdir` of the profile. A running job's log begins with its command, which names what it makes, also
        where several share a job.
    """
    found = {}
    for job in alive(folder) or []:
        if job.state == "PENDING":
            continue
        for log in logs.glob(f"**/{job.number}.log"):
            with log.open(encoding="utf-8", errors="replace") as text:
                command = next((line for line in text if line.strip().startswith("Command:")), "")
            words = re.search(r"--target-jobs ((?:\w+:\S* )+)", command)
            for target in words.group(1).split() if words else ():
                rule, _, wildcards = target.partition(":")
                values = sorted(pair.partition("=")[2] for pair in wildcards.split(",") if pair)
                found[(rule, *values)] = f"Slurm job {job.number} on {job.node}, {job.elapsed}"
    return found


def strays(folder: Path) -> str | None:
    """What to do about jobs that an earlier Snakemake left in the queue; None if there are none.

    Asked before anything is submitted: Snakemake itself would not know of them and start the same work again.
    """
    jobs = alive(folder)
    if not jobs:
        return None
    numbers = " ".join(job.number for job in jobs)
    shown = ", ".join(f"{job.number} ({job.what}, {job.state.lower()})" for job in jobs[:5])
    more = f" and {len(jobs) - 5} more" if len(jobs) > 5 else ""
    count = "a Slurm job" if len(jobs) == 1 else f"{len(jobs)} Slurm jobs"
    return (
        f"{count} of an earlier run of this folder still in the queue: {shown}{more}. Wait until they have ended, their "
        f"work then counts, or say `scancel {numbers}`; then start again"
    )


def _same(place: str, folder: Path) -> bool:
    return os.path.realpath(place) == os.path.realpath(folder)
