"""Recognise placeholders of git-annex and Git LFS for files whose content was not fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

#: Files of more bytes are content.
LONGEST: Final = 1024

# git-annex: unlocked files, and links that a file system without links has as text; then Git LFS
_ANNEX = re.compile(rb"\s*(?:/annex/objects/|(?:\.\./)*\.git/annex/objects/)\S")
_LFS = b"version https://git-lfs.github.com/spec/"


def content_missing(path: Path, size: int) -> str | None:
    """How to fetch a file's content, if the file is a pointer to it: ``git-annex`` pointers say ``datalad get``.

    Parameters
    ----------
    path : Path
        Readable.
    size : int
        Its bytes: nothing is read of a file that is too long to be a pointer.

    Returns
    -------
    str or None
        A sentence without its subject; None for content.
    """
    if not 0 < size <= LONGEST:
        return None
    try:
        start = path.read_bytes()[:LONGEST]
    except OSError:  # the reader finds the reason
        return None
    if _ANNEX.match(start):
        return "is a git-annex pointer, its content is not here: fetch it (datalad get)"
    if start.startswith(_LFS):
        return "is a Git LFS pointer, its content is not here: fetch it (git lfs pull)"
    return None


def not_fetched(path: Path) -> str | None:
    """How to fetch the content of a file, if it is a pointer or a link to content that is not here."""
    if path.is_symlink() and not path.exists():
        return "is a link to a file that is not here (datalad get?)"
    return content_missing(path, path.stat().st_size) if path.is_file() else None
