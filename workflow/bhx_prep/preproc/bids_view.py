"""A BIDS dataset of one subject: what a container sees.

fMRIPrep looks at the whole dataset it is given, so each job gets one with a single subject in it. Files are hard
links where the file system allows them and copies elsewhere, never symbolic links: those would lead out of what is
mounted into the container. For the same reason links of the dataset itself (DataLad's) are followed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from bhx_model.errors import ConfigError, DataError
from bhx_prep.ingest.bids_files import files_below
from bhx_prep.io import bids_names


def make_view(root: Path, subject: str, tasks: Sequence[str], view: Path) -> Path:
    """Make the view anew.

    Parameters
    ----------
    root : Path
        Raw BIDS dataset; only read.
    subject : str
        Without ``sub-``.
    tasks : sequence of str
        fMRI tasks to show; files of others are omitted. Files that name no task are all shown.
    view : Path
        Folder to make; what it contained is removed.

    Returns
    -------
    Path
        `view`.

    Raises
    ------
    DataError
        If the subject or ``dataset_description.json`` is missing, or a file is a link to content that is not here.
    """
    own = root / f"sub-{bids_names.check_label(subject, 'subject')}"
    if not own.is_dir():
        msg = f"there is no folder {own}"
        raise DataError(msg)
    if not (root / "dataset_description.json").is_file():
        msg = f"{root} has no dataset_description.json, which BIDS and fMRIPrep ask for: add one"
        raise DataError(msg)
    if view.resolve().is_relative_to(root.resolve()):
        msg = f"the work folder {view} lies inside the dataset {root}, which is only read: put it elsewhere"
        raise ConfigError(msg)
    shutil.rmtree(view, ignore_errors=True)
    view.mkdir(parents=True)
    shown = [path for path in root.iterdir() if path.is_file()]
    shown += map(Path, files_below(str(own)))
    for path in sorted(shown):
        if bids_names.parse(path.name).get("task", tasks[0]) in tasks or path.parent == root:
            _show(path, view / path.relative_to(root))
    return view


def _show(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        content = path.resolve(strict=True)
    except OSError as error:
        msg = f"{path} is a link to content that is not here: fetch it first (datalad get)"
        raise DataError(msg) from error
    try:
        os.link(content, target)
    except OSError:  # another file system, or one that forbids links to files of others
        shutil.copyfile(content, target)
