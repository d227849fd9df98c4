"""Patch Snakemake's Slurm plugin to wait for an unresponsive controller, but not for a job preempted for good.

The plugin (2.8.0) asks for the states of all its jobs at once. If no answer comes five times it forgets them and waits
for ever, and where `squeue` is asked it first turns to `sacct`, which never answers without accounting. So a restart
of slurmctld would hang a run of days. A job whose `sbatch` got no answer counts as failed, although the controller may
have taken it: it would then run twice at the same time. Here both questions are put until they are answered, and a job
carries a mark by which it is found again. And the plugin takes it that Slurm starts a preempted job again; where
preemption cancels (``PreemptMode=CANCEL``) it would wait for ever.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from bhx_prep.slurm import jobs

PLUGIN = "snakemake_executor_plugin_slurm"
#: Seconds between two questions to a controller that does not answer.
PAUSE = 5.0
#: Seconds for which `squeue` lists a job that has ended, unless the site configures otherwise.
DEFAULT_MIN_JOB_AGE = 300
#: What Slurm's commands say where no controller answered; everything else is a refusal.
SILENT = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Zero Bytes were transmitted|Unexpected message received"
    r"|controller in standby mode|temporarily unable to accept|Connection (?:refused|reset)"
)
#: The comment in the plugin's call of `sbatch`: one word of the shell.
COMMENT = re.compile(r"--comment (?:'[^']*'|\"[^\"]*\"|[^\s'\"])+")


def install() -> None:
    """Make the plugin patient, if Snakemake has loaded it."""
    plugin: Any = sys.modules.get(PLUGIN)
    if plugin is None:
        return
    from snakemake.logging import logger

    interrupted = threading.Event()  # Snakemake cancels its jobs: stop waiting

    def cancel(*arguments: Any) -> None:
        interrupted.set()
        original_cancel(*arguments)

    def submit(call: str, **_: Any) -> Submission:
        return Submission(call, logger, interrupted)

    original_cancel = plugin.cancel_slurm_jobs
    plugin.cancel_slurm_jobs = cancel
    plugin.query_job_status = preempted_end(until_answered(plugin.query_job_status, interrupted))
    plugin.get_min_job_age = last_known(plugin.get_min_job_age)
    plugin.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": submit})


class Submission:
    """A submission that outlasts an absent controller, in place of the `Popen` by which the plugin calls `sbatch`.

    Parameters
    ----------
    call : str
        For the shell; its ``--comment`` gets a mark, ``rule_train_encoder#1f6a09c3``.
    logger : Logger
        Logs that it waits.
    interrupted : threading.Event
        Ends the waiting.
    """

    def __init__(self, call: str, logger: Any, interrupted: threading.Event):
        self.mark = secrets.token_hex(4)
        self.call = COMMENT.sub(rf"\g<0>'#{self.mark}'", call, count=1)
        self.logger, self.interrupted = logger, interrupted
        self.returncode = 1

    def communicate(self, input: str | None = None) -> tuple[str, str]:
        """What `sbatch` printed, once a controller has taken the job or refused it."""
        silent = False
        while not self.interrupted.is_set():
            done = subprocess.run(
                self.call, shell=True, text=True, input=input, capture_output=True, check=False
            )
            if done.returncode == 0 or not SILENT.search(done.stderr):
                self.returncode = done.returncode
                if silent:
                    self.logger.info("Slurm answers again.")
                return done.stdout, done.stderr
            if not silent:
                self.logger.warning("Slurm does not answer (sbatch): submitting again until it does.")
            silent = True
            if number := self._taken():
                self.returncode = 0
                self.logger.info(f"Slurm answers again, and had taken job {number}.")
                return number, ""
        return "", "interrupted while Slurm did not answer"

    def _taken(self) -> str | None:
        """Number of the job if the controller, asked until it answers, has it although it did not say so.

        Without `squeue` it cannot be asked: then it is submitted again.
        """
        if shutil.which("squeue") is None:
            self.interrupted.wait(PAUSE)
            return None
        while not self.interrupted.wait(PAUSE):
            if (known := jobs.marks()) is not None:
                return known.get(self.mark)
        return None


Question = Callable[[str, Any], Awaitable[tuple[Any, Any]]]


def preempted_end(ask: Question) -> Question:
    """Count a job as cancelled that two answers on end call preempted: one that Slurm starts again is soon pending."""
    seen: set[str] = set()
    ended: set[str] = set()

    async def reported(command: str, logger: Any) -> tuple[Any, Any]:
        nonlocal seen, ended
        states, seconds = await ask(command, logger)
        if states is None:
            return states, seconds
        now = {job for job, state in states.items() if state == "PREEMPTED"}
        for job in sorted((now & seen) - ended):
            logger.warning(f"Slurm cancelled job {job} to make room for another: it counts as failed.")
        seen, ended = now, ended | (now & seen)
        return {job: "CANCELLED" if job in ended else state for job, state in states.items()}, seconds

    return reported


def until_answered(ask: Question, interrupted: threading.Event) -> Question:
    """Repeat a question whose answer is ``(None, None)`` where there is none."""

    async def patient(command: str, logger: Any) -> tuple[Any, Any]:
        silent = False
        while True:
            answer = await ask(command, logger)
            if answer != (None, None) or interrupted.is_set():
                if silent and not interrupted.is_set():
                    logger.info("Slurm answers again.")
                return answer
            if not silent:
                logger.warning(f"Slurm does not answer ({command.split()[0]}): asking again until it does.")
            silent = True
            await asyncio.sleep(PAUSE)

    return patient


def last_known(ask: Callable[[], int | None]) -> Callable[[], int]:
    """Answer with the last known value where there is none now, and with Slurm's default before any is known."""
    known = DEFAULT_MIN_JOB_AGE

    def remembering() -> int:
        nonlocal known
        known = ask() or known
        return known

    return remembering
