"""Slurm's jobs of a study: those in its queue, also of a Snakemake that was killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bhx_model.errors import ConfigError

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
    lines = _squeue("--format=%i|%T|%M|%N|%Z|%k")
    if lines is None:
        return None
    jobs = []
    for line in lines:
        number, state, elapsed, node, place, comment = line.split("|", 5)
        if state in ALIVE and comment.startswith("rule_") and _same(place, folder):
            what = comment.partition("#")[0].removeprefix("rule_").replace("_wildcards_", "_", 1)
            jobs.append(Job(number, state, what, elapsed, node))
    return jobs


def marks() -> dict[str, str] | None:
    """Mark to number of every job that Slurm knows, ended or not; None if Slurm does not answer.

    A mark is what `plugin_patch` puts behind a job's comment.
    """
    lines = _squeue("--states=all", "--format=%F|%k")
    if lines is None:
        return None
    jobs = (line.split("|", 1) for line in lines)
    return {comment.partition("#")[2]: number for number, comment in jobs if "#" in comment}


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
    running = {job.number: job for job in alive(folder) or [] if job.state != "PENDING"}
    found = {}
    for _, number, text in _logs(logs) if running else ():
        if job := running.get(number):
            found |= dict.fromkeys(_targets(text), f"Slurm job {number} on {job.node}, {job.elapsed}")
    return found


def ended(logs: Path) -> dict[tuple[str, ...], str]:
    """The last job that each rule with its sorted wildcards was in: its number, and what Slurm said if it ended it.

    Jobs that went well leave no log. Parameter as of `at_work`.
    """
    found = {}
    for _, number, text in sorted(_logs(logs)):
        said = re.search(r"^slurmstepd: error: (.*)", text, flags=re.MULTILINE)
        label = f"Slurm job {number}" + (f" ({said[1].strip()})" if said else "")
        found |= dict.fromkeys(_targets(text), label)
    return found


def strays(folder: Path, *, submits: bool = False) -> str | None:
    """What to do about jobs that an earlier Snakemake left in the queue; None if there are none.

    Asked before anything is submitted: Snakemake itself would not know of them and start the same work again. The user who
    `submits` to Slurm needs its answer; for others there may be no Slurm, and who submits from a container without `squeue`
    (see `lacking`) is not told.
    """
    jobs = alive(folder)
    if jobs is None and shutil.which("squeue") is None:
        return None
    if jobs is None and submits:
        return "Slurm does not answer (squeue), so it is not known what of this folder is in its queue: try again later"
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


def lacking(status_command: str | None) -> tuple[list[str], list[str]]:
    """What of Slurm's commands is not here, as in a container: mistakes, and what one must know.

    Parameters
    ----------
    status_command : str, optional
        By which Snakemake asks for the states of its jobs (`slurm-status-command`).
    """
    mistakes = []
    for name, use in (("sbatch", "submits jobs"), (status_command or "squeue", "asks for their states")):
        if shutil.which(name) is None:
            mistakes.append(
                f"`--profile slurm` {use} by `{name}`, not here: start Snakemake where Slurm's commands are, or bind"
                " them into the container"
            )
    if not mistakes and shutil.which("squeue") is None:
        return [], [
            "there is no `squeue` here: jobs that an earlier Snakemake left in the queue are not looked for"
        ]
    return mistakes, []


def refuse_while_at_work() -> None:
    """Stop a command that changes results while Snakemake or jobs of an earlier one are at work in this folder.

    Raises
    ------
    ConfigError
        If there are any.
    """
    if any(Path(".snakemake/locks").glob("*")):
        msg = "Snakemake works in this folder (or was killed: then `snakemake --unlock`): wait until it has ended"
        raise ConfigError(msg)
    if left := strays(Path.cwd()):
        raise ConfigError(left)


def _logs(folder: Path) -> Iterator[tuple[float, str, str]]:
    """When a job's log was last written, the job's number, and the text."""
    for log in folder.rglob("*.log"):
        with contextlib.suppress(FileNotFoundError):  # Snakemake removes those of jobs that went well
            yield log.stat().st_mtime, log.stem, log.read_text(encoding="utf-8", errors="replace")


def _targets(log: str) -> list[tuple[str, ...]]:
    """Rules with their sorted wildcards that a job's log names."""
    words = re.search(r"^\s*Command:.* --target-jobs ((?:\w+:\S* )+)", log, flags=re.MULTILINE)
    targets = []
    for target in words[1].split() if words else ():
        rule, _, wildcards = target.partition(":")
        targets.append((rule, *sorted(pair.partition("=")[2] for pair in wildcards.split(",") if pair)))
    return targets


def _squeue(*options: str) -> list[str] | None:
    """Lines about this user's jobs; None where there is no Slurm, or it does not answer."""
    command = ["squeue", "--noheader", "--me", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()


def _same(place: str, folder: Path) -> bool:
    return os.path.realpath(place) == os.path.realpath(folder)
