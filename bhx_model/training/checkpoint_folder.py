"""Folders of checkpoints: named by step, written atomically, with hashes of their files. Needs no torch."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bhx_model.atomic_write import read_json, sync, write_json
from bhx_model.errors import DataError, SiteError
from bhx_model.file_hash import file_sha256

_STEP: Final = re.compile(r"step-(\d{7,})")
_UNFINISHED: Final = ".unfinished-"
_DAMAGED: Final = "damaged-"

#: File of a folder that holds the hashes of the others.
SUMS: Final = "sha256.json"
#: File of a run folder that is locked while a process writes a checkpoint which may outlive the training.
_WRITING: Final = ".writing"


def steps(run: Path) -> list[int]:
    """List the steps of the checkpoints in a run folder, rising."""
    if not run.is_dir():
        return []
    return sorted(int(found.group(1)) for entry in run.iterdir() if (found := _STEP.fullmatch(entry.name)))


def folder(run: Path, step: int) -> Path:
    """Name the folder of the checkpoint after `step` updates."""
    return run / f"step-{step:07d}"


@contextmanager
def write_folder(final: Path) -> Iterator[Path]:
    """A folder to write files into, which takes the place of `final` when all went well: on the disk, with their hashes.

    After an error of the system it is removed, so that a full disk has its space back.
    """
    unfinished = final.with_name(f"{_UNFINISHED}{final.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        write_json(unfinished / SUMS, {file.name: file_sha256(file) for file in sorted(unfinished.iterdir())})
        for file in unfinished.iterdir():
            sync(file)
        sync(unfinished)
        _put(unfinished, final)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _put(unfinished: Path, final: Path) -> None:
    """Put a folder in the place of another, which stays where that fails."""
    earlier = final.with_name(f"{_UNFINISHED}earlier-{final.name}")
    shutil.rmtree(earlier, ignore_errors=True)
    had_one = final.exists()
    if had_one:
        final.replace(earlier)
    try:
        unfinished.replace(final)
    except OSError:
        if had_one:
            earlier.replace(final)
        raise
    sync(final.parent)
    shutil.rmtree(earlier, ignore_errors=True)


def check(place: Path) -> None:
    """Compare the files of a folder with their hashes; earlier versions wrote none, there is nothing to compare then.

    Raises
    ------
    DataError
        If a file is another one, or missing.
    """
    try:
        sums = read_json(place / SUMS, "it is damaged")
    except FileNotFoundError:
        return
    except OSError as error:
        msg = f"{place / SUMS} cannot be read ({error.strerror})"
        raise DataError(msg) from error
    if not sums:
        raise DataError(f"{place / SUMS} is broken: it names no file")
    for name, sha256 in sums.items():
        try:
            same = file_sha256(place / name) == sha256
        except OSError as error:
            msg = f"{place / name} is broken: it cannot be read ({error.strerror})"
            raise DataError(msg) from error
        if not same:
            msg = f"{place / name} is broken: it is not what was written (sha256 differs)"
            raise DataError(msg)


def remove_old(run: Path, keep_every: int) -> None:
    """Remove all checkpoints but the last two and every `keep_every`-th step."""
    for old in steps(run)[:-2]:
        if old % keep_every:
            shutil.rmtree(folder(run, old), ignore_errors=True)


def remove_unfinished(run: Path) -> None:
    """Remove what killed trainings left half written."""
    for killed in run.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(killed, ignore_errors=True)


def set_aside(run: Path, step: int) -> Path:
    """Rename a damaged checkpoint, so that it is no longer counted among the last two, and return its new name."""
    place = folder(run, step)
    aside = place.with_name(f"{_DAMAGED}{place.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return place.rename(aside)


def lock_writing(run: Path) -> int:
    """Open a file of the run folder, to be inherited by a process that writes a checkpoint: locked while one has it open."""
    descriptor = os.open(run / _WRITING, os.O_RDWR | os.O_CREAT, 0o666)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def is_written(run: Path) -> bool:
    """Whether a process is still writing a checkpoint here, after its training has ended."""
    if not (run / _WRITING).exists():
        return False
    with (run / _WRITING).open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False


def not_saved(run: Path, step: int, error: OSError) -> SiteError:
    """Say that a checkpoint could not be saved, and what is left."""
    left = steps(run)
    then = f"that of step {left[-1]} is intact" if left else "there is none before it"
    why = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}.get(
        error.errno or 0, error.strerror or str(error)
    )
    return SiteError(
        f"the checkpoint of step {step} could not be saved in {run}, {why}; {then}: free some space, and start again"
    )
