"""The private work folder of one subject's preprocessing, which the next attempt reuses."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path


def work_folder(parent: Path, cohort: str, subject: str, out: Path) -> Path:
    """Where the work folder of one subject's preprocessing is, or would be; parameters as of `open_work_folder`."""
    study = hashlib.sha256(str(out.absolute()).encode()).hexdigest()[:8]
    return parent.absolute() / f"bhx-{study}-{cohort}-sub-{subject}"


def open_work_folder(parent: Path, cohort: str, subject: str, out: Path) -> Path:
    """Make (or find again) the work folder of one subject's preprocessing.

    Parameters
    ----------
    parent : Path
        Node-local scratch, often a ``/tmp`` that many users share.
    cohort, subject : str
        Checked labels.
    out : Path
        Folder of the derivatives. Its place is part of the name: two studies on one machine never meet.

    Returns
    -------
    Path
        Absolute; readable by its owner alone, for it holds somebody's head.

    Raises
    ------
    OSError
        If the folder cannot be made, or is somebody else's.
    """
    folder = work_folder(parent, cohort, subject, out)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        msg = f"the work folder {folder} belongs to somebody else: remove it, or name another disk (TMPDIR)"
        raise OSError(msg)
    return folder


def done_with(folder: Path) -> Path:
    """Where `remove_work_folder` puts a work folder while it removes it."""
    return folder.with_name(f"{folder.name}.done")


def remove_work_folder(folder: Path) -> None:
    """Remove a work folder, also what an earlier removal that was killed left: the next attempt finds all of it or none."""
    shutil.rmtree(done_with(folder), ignore_errors=True)
    if folder.is_dir():
        folder.rename(done_with(folder))
        shutil.rmtree(done_with(folder))
