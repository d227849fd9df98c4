"""Check whether a job's disks are full, which programs report as many different errors."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bhx_model.errors import SiteError

#: Bytes that a disk has to take. nipype's crash files are a few of them, and one that got none says nothing.
PROBE: Final = 1 << 18
#: Errors of the system that mean a lack of room.
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def full_disk(folders: Iterable[Path], room: int = PROBE) -> str | None:
    """Try to write to the disks of some folders.

    Parameters
    ----------
    folders : iterable of Path
        Those that are not there are passed over.
    room : int
        Bytes that each disk has to take.

    Returns
    -------
    str or None
        A sentence on the first that is full, or whose quota is used up; None where all have room.
    """
    for folder in folders:
        if not folder.is_dir():
            continue
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".room-") as file:
                file.write(bytes(room))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno in FULL:
                return _sentence(error, folder)
    return None


def _sentence(error: OSError, folder: Path) -> str:
    what = "the disk is full" if error.errno == errno.ENOSPC else "the quota is used up"
    return f"{what} at {folder}: free some space, or work on another disk (TMPDIR, `tmpdir` in the profile)"


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Let errors of a full disk name the one folder that is written to: what was written in part may be gone again.

    Raises
    ------
    SiteError
        If the system says that a disk is full, or a quota used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise SiteError(_sentence(error, folder)) from error
        raise


@contextmanager
def naming_full_disks(folders: Iterable[Path]) -> Iterator[None]:
    """Let errors of full disks name the folder: the system names a file that was copied, or none.

    Parameters
    ----------
    folders : iterable of Path
        What is written to.

    Raises
    ------
    SiteError
        If the system says that a disk is full, or a quota used up, and one of the folders has no room.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL and (full := full_disk(folders)) is not None:
            raise SiteError(full) from error
        raise
