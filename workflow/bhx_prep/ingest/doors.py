"""The rows of the index at the three inputs: raw BIDS, fMRIPrep's derivatives, ROI x time tables.

A row is a dict with the columns of `bhx_prep.ingest.index.SCHEMA`. Nothing here raises for faults of the data: `exclude`
gives the row a reason, and all reasons are told, not only the first.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import metadata
from bhx_prep.ingest.bids_files import SUBJECT, File, chunks, files_of_people, natural, people
from bhx_prep.io import bids_names

#: Standard space of the T1 volumes, whatever the space of the BOLD.
ANAT_SPACE: Final = "MNI152NLin2009cAsym"

_IMAGES = (".nii.gz", ".nii")
# what fMRIPrep calls its resolutions, the preferred one first; any other will do where these are not
_RESOLUTIONS = {"2": 0, "02": 0, None: 1}

Row = dict[str, Any]

# of entities; a subject may not hold a plus
_VALUE = re.compile(r"[A-Za-z0-9+]+")
# fields that are looked at before they are filled in; the table adds the others
_BLANK = dict.fromkeys(("anat", "n_frames", "path", "reason"))


def raw(
    start: Row, root: Path, labels: Sequence[str], tasks: Sequence[str], tr_s: float | None
) -> Iterator[Row]:
    """Rows of some people of raw BIDS."""
    sidecars = metadata.Sidecars(root)
    for label, files in files_of_people(root, labels, ("bold", "T1w"), _IMAGES):
        anats = _choose_t1w({**start, "subject": label, "kind": "raw"}, files, sidecars, raw=True)
        yield from anats
        runs: dict[str, list[File]] = defaultdict(list)
        for file in files:
            if file.suffix == "bold" and (file.entities.get("task") in tasks or "task" not in file.entities):
                runs[_key(start["cohort"], label, file.entities)].append(file)
        if not runs:
            found = {f.entities["task"] for f in files if f.suffix == "bold"}
            yield _no_bold({**start, "subject": label, "kind": "raw"}, tasks, found)
        for run in runs.values():
            # phase images belong to a magnitude image as echoes belong to the first one
            magnitude = [f for f in run if f.entities.get("part", "mag") == "mag"]
            echoes = sorted({f.entities.get("echo", "") for f in magnitude}, key=natural)
            for file in [f for f in magnitude if f.entities.get("echo", "") == echoes[0]] or run[:1]:
                row = _row({**start, "subject": label, "kind": "raw"}, "bold", file.entities, file.path)
                row["echoes"] = len(echoes) if echoes != [""] else None
                if not magnitude:
                    exclude(row, "there is a phase image only, no magnitude")
                if "task" not in file.entities:
                    exclude(row, "the file name says no task: rename it to .._task-<label>_bold")
                _check_raw(row, file)
                _check_name(row, file)
                _check_volume(row, file.path, sidecars, tr_s)
                _link_anat(row, anats)
                if row["anat"] is None:
                    bad = next((f" ({a['reason']})" for a in anats), "")
                    exclude(row, f"no usable T1w image, which preprocessing needs{bad}")
                yield row


def derivatives(
    start: Row,
    root: Path,
    labels: Sequence[str],
    tasks: Sequence[str] | None,
    tr_s: float | None,
    space: str,
) -> Iterator[Row]:
    """Rows of some people of fMRIPrep's derivatives."""
    sidecars = metadata.Sidecars(root)
    suffixes = ("bold", "T1w", "mask", "timeseries", "regressors")
    endings = (*_IMAGES, ".func.gii", ".dtseries.nii", ".tsv")
    for label, files in files_of_people(root, labels, suffixes, endings):
        mine = {**start, "subject": label}
        anats = _choose_t1w({**mine, "kind": "volume"}, files, sidecars, space=ANAT_SPACE)
        yield from anats
        runs: dict[str, list[File]] = defaultdict(list)
        for file in files:
            if "task" in file.entities and "echo" not in file.entities:
                runs[_key(start["cohort"], label, file.entities)].append(file)
        due = {
            key: run
            for key, run in runs.items()
            if any(f.suffix == "bold" or _is_confounds(f) for f in run)
            and (tasks is None or run[0].entities["task"] in tasks)
        }
        if not due:
            yield _no_bold(mine, tasks or (), {run[0].entities["task"] for run in runs.values()})
        for run in due.values():
            for row in _preprocessed_run({**mine, "space": space}, run, sidecars, tr_s):
                _link_anat(row, anats)
                yield row


def _preprocessed_run(
    start: Row, run: list[File], sidecars: metadata.Sidecars, tr_s: float | None
) -> Iterator[Row]:
    """The row of one run in the wanted space; several where files contradict each other."""
    space = start["space"]
    kind, bolds = _in_space([f for f in run if f.suffix == "bold"], space)
    confounds = [f for f in run if _is_confounds(f)]
    if not bolds:
        row = _row({**start, "kind": kind}, "bold", run[0].entities)
        others = sorted(
            {
                f.entities.get("space", "native")
                for f in run
                if f.suffix == "bold" and f.entities.get("desc", "preproc") == "preproc"
            }
        )
        there = f"; there is: {', '.join(others)}" if others else ""
        made = any(f.entities.keys() & {"space", "desc"} for f in run)
        exclude(
            row, f"no BOLD in space {space}{there}{'' if made else ': raw data enter with `input: bids`'}"
        )
        yield row
        return
    for left, right in bolds:
        row = _row({**start, "kind": kind}, "bold", left.entities, left.path)
        _check_name(row, left)
        if kind == "volume":
            _check_volume(row, left.path, sidecars, tr_s)
            masks = [f for f in run if f.suffix == "mask" and f.entities.get("desc") == "brain"]
            row["mask"] = next((str(f.path) for f in masks if f.grid == left.grid), None)
        elif kind == "gifti":
            _check_gifti(row, left, right, run, sidecars, tr_s)
        else:
            _check_cifti(row, left.path, sidecars, tr_s)
        if confounds:
            row["confounds"] = str(confounds[0].path)
            try:
                metadata.check_file(confounds[0].path)
            except ValueError as error:
                exclude(row, f"confounds table: {error}")
        else:
            exclude(row, "no confounds table (.._desc-confounds_timeseries.tsv)")
        yield row


def parcellated(start: Row, root: Path, cohort: CohortSection) -> Iterator[Row]:
    """Rows of ROI x time tables."""
    if "{subject}" not in cohort.series:
        msg = f"cohort {start['cohort']}: `series` must hold {{subject}} (is {cohort.series!r})"
        raise DataError(msg)
    sidecars = metadata.Sidecars(root)
    wanted = None if cohort.subjects is None else set(cohort.subjects)
    tables: dict[str, list[Path]] = defaultdict(list)
    pattern = _subject_pattern(cohort.series)
    for found in sorted(glob.glob(cohort.series.replace("{subject}", "*"), root_dir=root, recursive=True)):  # noqa: PTH207 - links are followed on every Python
        match = pattern.fullmatch(found)
        if (
            match
            and not found.endswith(".json")
            and "_desc-confounds_" not in found
            and not (root / found).is_dir()
        ):
            tables[match["subject"].removeprefix("sub-")].append(root / found)
    labels, strange = people_and_strangers(start, root, None)
    yield from (row for row in strange if wanted is None)
    everybody = (set(tables) | set(labels)) if wanted is None else wanted
    anat_files: dict[str, list[File]] = {}
    for some in chunks(sorted(set(labels) & everybody)):
        anat_files.update(files_of_people(root, some, ("T1w", "mask"), _IMAGES))
    for label in sorted(everybody):
        subject = _safe(label)
        mine = {**start, "subject": subject}
        anats = _choose_t1w({**mine, "kind": "volume"}, anat_files.get(label, []), sidecars)
        yield from anats
        rows = [
            row for path in tables.get(label, []) if (row := _table_row(mine, label, path, cohort, sidecars))
        ]
        if not rows:
            reason = f"no table of the tasks {', '.join(cohort.tasks)} matches {cohort.series}"
            rows = [_no_bold(mine, cohort.tasks, set())]
            rows[0]["reason"] = reason if label in labels else f"nothing of this person in {root}: {reason}"
        for row in rows:
            _link_anat(row, anats)
            yield row


def _table_row(
    start: Row, label: str, path: Path, cohort: CohortSection, sidecars: metadata.Sidecars
) -> Row | None:
    named = bids_names.parse(path.name)
    named.setdefault("task", cohort.tasks[0])
    if named["task"] not in cohort.tasks:
        return None
    row = _row({**start, "kind": "table", "space": None}, "bold", named, path)
    if named.get("sub", label) != label:
        exclude(row, f"the file of sub-{named['sub']} lies in the place of sub-{label}")
    if start["subject"] != label:
        exclude(row, f"{label!r} is no subject label: only letters and digits may be used")
    measured = None
    try:
        row["n_frames"], measured = metadata.read_table_frames(path)
    except ValueError as error:
        exclude(row, str(error))
    _tell_tr(row, path, sidecars, measured, cohort.tr_s)
    return row


def _is_confounds(file: File) -> bool:
    return file.suffix in ("timeseries", "regressors") and file.entities.get("desc") == "confounds"


def _in_space(bolds: list[File], space: str) -> tuple[str, list[tuple[File, File | None]]]:
    """Kind of a run's BOLD in a space, and the images (with their right hemisphere); normally one."""
    bolds = [f for f in bolds if f.entities.get("space") == space]
    if space.startswith("MNI"):
        volumes = [f for f in bolds if f.entities.get("desc") == "preproc" and f.ending in _IMAGES]
        return "volume", [
            (f, None) for f in _best(volumes, lambda f: _RESOLUTIONS.get(f.entities.get("res"), 2))
        ]
    ciftis = [f for f in bolds if f.ending == ".dtseries.nii"]
    if ciftis:
        return "cifti", [(f, None) for f in _best(ciftis, lambda f: f.entities.get("den", "91k") != "91k")]
    hemispheres = [
        [f for f in bolds if f.ending == ".func.gii" and f.entities.get("hemi") == h] for h in "LR"
    ]
    lefts, rights = (_best(files, lambda f: f.entities.get("den", "32k") != "32k") for files in hemispheres)
    if not lefts:
        lefts, rights = rights, []
    return "gifti", [(left, rights[i] if i < len(rights) else None) for i, left in enumerate(lefts)]


def _best(files: list[File], rank: Callable[[File], Any]) -> list[File]:
    """All files of the lowest rank: several are a contradiction that a person must resolve."""
    lowest = min(map(rank, files), default=None)
    return [f for f in files if rank(f) == lowest]


def _choose_t1w(
    start: Row, files: list[File], sidecars: metadata.Sidecars, *, raw: bool = False, space: str | None = None
) -> list[Row]:
    """Rows of a person's T1 images, those that are used first: one per session, the others say so.

    Parameters
    ----------
    raw : bool
        Scanner images; otherwise outputs of a preprocessing, of which the one in the standard space is meant.
    space : str, optional
        The only standard space that will do.
    """
    images = [f for f in files if f.suffix == "T1w" and f.ending in _IMAGES]
    sessions: dict[str | None, list[File]] = defaultdict(list)
    for file in images:
        sessions[file.entities.get("ses")].append(file)
    used, others = [], []
    for ses, of_session in sorted(sessions.items(), key=lambda item: natural(item[0] or "")):
        candidates = of_session
        if not raw:
            spaces = sorted({f.entities.get("space", "native") for f in of_session})
            if space is not None:
                candidates = [f for f in of_session if f.entities.get("space") == space]
            candidates = [f for f in candidates if f.entities.get("desc", "preproc") == "preproc"]
            candidates = _best(candidates, lambda f: f.entities.get("space") != ANAT_SPACE)
            candidates = _best(candidates, lambda f: _RESOLUTIONS.get(f.entities.get("res"), 2))
            if not candidates:
                row = _row(start, "t1w", {"ses": ses or ""})
                exclude(row, f"no T1w image in space {space or ANAT_SPACE}; there is: {', '.join(spaces)}")
                others.append(row)
        rows = [_t1w_row(start, file, files, sidecars) for file in candidates]
        if raw:
            for row, file in zip(rows, candidates, strict=True):
                _check_raw(row, file)
        # a T1 with contrast agent is nobody's first choice
        rows.sort(key=lambda row: (row["status"] != "ok", "_ce-" in row["path"], natural(row["path"])))
        for row in rows[:1]:
            row["key"] = _key(start["cohort"], start["subject"], {"ses": ses or ""})
            used.append(row)
        for row in rows[1:]:
            if rows[0]["status"] == "ok":
                exclude(row, f"one T1w image of a session is used: {Path(rows[0]['path']).name}")
            others.append(row)
    return used + others


def _t1w_row(start: Row, file: File, files: list[File], sidecars: metadata.Sidecars) -> Row:
    row = _row(start, "t1w", file.entities, file.path)
    row["space"] = file.entities.get("space")
    row["task"] = None
    keep = ("ses", "acq", "ce", "rec", "run", "task", "space", "res")
    same = {e: file.entities.get(e) for e in keep}
    for mask in files:
        is_brain = mask.suffix == "mask" and mask.entities.get("desc") == "brain"
        if is_brain and {e: mask.entities.get(e) for e in keep} == same:
            row["mask"] = str(mask.path)
    _check_name(row, file)
    try:
        fields, sidecar = sidecars.facts(file.path)
        row["sidecar"] = _path(sidecar)
        header = metadata.read_header(file.path)
        shape = header.get_data_shape()
        if len(shape) != 3 and shape[3:] != (1,):
            msg = f"the image is {len(shape)}D ({' x '.join(map(str, shape))}): a 3D volume is due"
            raise DataError(msg)
        metadata.voxel_sizes(fields, header)
    except ValueError as error:
        exclude(row, str(error))
    return row


def _check_volume(row: Row, path: Path, sidecars: metadata.Sidecars, tr_s: float | None) -> None:
    """Fill in what a 4D NIfTI image and its sidecars say."""
    header = measured = None
    try:
        header = metadata.read_header(path)
        row["n_frames"] = metadata.n_frames(header)
        measured = metadata.header_repetition_time(header)
    except ValueError as error:
        exclude(row, str(error))
    fields = _tell_tr(row, path, sidecars, measured, tr_s)
    if header is not None and fields is not None:
        try:
            metadata.voxel_sizes(fields, header)
        except ValueError as error:
            exclude(row, str(error))


def _check_gifti(
    row: Row, left: File, right: File | None, run: list[File], sidecars: metadata.Sidecars, tr_s: float | None
) -> None:
    """Fill in what a pair of GIfTI files and the run's sidecars say."""
    if right is None:
        side = "right" if left.entities["hemi"] == "L" else "left"
        exclude(row, f"the {side} hemisphere is missing")
    else:
        row["path_right"] = str(right.path)
    frames = []
    for file in filter(None, (left, right)):
        try:
            frames.append(metadata.read_gifti_frames(file.path))
        except ValueError as error:
            exclude(row, f"hemisphere {file.entities['hemi']}: {error}")
    if len(set(frames)) > 1:
        exclude(row, f"the hemispheres have {frames[0]} and {frames[1]} frames")
    row["n_frames"] = frames[0] if frames else None
    # early versions wrote no sidecar for surfaces, but the run's other outputs have the same repetition time
    for file in (left, *(f for f in run if f.suffix == "bold")):
        try:
            fields, _ = sidecars.facts(file.path)
        except ValueError:  # said below, if it is the file's own
            continue
        if "RepetitionTime" in fields:
            _tell_tr(row, file.path, sidecars, None, tr_s)
            return
    _tell_tr(row, left.path, sidecars, None, tr_s)


def _check_cifti(row: Row, path: Path, sidecars: metadata.Sidecars, tr_s: float | None) -> None:
    """Fill in what a CIFTI series and its sidecars say."""
    measured = None
    try:
        row["n_frames"], measured = metadata.read_cifti_series(path)
    except ValueError as error:
        exclude(row, str(error))
    _tell_tr(row, path, sidecars, measured, tr_s)


def _tell_tr(
    row: Row, path: Path, sidecars: metadata.Sidecars, measured: float | None, fallback: float | None
) -> Mapping[str, Any] | None:
    """Fill in repetition time and sidecar; returns the sidecar's fields, None if it cannot be read."""
    try:
        fields, sidecar = sidecars.facts(path)
        row["sidecar"] = _path(sidecar)
    except ValueError as error:
        exclude(row, str(error))
        return None
    told = {"RepetitionTime", "VolumeTiming"} & fields.keys()
    if row["status"] != "ok" and not told and measured is None:
        return fields  # an image that cannot be opened tells no repetition time either: one reason is enough
    try:
        row["tr_s"] = metadata.repetition_time(fields, measured, frames=row["n_frames"], fallback=fallback)
    except ValueError as error:
        exclude(row, str(error))
    return fields


def people_and_strangers(start: Row, root: Path, wanted: Iterable[str] | None) -> tuple[list[str], list[Row]]:
    """Labels of the people to look at, and rows for folders that name nobody and for people who have no folder."""
    labels, strange = people(root)
    rows = []
    if wanted is not None:
        missing = sorted(set(wanted) - set(labels))
        for label in missing:
            row = _row({**start, "subject": _safe(label)}, "bold", {})
            exclude(row, f"there is no folder sub-{label} in {root}")
            rows.append(row)
        return sorted(set(wanted) & set(labels)), rows
    for label in strange:
        row = _row({**start, "subject": _safe(label)}, "bold", {}, root / f"sub-{label}")
        exclude(row, f"folder {f'sub-{label}'!r} names nobody: only letters and digits may follow `sub-`")
        rows.append(row)
    return labels, rows


def _row(start: Row, modality: str, named: Mapping[str, str], path: Path | None = None) -> Row:
    """A row of a scan that nothing speaks against yet."""
    row = {**_BLANK, **start, "modality": modality, "status": "ok"}
    row["key"] = _key(start["cohort"], start["subject"], named)
    row["session"], row["task"], row["run"] = (named.get(e) or None for e in ("ses", "task", "run"))
    row["path"] = _path(path)
    return row


def _key(cohort: str, subject: str, named: Mapping[str, str]) -> str:
    """Sample key; what may not stand in one is made harmless, `_check_name` tells."""
    values = {entity: _safe(value, _VALUE) for entity, value in named.items() if value}
    return bids_names.sample_key(cohort, _safe(subject), values)


def _safe(label: str, allowed: re.Pattern[str] = SUBJECT) -> str:
    """A label for one that may not be used, different for different ones."""
    if allowed.fullmatch(label):
        return label
    kept = re.sub(r"[^A-Za-z0-9]", "", label)
    return f"{kept}X{hashlib.sha256(label.encode(errors='surrogateescape')).hexdigest()[:6]}"


def _check_name(row: Row, file: File) -> None:
    """Exclude a scan whose name contradicts its folder or holds characters that a name may not have."""
    folders: dict[str, str] = {}
    for part in file.path.parts[:-1]:
        entity, _, value = part.partition("-")
        if entity == "sub":  # what lies above the subject's folder says nothing about it
            folders = {}
        folders[entity] = value
    for entity, value in file.entities.items():
        if entity in ("sub", *bids_names.SCAN_ENTITIES) and value != _safe(value, _VALUE):
            exclude(row, f"{entity}-{value} in the file name: only letters and digits may follow `{entity}-`")
        if entity in ("sub", "ses") and value != folders.get(entity, value):
            exclude(row, f"a file of {entity}-{value} lies in the folder of {entity}-{folders[entity]}")


def _check_raw(row: Row, file: File) -> None:
    """Exclude what a preprocessing made: to preprocess it again would be nonsense that nobody notices."""
    made = [f"{entity}-{file.entities[entity]}" for entity in ("space", "desc") if entity in file.entities]
    if made:
        exclude(
            row,
            f"{' and '.join(made)} in the file name: a raw image is due; derivatives enter with `input: fmriprep`",
        )


def _no_bold(start: Row, tasks: Sequence[str], found: Iterable[str]) -> Row:
    """The row of a person without a run that is wanted."""
    row = _row(start, "bold", {"task": tasks[0]} if tasks else {})
    there = ", ".join(sorted(found))
    of_tasks = f" of task {' or '.join(tasks)}" if tasks else ""
    exclude(row, f"no BOLD run{of_tasks}" + (f"; there is: {there}" if there else ""))
    return row


def exclude(row: Row, reason: str) -> None:
    """Take a row out, with a reason; several reasons add up."""
    row["reason"] = f"{row['reason']}; {reason}" if row["status"] == "excluded" else reason
    row["status"] = "excluded"


def _link_anat(row: Row, anats: list[Row]) -> None:
    """Name the T1 that goes with a run: of the same session, else the person's first."""
    usable = [a for a in anats if a["status"] == "ok"]
    same = [a for a in usable if a["session"] == row["session"]]
    row["anat"] = next((a["key"] for a in same + usable), None)


def _subject_pattern(series: str) -> re.Pattern[str]:
    """Regular expression of a glob pattern with ``{subject}``, which becomes the group of that name."""
    parts = []
    for part in re.split(r"(\*\*/|\*|\?|\{subject\})", series):
        if part == "{subject}":
            parts.append("(?P=subject)" if "{subject}" in parts else "{subject}")
        else:
            parts.append({"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part)))
    return re.compile("".join(parts).replace("{subject}", "(?P<subject>[^/]+?)"))


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
