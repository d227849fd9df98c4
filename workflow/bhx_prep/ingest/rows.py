"""A row of the index: its creation, its exclusion, and fields from an image and its sidecars.

A row is a dict with the columns of `bhx_prep.ingest.index.SCHEMA`. Data that cannot be used raise nothing here:
`exclude` gives the row a reason, and all reasons are listed, not only the first. Only a `DataError` becomes a reason.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata, repetition_time
from bhx_prep.ingest.bids_files import SUBJECT, File, subject_labels
from bhx_prep.io import bids_names, notes

#: Endings of images.
IMAGES: Final = (".nii.gz", ".nii")

#: Beginning of the reason of a subject without any wanted run.
NO_BOLD: Final = "no BOLD run"

Row = dict[str, Any]

# of entities; a subject's label may not contain a plus
_VALUE = re.compile(r"[A-Za-z0-9+]+")
# what fMRIPrep calls its resolutions, the preferred one first; any other will do where these are absent
_RESOLUTIONS = {"2": 0, "02": 0, None: 1}
# fields that are read before they are filled in; the table adds the others
_BLANK = dict.fromkeys(("anat", "n_frames", "path", "reason"))


def new_row(start: Row, modality: str, named: Mapping[str, str], path: Path | None = None) -> Row:
    """A row of a scan that is usable as far as is known."""
    row = {**_BLANK, **start, "modality": modality, "status": "ok", "notes": []}
    row["key"] = sample_key(start["cohort"], start["subject"], named)
    row["session"], row["task"], row["run"] = (named.get(e) or None for e in ("ses", "task", "run"))
    row["path"] = as_text(path)
    return row


def exclude(row: Row, reason: str) -> None:
    """Exclude a row, with a reason; several reasons add up."""
    row["reason"] = f"{row['reason']}; {reason}" if row["status"] == "excluded" else reason
    row["status"] = "excluded"


def add_note(row: Row, kind: notes.Kind, detail: str) -> None:
    """Write down what was assumed of a scan, once."""
    text = notes.note(kind, detail)
    if text not in row["notes"]:
        row["notes"].append(text)


def sample_key(cohort: str, subject: str, named: Mapping[str, str]) -> str:
    """Sample key; characters that it may not contain are replaced, and `check_name` excludes the scan."""
    values = {entity: safe_label(value, _VALUE) for entity, value in named.items() if value}
    return bids_names.sample_key(cohort, safe_label(subject), values)


def safe_label(label: str, allowed: re.Pattern[str] = SUBJECT) -> str:
    """The label itself if it may be used, else a replacement that differs for different labels."""
    if allowed.fullmatch(label):
        return label
    kept = re.sub(r"[^A-Za-z0-9]", "", label)
    return f"{kept}X{hashlib.sha256(label.encode(errors='surrogateescape')).hexdigest()[:6]}"


def check_name(row: Row, file: File) -> None:
    """Exclude a scan whose name contradicts its folder or contains characters that a name may not have."""
    folders: dict[str, str] = {}
    for part in file.path.parts[:-1]:
        entity, _, value = part.partition("-")
        if entity == "sub":  # folders above the subject's are not part of the name
            folders = {}
        folders[entity] = value
    for entity, value in file.entities.items():
        if entity in ("sub", *bids_names.SCAN_ENTITIES) and value != safe_label(value, _VALUE):
            exclude(row, f"{entity}-{value} in the file name: only letters and digits may follow `{entity}-`")
        if entity in ("sub", "ses") and value != folders.get(entity, value):
            exclude(row, f"a file of {entity}-{value} is in the folder of {entity}-{folders[entity]}")


def no_bold(start: Row, tasks: Sequence[str], found: Iterable[str]) -> Row:
    """The row of a subject without any wanted run."""
    row = new_row(start, "bold", {"task": tasks[0]} if tasks else {})
    there = ", ".join(sorted(found))
    of_tasks = f" of task {' or '.join(tasks)}" if tasks else ""
    exclude(row, f"{NO_BOLD}{of_tasks}" + (f"; there is: {there}" if there else ""))
    return row


def resolution_rank(file: File) -> int:
    """0 for the resolution that is preferred, more for others; see `best`."""
    return _RESOLUTIONS.get(file.entities.get("res"), 2)


def best(files: list[File], rank: Callable[[File], Any]) -> list[File]:
    """All files of the lowest rank: several contradict each other, and only the user can choose."""
    lowest = min(map(rank, files), default=None)
    return [f for f in files if rank(f) == lowest]


def check_volume(
    row: Row, path: Path, sidecars: metadata.Sidecars, tr_s: float | None, tr: str | None = None
) -> None:
    """Fill in frames and repetition time of a 4D NIfTI image, and check its voxel sizes."""
    header = measured = None
    try:
        header = metadata.read_header(path)
        row["n_frames"] = metadata.n_frames(header)
        measured = metadata.header_repetition_time(header)
    except DataError as error:
        exclude(row, str(error))
    fields = fill_repetition_time(row, path, sidecars, measured, tr_s, tr)
    if header is not None and fields is not None:
        try:
            metadata.voxel_sizes(fields, header)
        except DataError as error:
            exclude(row, str(error))


def fill_repetition_time(
    row: Row,
    path: Path,
    sidecars: metadata.Sidecars,
    measured: float | None,
    tr_s: float | None,
    tr: str | None = None,
) -> Mapping[str, Any] | None:
    """Fill in repetition time and sidecar; returns the sidecars' fields, None if one cannot be read.

    `tr_s` and `tr` are the cohort's, see `repetition_time.choose`.
    """
    try:
        fields, sidecar = sidecars.fields_of(path)
        row["sidecar"] = as_text(sidecar)
    except DataError as error:
        exclude(row, str(error))
        return None
    stated = {"RepetitionTime", "VolumeTiming"} & fields.keys()
    if row["status"] != "ok" and not stated and measured is None:
        return fields  # an image that cannot be opened has no repetition time either: one reason is enough
    try:
        row["tr_s"], decided = repetition_time.choose(
            fields,
            measured,
            frames=row["n_frames"],
            tr_s=tr_s,
            tr=tr,
            derivative=row["input"] == "fmriprep",
        )
    except DataError as error:
        exclude(row, str(error))
        return fields
    if decided is not None:
        add_note(row, notes.Kind.TR, decided)
    return fields


def subjects_and_unknown(start: Row, root: Path, wanted: Iterable[str] | None) -> tuple[list[str], list[Row]]:
    """Labels of the subjects to list, and rows for unknown subjects: no folder, or a folder whose label is not valid.

    Parameters
    ----------
    start : dict
        Fields that all rows of the cohort share.
    root : Path
        Folder of the dataset.
    wanted : iterable of str, optional
        Labels without ``sub-``; all folders when None.
    """
    labels, invalid = subject_labels(root)
    rows = []
    if wanted is not None:
        missing = sorted(set(wanted) - set(labels))
        for label in missing:
            row = new_row({**start, "subject": safe_label(label)}, "bold", {})
            exclude(row, f"there is no folder sub-{label} in {root}")
            rows.append(row)
        return sorted(set(wanted) & set(labels)), rows
    for label in invalid:
        row = new_row({**start, "subject": safe_label(label)}, "bold", {}, root / f"sub-{label}")
        exclude(row, f"folder {f'sub-{label}'!r} names no subject: only letters and digits may follow `sub-`")
        rows.append(row)
    return labels, rows


def as_text(path: Path | None) -> str | None:
    """A path as its column has it."""
    return None if path is None else str(path)
