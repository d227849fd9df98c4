"""Make Snakemake's Slurm plugin wait for a controller that does not answer.

The plugin (2.8.0) asks for the states of all its jobs at once. If no answer comes five times it forgets them and waits
for ever, and where `squeue` is asked it first turns to `sacct`, which never answers without accounting. So a restart
of slurmctld would hang a run of days. Here the question is put again until it is answered.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

PLUGIN = "snakemake_executor_plugin_slurm"
#: Seconds between two questions to a controller that does not answer.
PAUSE = 10.0
#: Seconds for which `squeue` tells of a job that has ended, unless the site says otherwise.
DEFAULT_MIN_JOB_AGE = 300


def install() -> None:
    """Make the plugin patient, if Snakemake has loaded it."""
    plugin: Any = sys.modules.get(PLUGIN)
    if plugin is not None:
        plugin.query_job_status = until_answered(plugin.query_job_status)
        plugin.get_min_job_age = last_known(plugin.get_min_job_age)


def until_answered(
    ask: Callable[..., Awaitable[tuple[Any, Any]]],
) -> Callable[..., Awaitable[tuple[Any, Any]]]:
    """Repeat a question whose answer is ``(None, None)`` where there is none."""

    async def patient(command: str, logger: Any) -> tuple[Any, Any]:
        silent = False
        while True:
            answer = await ask(command, logger)
            if answer != (None, None):
                if silent:
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
