"""Types of errors in data, settings or the machine; every other exception is a bug of BHX. Needs no torch.

A step may turn a `DataError` into a row with a reason and go on. Nothing else may become a row: an error of NumPy's or a
`KeyError` in our own code has to stop the job with its traceback, or a bug would exclude scans in silence.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final


class BhxError(ValueError):
    """A sentence for the user that says what is wrong and how to fix it.

    A `ValueError`, so that users of the Python API may catch what they expect, and pydantic's validators may raise it.
    """


class DataError(BhxError):
    """A scan, a subject or a table cannot be used. Where there is a row for it, the sentence is its reason."""


class LimitError(DataError):
    """A scan that can be used fails a limit of its quality: a decision of the user's may keep it."""


class ConfigError(BhxError):
    """The user's settings cannot be used.

    Parameters
    ----------
    message : str
    mistakes : sequence of str, optional
        Every mistake by itself, where the message lists several.
    """

    def __init__(self, message: str, mistakes: Sequence[str] = ()):
        super().__init__(message)
        self.mistakes = tuple(mistakes)


class SiteError(BhxError):
    """The machine lacks something that every subject needs: the job stops, and no subject is excluded for it."""


#: What to do about errors of the system, which themselves only say what happened.
_REMEDIES: Final = {
    errno.ENOENT: "there is no such file: check the name, or make it first",
    errno.EISDIR: "it is a folder: name the file",
    errno.ENOTDIR: "a part of it is a file, no folder: name another place",
    errno.EEXIST: "there is a file of that name: name another place",
    errno.EACCES: "it may not be read or written: change its permissions, or name another place",
    errno.EROFS: "its file system is read-only: name another place",
    errno.ENOSPC: "the disk is full: free some space, and start again",
    errno.EDQUOT: "the quota is used up: free some space, and start again",
}


def format_error(error: BhxError | OSError) -> str:
    """Say what went wrong and how to fix it."""
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        if error.filename is not None:
            return f"{error.filename}: {_REMEDIES[error.errno]}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # of a library that does not say where
            return f"{_REMEDIES[error.errno]} ({error})"
    return str(error)
