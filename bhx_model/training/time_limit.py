"""The time limit of a training: set by the user, or by the scheduler of its job."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Final

#: Share of a job's time after which a training saves and ends, and what it leaves at least, s.
SHARE: Final = 0.97
LEFT_S: Final = 60.0

#: Variables of jobs that a scheduler ends when their time is over: Slurm's, PBS', LSF's, SGE's and Flux'.
_JOBS: Final = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "SGE_TASK_ID", "FLUX_JOB_ID")


def seconds(
    environment: Mapping[str, str], max_minutes: float | None = None, job_minutes: float | None = None
) -> float:
    """Time after which a training saves and ends, s; infinity where nothing ends it.

    Parameters
    ----------
    environment : Mapping[str, str]
        Says whether a scheduler runs this, and with Slurm when the job ends.
    max_minutes : float, optional
        Time that the user gives it.
    job_minutes : float, optional
        Time limit of its job; without a scheduler nothing enforces it.
    """
    limits = [math.inf if max_minutes is None else 60 * max_minutes]
    if job_minutes is not None and any(name in environment for name in _JOBS):
        left = _left(environment, 60 * job_minutes)
        limits.append(max(0.0, min(SHARE * left, left - LEFT_S)))
    return min(limits)


def _left(environment: Mapping[str, str], given: float) -> float:
    """Time until the job ends, s: as Slurm says, or what was given where it does not or where the clocks disagree."""
    start, end = (environment.get(f"SLURM_JOB_{name}_TIME", "") for name in ("START", "END"))
    if not (start.isdecimal() and end.isdecimal()):
        return given
    left = int(end) - time.time()
    return left if 0 < left <= int(end) - int(start) else given
