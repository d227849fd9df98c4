"""GPUs of this machine: list them, and reserve some for a job. Needs no torch.

A job of Snakemake says in `ASKED` how many GPUs it was planned with. With 0 it sees none. Otherwise it takes so many that
no other job has, and holds a lock on each until it ends, however it ends; where too few are free it waits. Jobs of one Slurm
allocation share its GPUs in the same way, those of different allocations have nothing to do with each other. GPUs are taken
by the ids that ``nvidia-smi`` lists; where there is no such command, nothing is reserved or hidden.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import subprocess
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bhx_model.errors import SiteError

logger = logging.getLogger(__name__)

#: Environment variable with the number of GPUs that a job was planned with; and with how many it took.
ASKED: Final = "BHX_GPUS"
TAKEN: Final = "BHX_GPUS_TAKEN"
#: What CUDA reads.
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
#: Folder of the locks: the same for all jobs and users of a machine, unlike TMPDIR.
LOCKS: Final = Path("/tmp")
#: Time between two attempts to take GPUs, s.
PAUSE_S: Final = 1.0

#: Locks of this process, which the system releases when it ends.
_held: list[int] = []


@dataclass(frozen=True)
class Gpu:
    """One GPU; `gb` is its memory in units of 2^30 bytes, 0 where it is not known."""

    index: int
    uuid: str
    name: str = ""
    gb: float = 0.0
    driver: str = ""


def present() -> list[Gpu]:
    """GPUs that ``nvidia-smi`` lists, in its order; none where it is absent or fails."""
    fields = "index,uuid,name,memory.total,driver_version"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in listed.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(fields.split(",")) and values[0].isdecimal():
            index, uuid, name, mib, driver = values
            found.append(Gpu(int(index), uuid, name, _number(mib) / 1024, driver))
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # [N/A]
        return 0.0


def visible(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> list[Gpu]:
    """Those of the GPUs that `VISIBLE` leaves to this process, in its order: all where it is not set.

    As CUDA reads it, the list ends before the first entry that names no GPU. Parts of a GPU (``MIG-...``), which are not
    listed by themselves, are taken as they are named.
    """
    if VISIBLE not in environment:
        return list(gpus)
    left = []
    for entry in map(str.strip, environment[VISIBLE].split(",")):
        if entry.startswith("MIG-"):
            left.append(Gpu(-1, entry))
            continue
        named = [gpu for gpu in gpus if entry and (str(gpu.index) == entry or gpu.uuid.startswith(entry))]
        if len(named) != 1:
            break
        left += named
    return left


def reserve(
    count: int,
    environment: MutableMapping[str, str],
    *,
    inherited: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Take GPUs for this process, and let it see no others.

    Parameters
    ----------
    count : int
        How many; 0 hides all.
    environment : dict
        `VISIBLE` and `TAKEN` are set in it. CUDA must not have been used yet.
    inherited : bool
        Whether the program that this process becomes (`exec`) holds them on.
    sleep : callable
        Waits for some seconds, where too few are free.

    Raises
    ------
    SiteError
        If there are fewer, in use or not.
    """
    if count == 0:
        environment[VISIBLE] = ""
        environment[TAKEN] = "0"
        return
    here = present()
    if not here:  # a machine without GPUs, or without nvidia-smi
        logger.warning(
            "%d GPU%s asked for, and nvidia-smi lists none here: what PyTorch finds is used, else the CPU",
            count,
            "s" * (count > 1),
        )
        return
    mine = visible(here, environment)
    if len(mine) < count:
        raise SiteError(too_few(count, len(here), len(mine)))
    taken = _wait_for(count, mine, environment.get("SLURM_JOB_ID", ""), sleep)
    for descriptor in taken.values() if inherited else ():
        os.set_inheritable(descriptor, True)
    _held.extend(taken.values())
    environment[VISIBLE] = ",".join(taken)
    environment[TAKEN] = str(count)


def too_few(count: int, here: int, left: int) -> str:
    """Sentence about more GPUs asked for than there are; `left` of those `here` may be used."""
    hidden = f", of which {VISIBLE} leaves {left or 'none'}" if left < here else ""
    n, be = f"{count} GPU{'s' * (count > 1)}", "is" if here == 1 else "are"
    return f"{n} asked for, and there {be} {here} here{hidden}: change experiments.*.gpus, or use another machine"


def reserve_asked(environment: MutableMapping[str, str]) -> None:
    """Reserve as many GPUs as `ASKED` states; a command that a user started directly sees all GPUs, and reserves none.

    Raises
    ------
    SiteError
        As `reserve`.
    """
    asked = environment.pop(ASKED, None)  # what this process starts uses what it has taken
    if asked is not None and asked.isdecimal():
        reserve(int(asked), environment)


def _wait_for(count: int, gpus: Sequence[Gpu], job: str, sleep: Callable[[float], None]) -> dict[str, int]:
    """Ids of GPUs that are free now, with the descriptors of their locks."""
    logged = False
    while True:
        with _Lock("choosing", job):  # two jobs that each hold half of what both need would wait for ever
            taken: dict[str, int] = {}
            for gpu in gpus:
                if len(taken) < count and (descriptor := _try_lock(gpu.uuid, job)) is not None:
                    taken[gpu.uuid] = descriptor
            if len(taken) == count:
                return taken
            for descriptor in taken.values():
                os.close(descriptor)
        if not logged:
            logger.info("waiting for %d of %d GPUs: other jobs use the others", count, len(gpus))
            logged = True
        sleep(PAUSE_S)


class _Lock:
    """Lock it for a `with` block; waits until it is free."""

    def __init__(self, what: str, job: str):
        self._descriptor = _open(what, job)

    def __enter__(self) -> None:
        _flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _try_lock(what: str, job: str) -> int | None:
    descriptor = _open(what, job)
    try:
        _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _flock(descriptor: int, how: int) -> None:
    """Lock a file, or say that this cannot be done here: then nothing is reserved, as where ``nvidia-smi`` is absent."""
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        raise
    except OSError as error:
        logger.warning("%s has no locks (%s): other jobs may use the same GPUs", LOCKS, error.strerror)


def _open(what: str, job: str) -> int:
    path = LOCKS / f"bhx-gpu-{f'{job}-' if job else ''}{what.replace('/', '-')}.lock"
    try:
        return os.open(path, os.O_RDONLY)  # another user's can be locked, but not be opened to write
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        with contextlib.suppress(PermissionError):  # another user was faster
            os.fchmod(descriptor, 0o644)  # whatever this user's umask: others have to lock it, too
        return descriptor
