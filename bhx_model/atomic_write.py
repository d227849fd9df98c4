"""Write files atomically: a file appears complete or not at all. Also JSON files. Needs no torch."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bhx_model.contract import canonical_json
from bhx_model.errors import DataError


@contextmanager
def atomic_write(path: Path, *, shared: bool = False, durable: bool = False) -> Iterator[Path]:
    """A name to write to, which takes the place of `path` when all went well; its folder is made.

    The name ends as `path` does, since libraries choose the format by that. What a killed process leaves there is
    overwritten by the next.

    Parameters
    ----------
    path : Path
    shared : bool
        Several processes may write `path` at once, all with the same content.
    durable : bool
        Wait until the content is on the disk before it takes the place of the earlier one.

    Raises
    ------
    OSError
        If it cannot be written; of a full disk it says which file, also where what writes does not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part{os.getpid() if shared else ''}.{path.name}")
    try:
        yield part
        if durable:
            sync(part)
        part.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, canonical: bool = False, shared: bool = False) -> None:
    """Write JSON: sorted and indented for readers, or canonical where its hash counts.

    Parameters
    ----------
    path : Path
    value : JSON value
        Without NaN and infinity.
    canonical : bool
        Equal values give equal bytes; see `bhx_model.contract.canonical_json`.
    shared : bool
        See `atomic_write`.
    """
    content = (
        canonical_json(value)
        if canonical
        else json.dumps(value, indent=2, sort_keys=True, allow_nan=False).encode()
    )
    with atomic_write(path, shared=shared) as part:
        part.write_bytes(content + b"\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Parameters
    ----------
    path : Path
    remedy : str
        What to do if it is none, for the message.

    Raises
    ------
    DataError
        If it is none.
    OSError
        If the file cannot be read.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # also bytes that are no text
        msg = f"{path} is not JSON ({error}): {remedy}"
        raise DataError(msg) from error
    if not isinstance(value, dict):
        msg = f"{path} holds {type(value).__name__}, no names and values: {remedy}"
        raise DataError(msg)
    return value


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
