"""Lock that lets one process at a time preprocess a subject into a folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bhx_model.errors import SiteError

logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def only_one(out: Path, subject: str) -> Iterator[None]:
    """Hold a subject of a folder of derivatives; however the process ends, the system lets go of it.

    Parameters
    ----------
    out : Path
        Folder of the derivatives; made.
    subject : str
        Without ``sub-``.

    Raises
    ------
    SiteError
        If another process, on whichever machine, holds it.
    """
    with hold(out / f".sub-{subject}.lock", f"sub-{subject} is being preprocessed"):
        yield


@contextmanager
def hold(lock: Path, doing: str) -> Iterator[None]:
    """Hold a lock; however the process ends, the system lets go of it.

    Parameters
    ----------
    lock : Path
        Its folder is made.
    doing : str
        What its holder does, for the error message of a second process: "sub-01 is being preprocessed".

    Raises
    ------
    SiteError
        If another process, on whichever machine, holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with lock.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                msg = f"{doing} by {file.read() or 'another process'}: wait until it has ended"
                raise SiteError(msg) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                logger.warning(
                    "the file system of %s has no locks: do not start this twice at once", lock.parent
                )
            if not _is_there(lock, file.fileno()):
                continue  # its last owner has just removed it
            file.truncate(0)
            job = f", Slurm job {os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else ""
            since = time.strftime("%Y-%m-%d %H:%M")
            file.write(f"process {os.getpid()} on {socket.gethostname()}{job}, since {since}")
            file.flush()
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_there(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
