"""Make a BIDS dataset of one subject, which a container reads.

fMRIPrep looks at the whole dataset it is given, so each job gets one with a single subject in it. Files are hard
links where the file system allows them and copies otherwise, never symbolic links: those would lead out of what is
mounted into the container. For the same reason links of the dataset itself (DataLad's) are followed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bhx_model.atomic_write import write_json
from bhx_model.errors import ConfigError, DataError, SiteError
from bhx_prep.ingest import metadata
from bhx_prep.ingest.bids_files import files_below
from bhx_prep.io import bids_names
from bhx_prep.preproc.arguments import UsableScan

#: Folders of a subject, or of a session, that fMRIPrep reads; what is in others need not be here.
READ: Final = ("anat", "func", "fmap")


def make_view(
    root: Path,
    subject: str,
    tasks: Sequence[str],
    view: Path,
    scans: Sequence[UsableScan] | None = None,
) -> Path:
    """Make the view, replacing an earlier one.

    It shows the dataset's own files, and of the subject what fMRIPrep reads: images of T1w and T2w, runs and field maps.

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
    scans : sequence of UsableScan, optional
        The T1w images and runs to show: those that the index calls usable; all when None. A run whose sidecar states
        no repetition time, or another than the index decided for, gets a sidecar with the right one.

    Returns
    -------
    Path
        `view`.

    Raises
    ------
    DataError
        If the subject is missing.
    ConfigError
        If `view` is inside the dataset.
    SiteError
        If ``dataset_description.json`` is missing or says too little, or a file is a link to content that is not here:
        of the dataset as it lies here, which is no subject's fault.
    """
    own = root / f"sub-{bids_names.check_label(subject, 'subject')}"
    if not own.is_dir():
        msg = f"there is no folder {own}"
        raise DataError(msg)
    _check_description(root / "dataset_description.json")
    if view.resolve().is_relative_to(root.resolve()):
        msg = f"the work folder {view} lies inside the dataset {root}, which must not be changed: choose another folder"
        raise ConfigError(msg)
    shutil.rmtree(view, ignore_errors=True)
    view.mkdir(parents=True)
    shown = [path for path in root.iterdir() if path.is_file()]
    shown += [path for path in map(Path, files_below(str(own))) if _is_read(path.relative_to(own))]
    usable = None if scans is None else _with_echoes(scans)
    for path in sorted(shown):
        wanted = bids_names.parse(path.name).get("task", tasks[0]) in tasks
        wanted = wanted and (usable is None or _is_usable(path, usable))
        if wanted or path.parent == root:
            _show(path, view / path.relative_to(root))
    _state_repetition_times(view, root, scans or ())
    return view


def _state_repetition_times(view: Path, root: Path, scans: Sequence[UsableScan]) -> None:
    """Give the runs whose sidecars state none, or another than the index decided for, sidecars of their own."""
    sidecars = metadata.Sidecars(root)
    for scan in scans:
        for image in _echoes(scan) if scan.tr_s is not None else ():
            fields, _ = sidecars.fields_of(image)
            if fields.get("RepetitionTime") != scan.tr_s:
                sidecar = view / image.relative_to(root).with_name(f"{image.name.partition('.')[0]}.json")
                sidecar.unlink(missing_ok=True)  # a link to the dataset's
                kept = {name: value for name, value in fields.items() if name != "VolumeTiming"}
                write_json(sidecar, {**kept, "RepetitionTime": scan.tr_s})


def _check_description(file: Path) -> None:
    try:
        about = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        what = "no" if isinstance(error, FileNotFoundError) else "an unreadable"
        msg = f"{file.parent} has {what} dataset_description.json, which BIDS and fMRIPrep ask for: add one"
        raise SiteError(msg) from error
    for field in ("Name", "BIDSVersion"):
        if not isinstance(about, dict) or not about.get(field):
            raise SiteError(f"{file} states no {field}, which BIDS and fMRIPrep ask for: add it")


def _is_read(path: Path) -> bool:
    """Whether fMRIPrep reads a file of the subject's folder, also below a session's."""
    parts = [part for part in path.parts[:-1] if not part.startswith("ses-")]
    return not parts or parts[0] in READ


def _echoes(scan: UsableScan) -> list[Path]:
    """The images of a run: one for each of its echoes."""
    return sorted(scan.path.parent.glob(_any_echo(scan.path.name))) if scan.echoes else [scan.path]


def _with_echoes(scans: Sequence[UsableScan]) -> set[str]:
    """Names of usable images; of a multi-echo run with ``*`` in the place of the echo."""
    return {_any_echo(scan.path.name) if scan.echoes else scan.path.name for scan in scans}


def _any_echo(name: str) -> str:
    return re.sub(r"_echo-\d+", "_echo-*", name)


def _is_usable(path: Path, usable: set[str]) -> bool:
    """Whether a file may be seen: images only of scans that the index calls usable, other files always."""
    if not path.name.endswith((".nii", ".nii.gz")):
        return True
    suffix = bids_names.suffix(path.name)
    if suffix in ("bold", "T1w"):
        return bool({path.name, _any_echo(path.name)} & usable)
    if suffix == "sbref":
        bold = re.sub(r"_sbref(\.nii(?:\.gz)?)$", "_bold", path.name)
        return any(name.startswith(f"{one}.") for one in (bold, _any_echo(bold)) for name in usable)
    return True


def _show(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        content = path.resolve(strict=True)
    except OSError as error:
        msg = f"{path} is a link to content that is not here: fetch it first (datalad get)"
        raise SiteError(msg) from error
    try:
        os.link(content, target)
    except OSError:  # another file system, or one that forbids links to files of others
        shutil.copyfile(content, target)
