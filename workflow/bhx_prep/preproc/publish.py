"""Move a subject's finished output to its cohort so that a kill at any moment loses nothing.

A folder is brought in whole under a hidden name (``.sub-01.ready``) before it takes its place; the next attempt goes on
from there. Hidden names that end in ``.part`` are halves, and removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from bhx_model.errors import SiteError
from bhx_prep.preproc.disks import full_disk


def publish(made: Path, out: Path, subject: str) -> None:
    """Merge a subject's private output into the cohort's: its folders replace, files that all subjects share stay.

    Parameters
    ----------
    made : Path
        What one subject's job wrote; what is the subject's own is moved away, also across disks.
    out : Path
        Folder of the cohort's derivatives.
    subject : str
        Without ``sub-``.
    """
    out.mkdir(parents=True, exist_ok=True)
    mine = re.compile(rf"\.?sub-{subject}(?![A-Za-z0-9])")
    for hidden in [path for path in out.glob(f".sub-{subject}*") if mine.match(path.name)]:
        if hidden.suffix == ".part":
            _remove(hidden)
        elif hidden.suffix == ".ready":  # whole, so what is left of its origin is not
            name = hidden.name[1:].removesuffix(".ready")
            _remove(made / name)
            _take_place(hidden, out / name)
    for path in sorted(made.iterdir()):
        target = out / path.name
        if mine.match(path.name):
            ready = out / f".{path.name}.ready"
            _bring(path, ready)
            _take_place(ready, target)
        elif path.is_dir() and not path.name.startswith("fsaverage"):
            publish(path, target, subject)
        elif not target.exists():  # else written by another subject's job with the same content
            _share(path, target)


def discard(folder: Path) -> None:
    """Remove a folder; killed meanwhile, nothing that looks like one of a subject is left."""
    if folder.is_dir():
        aside = folder.with_name(f".{folder.name}.old.part")
        _remove(aside)
        folder.rename(aside)
        _remove(aside)  # of a link, the link alone


def _bring(path: Path, ready: Path) -> None:
    move(path, ready, ready.with_suffix(".part"))


def move(path: Path, target: Path, part: Path) -> None:
    """Move a file or folder, also to another disk, so that it is at `target` whole or not at all.

    Parameters
    ----------
    path, target : Path
    part : Path
        Name for what is not whole yet, in the folder of `target`.

    Raises
    ------
    SiteError
        If the disk is full.
    OSError
        If it cannot be moved for another reason.
    """
    try:
        path.rename(target)
    except OSError:  # to another disk
        _copy(path, part)
        part.rename(target)
        _remove(path)


def _take_place(ready: Path, target: Path) -> None:
    discard(target)
    ready.replace(target)


def _share(path: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _copy(path, part)
    except BaseException:  # no other attempt has this name, so none would remove it
        _remove(part)
        raise
    try:
        part.replace(target)
    except OSError:  # another job was faster with a shared folder
        if not target.is_dir():
            raise
        shutil.rmtree(part)


def _copy(path: Path, target: Path) -> None:
    try:
        if path.is_dir():
            shutil.copytree(path, target, symlinks=True)
        else:
            shutil.copy2(path, target)
    except shutil.Error as error:  # of each of a folder's files, as text
        if (full := full_disk([target.parent])) is not None:
            raise SiteError(full) from error
        source, _, reason = error.args[0][0]
        msg = f"{source} could not be copied: {reason}"
        raise OSError(msg) from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
