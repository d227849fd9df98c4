"""The index of a cohort: one row per scan, whichever of the three doors it comes in at.

What cannot be used is a row too, with a reason that a person understands: nothing raises for faults of the data.
The table is cached in ``.bhx/index/<cohort>.parquet``, because Snakemake reads it whenever it plans; for the same
reason nothing heavy is imported at the top of this module.
"""

from __future__ import annotations

import argparse
import csv
import glob
import gzip
import hashlib
import json
import logging
import os
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from bhx_prep import config, entities, scans

#: Raise it when rows change for equal inputs: caches made before are then made anew.
SCHEMA_VERSION: Final = 1

SCHEMA: Final = pa.schema(
    [
        pa.field("cohort", pa.string(), nullable=False),
        pa.field("door", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        ("session", pa.string()),
        ("task", pa.string()),
        ("run", pa.string()),
        ("kind", pa.string()),
        ("tr_s", pa.float64()),
        ("n_frames", pa.int64()),
        ("echoes", pa.int64()),
        ("path", pa.string()),
        ("path_right", pa.string()),
        ("sidecar", pa.string()),
        ("confounds", pa.string()),
        ("mask", pa.string()),
        ("anat", pa.string()),
        ("space", pa.string()),
        ("synthetic", pa.bool_()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)

CACHE: Final = Path(".bhx/index")

#: Standard space of the T1 volumes, whatever the space of the BOLD.
ANAT_SPACE: Final = "MNI152NLin2009cAsym"

#: Endings of ROI x time tables.
TABLES: Final = (".tsv", ".csv", ".csv.gz", ".parquet", ".npy", ".ptseries.nii")

_IMAGES = (".nii.gz", ".nii")
# one chunk of people is listed at a time: a cohort of 40,000 fits into memory, with its files it would not
_PEOPLE_PER_LISTING = 500
_SUBJECT = re.compile(r"[A-Za-z0-9]+")
# column names that number frames; bare numbers might as well number ROIs
_FRAME = re.compile(r"(t|time|timepoint|frame|volume|vol|tr)[ _-]?\d+", re.IGNORECASE)

Row = dict[str, Any]


def build(name: str, cohort: config.Cohort) -> pa.Table:
    """List a cohort's scans.

    Parameters
    ----------
    name : str
        Of the cohort.
    cohort : Cohort
        Its section of the configuration.

    Returns
    -------
    pyarrow.Table
        `SCHEMA`, one row per BOLD run and T1 image, sorted by subject, modality and key.

    Raises
    ------
    ValueError
        If the cohort's folder is missing or nobody is in it.
    """
    root = cohort.root.expanduser().absolute()
    if not root.is_dir():
        msg = f"cohort {name}: there is no folder {root}: mend cohorts.{name}.root in the configuration"
        raise ValueError(msg)
    start = Row(cohort=name, door=cohort.door, synthetic=cohort.synthetic)
    if cohort.door == "bids":
        rows = _raw(start, root, cohort.subjects, cohort.tasks, cohort.tr_s)
    elif cohort.door == "fmriprep":
        rows = _derivatives(start, root, cohort.subjects, cohort.tasks, cohort.tr_s, cohort.space)
    else:
        rows = _parcellated(start, root, cohort)
    rows = list(rows)
    if not rows:
        due = cohort.series if cohort.door == "parcellated" else "sub-<label>"
        msg = f"cohort {name}: nobody in {root}: door `{cohort.door}` expects {due} there; is it the right folder?"
        raise ValueError(msg)
    return _table(rows)


def derivatives(
    root: Path, *, cohort: str, space: str, subjects: Sequence[str], tr_s: float | None = None
) -> pa.Table:
    """List fMRIPrep-shaped derivatives of some people, as after our own preprocessing.

    Parameters
    ----------
    root : Path
        Folder of the derivatives; a person without a folder there is a row with a reason.
    cohort, space : str
        Name of the cohort, and which of the BOLD outputs to list.
    subjects : sequence of str
        Labels without ``sub-``.
    tr_s : float, optional
        Repetition time (s) where no file tells it.

    Returns
    -------
    pyarrow.Table
        `SCHEMA`, the rows of door ``fmriprep``; all tasks.
    """
    start = Row(cohort=cohort, door="fmriprep")
    return _table(list(_derivatives(start, root.absolute(), subjects, None, tr_s, space)))


def load(cache: Path, name: str, cohort: config.Cohort, *, build_if_stale: bool = True) -> pa.Table:
    """Read a cohort's index from the cache, and make it first where it is absent or old.

    Old means: the cohort's section of the configuration changed, or something was added to or removed from the top
    of its folder, or its participants table changed. Changes deeper down are seen by ``bhx index --refresh``.

    Parameters
    ----------
    cache : Path
        Folder of the cache, usually `CACHE`.
    name, cohort
        As for `build`.
    build_if_stale : bool
        False reads the cache as it is, as jobs do.

    Raises
    ------
    ValueError
        As `build`; or if the cache is absent and must not be made.
    """
    import pyarrow.parquet as pq

    file, stamp = cache / f"{name}.parquet", cache / f"{name}.json"
    if build_if_stale:
        key = _cache_key(name, cohort)
        if not file.exists() or _read_stamp(stamp) != key:
            _write(cache, name, build(name, cohort), key)
    elif not file.exists():
        msg = f"cohort {name} has no index in {cache}: run `bhx index {name}` first"
        raise ValueError(msg)
    return pq.ParquetFile(file).read()


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bhx index``."""
    parser.add_argument(
        "cohorts", nargs="*", metavar="COHORT", help="cohorts to list; all when none is named"
    )
    parser.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="configuration (config.yaml)"
    )
    parser.add_argument(
        "--refresh", action="store_true", help="look at every file again, also where nothing seems new"
    )


def command(args: argparse.Namespace) -> int:
    """Index cohorts and print how many scans are in and what is left out, and why."""
    cohorts = config.load(args.config).cohorts
    for name in args.cohorts:
        if name not in cohorts:
            msg = f"no cohort {name!r} in {args.config}; there are: {', '.join(cohorts)}"
            raise ValueError(msg)
    failed = False
    for name in args.cohorts or cohorts:
        if args.refresh:
            (CACHE / f"{name}.json").unlink(missing_ok=True)
        try:
            table = load(CACHE, name, cohorts[name])
        except (ValueError, OSError) as error:
            print(f"bhx index: {error}", file=sys.stderr)
            failed = True
            continue
        print(summary(table))
        print(f"  all rows: {CACHE / name}.parquet\n")
    return int(failed)


def summary(table: pa.Table, n_reasons: int = 8) -> str:
    """How many people and scans of an index are in, and the most frequent reasons for leaving one out.

    Parameters
    ----------
    table : pyarrow.Table
        An index of one cohort, not empty.
    n_reasons : int
        Reasons to print.
    """
    rows = table.select(["cohort", "door", "subject", "modality", "status", "reason"]).to_pylist()
    people = {row["subject"] for row in rows}
    usable = {row["subject"] for row in rows if row["status"] == "ok"}
    lines = [
        f"{rows[0]['cohort']} (door {rows[0]['door']}): {len(usable)} of {_count(len(people), 'person')} usable"
    ]
    for modality in ("bold", "t1w"):
        states = Counter(row["status"] for row in rows if row["modality"] == modality)
        lines.append(f"  {modality:<5}{states['ok']:>7} in {states['excluded']:>7} excluded")
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        if row["status"] != "ok":
            reasons[row["modality"], row["reason"]].append(row["subject"])
    ranked = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    for (modality, reason), subjects in ranked[:n_reasons]:
        lines.append(
            f"  {len(subjects):>7} {modality} (sub-{subjects[0]}{', ..' if len(subjects) > 1 else ''}): {reason}"
        )
    if len(ranked) > n_reasons:
        lines.append(f"          and {_count(len(ranked) - n_reasons, 'further reason')}")
    return "\n".join(lines)


# --- the doors ------------------------------------------------------------------------------------------------


def _raw(
    start: Row, root: Path, wanted: Iterable[str] | None, tasks: Sequence[str], tr_s: float | None
) -> Iterator[Row]:
    """Rows of raw BIDS."""
    sidecars = scans.Sidecars(root)
    labels, strange = _people(start, root, wanted)
    yield from strange
    for label, files in _listing(start["cohort"], root, labels, ("bold", "T1w"), _IMAGES):
        anats = _choose_t1w({**start, "subject": label, "kind": "raw"}, files, sidecars, raw=True)
        yield from anats
        runs: dict[str, list[_File]] = defaultdict(list)
        for file in files:
            if file.suffix == "bold" and (file.entities.get("task") in tasks or "task" not in file.entities):
                runs[_key(start["cohort"], label, file.entities)].append(file)
        if not runs:
            found = {f.entities["task"] for f in files if f.suffix == "bold"}
            yield _no_bold({**start, "subject": label, "kind": "raw"}, tasks, found)
        for run in runs.values():
            # phase images belong to a magnitude image as echoes belong to the first one
            magnitude = [f for f in run if f.entities.get("part", "mag") == "mag"]
            echoes = sorted({f.entities.get("echo", "") for f in magnitude}, key=_natural)
            for file in [f for f in magnitude if f.entities.get("echo", "") == echoes[0]] or run[:1]:
                row = _row({**start, "subject": label, "kind": "raw"}, "bold", file.entities, file.path)
                row["echoes"] = len(echoes) if echoes != [""] else None
                if not magnitude:
                    _exclude(row, "there is a phase image only, no magnitude")
                if "task" not in file.entities:
                    _exclude(row, "the file name says no task: rename it to .._task-<label>_bold")
                _check_name(row, file)
                _check_volume(row, file.path, sidecars, tr_s)
                _link_anat(row, anats)
                if row["anat"] is None:
                    bad = next((f" ({a['reason']})" for a in anats), "")
                    _exclude(row, f"no usable T1w image, which preprocessing needs{bad}")
                yield row


def _derivatives(
    start: Row,
    root: Path,
    wanted: Iterable[str] | None,
    tasks: Sequence[str] | None,
    tr_s: float | None,
    space: str,
) -> Iterator[Row]:
    """Rows of fMRIPrep's derivatives."""
    sidecars = scans.Sidecars(root)
    labels, strange = _people(start, root, wanted)
    yield from strange
    suffixes = ("bold", "T1w", "mask", "timeseries", "regressors")
    endings = (*_IMAGES, ".func.gii", ".dtseries.nii", ".tsv")
    for label, files in _listing(start["cohort"], root, labels, suffixes, endings):
        mine = {**start, "subject": label}
        anats = _choose_t1w({**mine, "kind": "volume"}, files, sidecars, space=ANAT_SPACE)
        yield from anats
        runs: dict[str, list[_File]] = defaultdict(list)
        for file in files:
            if "task" in file.entities and "echo" not in file.entities:
                runs[_key(start["cohort"], label, file.entities)].append(file)
        due = {
            key: run
            for key, run in runs.items()
            if any(f.suffix == "bold" or f.is_confounds for f in run)
            and (tasks is None or run[0].entities["task"] in tasks)
        }
        if not due:
            yield _no_bold(mine, tasks or (), {run[0].entities["task"] for run in runs.values()})
        for run in due.values():
            for row in _preprocessed_run({**mine, "space": space}, run, sidecars, tr_s):
                _link_anat(row, anats)
                yield row


def _preprocessed_run(
    start: Row, run: list[_File], sidecars: scans.Sidecars, tr_s: float | None
) -> Iterator[Row]:
    """The row of one run in the wanted space; several where files contradict each other."""
    space = start["space"]
    kind, bolds = _in_space([f for f in run if f.suffix == "bold"], space)
    confounds = [f for f in run if f.is_confounds]
    if not bolds:
        row = _row({**start, "kind": kind}, "bold", run[0].entities)
        others = sorted(
            {
                f.entities.get("space", "native")
                for f in run
                if f.suffix == "bold" and f.entities.get("desc", "preproc") == "preproc"
            }
        )
        _exclude(row, f"no BOLD in space {space}" + (f"; there is: {', '.join(others)}" if others else ""))
        yield row
        return
    for left, right in bolds:
        row = _row({**start, "kind": kind}, "bold", left.entities, left.path)
        _check_name(row, left)
        if kind == "volume":
            _check_volume(row, left.path, sidecars, tr_s)
            masks = [f for f in run if f.suffix == "mask" and f.entities.get("desc") == "brain"]
            row["mask"] = _path(_first(f for f in masks if _grid(f) == _grid(left)))
        elif kind == "gifti":
            _check_gifti(row, left, right, run, sidecars, tr_s)
        else:
            _check_cifti(row, left.path, sidecars, tr_s)
        if confounds:
            row["confounds"] = str(confounds[0].path)
            try:
                scans.check_file(confounds[0].path)
            except ValueError as error:
                _exclude(row, f"confounds table: {error}")
        else:
            _exclude(row, "no confounds table (.._desc-confounds_timeseries.tsv)")
        yield row


def _parcellated(start: Row, root: Path, cohort: config.Cohort) -> Iterator[Row]:
    """Rows of ROI x time tables."""
    if "{subject}" not in cohort.series:
        msg = f"cohort {start['cohort']}: `series` must hold {{subject}} (is {cohort.series!r})"
        raise ValueError(msg)
    sidecars = scans.Sidecars(root)
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
    labels, strange = _people(start, root, None)
    yield from (row for row in strange if wanted is None)
    everybody = (set(tables) | set(labels)) if wanted is None else wanted
    anat_files = dict(
        _listing(start["cohort"], root, sorted(set(labels) & everybody), ("T1w", "mask"), _IMAGES)
    )
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
    start: Row, label: str, path: Path, cohort: config.Cohort, sidecars: scans.Sidecars
) -> Row | None:
    named = entities.parse(path.name)
    named.setdefault("task", cohort.tasks[0])
    if named["task"] not in cohort.tasks:
        return None
    row = _row({**start, "kind": "table", "space": None}, "bold", named, path)
    if named.get("sub", label) != label:
        _exclude(row, f"the file of sub-{named['sub']} lies in the place of sub-{label}")
    if start["subject"] != label:
        _exclude(row, f"{label!r} is no subject label: only letters and digits may be used")
    measured = None
    try:
        scans.check_file(path)
        row["n_frames"], measured = _look_at_table(path)
    except ValueError as error:
        _exclude(row, str(error))
    _tell_tr(row, path, sidecars, measured, cohort.tr_s)
    return row


# --- facts of a scan ------------------------------------------------------------------------------------------


class _File:
    """A listed file, its name taken apart."""

    def __init__(self, path: Path):
        self.path = path
        self.entities = entities.parse(path.name)
        stem, _, self.ending = path.name.partition(".")
        self.suffix = stem.rsplit("_", 1)[-1]

    @property
    def is_confounds(self) -> bool:
        return self.suffix in ("timeseries", "regressors") and self.entities.get("desc") == "confounds"


def _in_space(bolds: list[_File], space: str) -> tuple[str, list[tuple[_File, _File | None]]]:
    """Kind of a run's BOLD in a space, and the images (with their right hemisphere); normally one."""
    bolds = [f for f in bolds if f.entities.get("space") == space]
    if space.startswith("MNI"):
        volumes = [f for f in bolds if f.entities.get("desc") == "preproc" and f".{f.ending}" in _IMAGES]
        return "volume", [
            (f, None) for f in _best(volumes, lambda f: _RESOLUTIONS.get(f.entities.get("res"), 2))
        ]
    ciftis = [f for f in bolds if f.ending == "dtseries.nii"]
    if ciftis:
        return "cifti", [(f, None) for f in _best(ciftis, lambda f: f.entities.get("den", "91k") != "91k")]
    hemispheres = [[f for f in bolds if f.ending == "func.gii" and f.entities.get("hemi") == h] for h in "LR"]
    lefts, rights = (_best(files, lambda f: f.entities.get("den", "32k") != "32k") for files in hemispheres)
    if not lefts:
        lefts, rights = rights, []
    return "gifti", [(left, rights[i] if i < len(rights) else None) for i, left in enumerate(lefts)]


_RESOLUTIONS = {"2": 0, "02": 0, None: 1}


def _best(files: list[_File], rank: Callable[[_File], Any]) -> list[_File]:
    """All files of the lowest rank: several are a contradiction that a person must resolve."""
    lowest = min(map(rank, files), default=None)
    return [f for f in files if rank(f) == lowest]


def _choose_t1w(
    start: Row, files: list[_File], sidecars: scans.Sidecars, *, raw: bool = False, space: str | None = None
) -> list[Row]:
    """Rows of a person's T1 images, those that are used first: one per session, the others say so.

    Parameters
    ----------
    raw : bool
        Scanner images; otherwise outputs of a preprocessing, of which the one in the standard space is meant.
    space : str, optional
        The only standard space that will do.
    """
    images = [f for f in files if f.suffix == "T1w" and f".{f.ending}" in _IMAGES]
    sessions: dict[str | None, list[_File]] = defaultdict(list)
    for file in images:
        sessions[file.entities.get("ses")].append(file)
    used, others = [], []
    for ses, of_session in sorted(sessions.items(), key=lambda item: _natural(item[0] or "")):
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
                _exclude(row, f"no T1w image in space {space or ANAT_SPACE}; there is: {', '.join(spaces)}")
                others.append(row)
        rows = [_t1w_row(start, file, files, sidecars) for file in candidates]
        # a T1 with contrast agent is nobody's first choice
        rows.sort(key=lambda row: (row["status"] != "ok", "_ce-" in row["path"], _natural(row["path"])))
        for row in rows[:1]:
            row["key"] = _key(start["cohort"], start["subject"], {"ses": ses or ""})
            used.append(row)
        for row in rows[1:]:
            if rows[0]["status"] == "ok":
                _exclude(row, f"one T1w image of a session is used: {Path(rows[0]['path']).name}")
            others.append(row)
    return used + others


def _t1w_row(start: Row, file: _File, files: list[_File], sidecars: scans.Sidecars) -> Row:
    row = _row(start, "t1w", file.entities, file.path)
    row["space"] = file.entities.get("space")
    row["task"] = None
    masks = [
        f
        for f in files
        if f.suffix == "mask" and f.entities.get("desc") == "brain" and _grid(f) == _grid(file)
    ]
    keep = ("ses", "acq", "ce", "rec", "run", "task")
    row["mask"] = _path(
        _first(m for m in masks if all(m.entities.get(e) == file.entities.get(e) for e in keep))
    )
    _check_name(row, file)
    try:
        fields, sidecar = sidecars.facts(file.path)
        row["sidecar"] = _path(sidecar)
        header = scans.read_header(file.path)
        shape = header.get_data_shape()
        if len(shape) != 3 and shape[3:] != (1,):
            msg = f"the image is {len(shape)}D ({' x '.join(map(str, shape))}): a 3D volume is due"
            raise ValueError(msg)
        scans.voxel_sizes(fields, header)
    except ValueError as error:
        _exclude(row, str(error))
    return row


def _check_volume(row: Row, path: Path, sidecars: scans.Sidecars, tr_s: float | None) -> None:
    """Fill in what a 4D NIfTI image and its sidecars say."""
    header = measured = None
    try:
        header = scans.read_header(path)
        row["n_frames"] = scans.n_frames(header)
        measured = scans.header_repetition_time(header)
    except ValueError as error:
        _exclude(row, str(error))
    fields = _tell_tr(row, path, sidecars, measured, tr_s)
    if header is not None and fields is not None:
        try:
            scans.voxel_sizes(fields, header)
        except ValueError as error:
            _exclude(row, str(error))


def _check_gifti(
    row: Row, left: _File, right: _File | None, run: list[_File], sidecars: scans.Sidecars, tr_s: float | None
) -> None:
    """Fill in what a pair of GIfTI files and the run's sidecars say."""
    if right is None:
        side = "right" if left.entities["hemi"] == "L" else "left"
        _exclude(row, f"the {side} hemisphere is missing")
    else:
        row["path_right"] = str(right.path)
    frames = []
    for file in filter(None, (left, right)):
        try:
            frames.append(scans.read_gifti_frames(file.path))
        except ValueError as error:
            _exclude(row, f"hemisphere {file.entities['hemi']}: {error}")
    if len(set(frames)) > 1:
        _exclude(row, f"the hemispheres have {frames[0]} and {frames[1]} frames")
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


def _check_cifti(row: Row, path: Path, sidecars: scans.Sidecars, tr_s: float | None) -> None:
    """Fill in what a CIFTI series and its sidecars say."""
    measured = None
    try:
        row["n_frames"], measured = scans.read_cifti_series(path)
    except ValueError as error:
        _exclude(row, str(error))
    _tell_tr(row, path, sidecars, measured, tr_s)


def _tell_tr(
    row: Row, path: Path, sidecars: scans.Sidecars, measured: float | None, fallback: float | None
) -> Mapping[str, Any] | None:
    """Fill in repetition time and sidecar; returns the sidecar's fields, None if it cannot be read."""
    try:
        fields, sidecar = sidecars.facts(path)
        row["sidecar"] = _path(sidecar)
    except ValueError as error:
        _exclude(row, str(error))
        return None
    told = {"RepetitionTime", "VolumeTiming"} & fields.keys()
    if row["status"] != "ok" and not told and measured is None:
        return fields  # an image that cannot be opened tells no repetition time either: one reason is enough
    try:
        row["tr_s"] = scans.repetition_time(fields, measured, frames=row["n_frames"], fallback=fallback)
    except ValueError as error:
        _exclude(row, str(error))
    return fields


def _look_at_table(path: Path) -> tuple[int | None, float | None]:
    """Frames and repetition time (s) of a table, as far as they are told without reading it."""
    ending = next((e for e in TABLES if path.name.endswith(e)), None)
    if ending is None:
        msg = f"not a table that BHX reads: {', '.join(TABLES)}"
        raise ValueError(msg)
    if ending == ".ptseries.nii":
        return scans.read_cifti_series(path)
    try:
        shape, columns = _table_outline(path, ending)
    except Exception as error:  # numpy, gzip and pyarrow each have their own
        msg = f"the table cannot be read ({type(error).__name__})"
        raise ValueError(msg) from error
    if shape is not None and len(shape) != 2:
        msg = f"the array is {len(shape)}D: ROI x time is due"
        raise ValueError(msg)
    frames = _frames_by_name(columns)
    if frames is None and shape is not None:
        # an array without names is ROI x time; named columns that are no frames are ROIs
        frames = (
            None if all(c.isdecimal() for c in columns) and columns else shape[0] if columns else shape[1]
        )
    if frames is not None and frames < 2:
        msg = f"the table has {_count(frames, 'frame')}: a series is due"
        raise ValueError(msg)
    return frames, None


def _table_outline(path: Path, ending: str) -> tuple[tuple[int, ...] | None, list[str]]:
    """Shape of a table where that costs nothing, and its column names."""
    if ending == ".npy":
        import numpy as np

        return np.load(path, mmap_mode="r", allow_pickle=False).shape, []
    if ending == ".parquet":
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        return (file.metadata.num_rows, file.metadata.num_columns), file.schema_arrow.names
    opener = gzip.open if ending.endswith(".gz") else open
    with opener(path, "rt", encoding="latin-1") as file:
        return None, next(csv.reader(file, delimiter="\t" if ending == ".tsv" else ","), [])


def _frames_by_name(columns: Sequence[str]) -> int | None:
    """Number of columns that number frames, if all but the first do."""
    frames = [bool(_FRAME.fullmatch(c.strip())) for c in columns]
    return sum(frames) if len(frames) > 1 and all(frames[1:]) else None


# --- people, files, rows --------------------------------------------------------------------------------------


def _people(start: Row, root: Path, wanted: Iterable[str] | None) -> tuple[list[str], list[Row]]:
    """Labels of the subject folders, and rows for those that cannot be used or are not there."""
    names = []
    if root.is_dir():
        with os.scandir(root) as entries:
            names = sorted(e.name for e in entries if e.name.startswith("sub-") and e.is_dir())
    labels = [name.removeprefix("sub-") for name in names]
    good = [label for label in labels if _SUBJECT.fullmatch(label)]
    if wanted is not None:
        there = set(good)
        good = sorted(there & set(wanted))
        rows = [_row({**start, "subject": _safe(label)}, "bold", {}) for label in sorted(set(wanted) - there)]
        for row in rows:
            _exclude(row, f"there is no folder sub-{row['subject']} in {root}")
        return good, rows
    rows = []
    for label in labels:
        if not _SUBJECT.fullmatch(label):
            row = _row({**start, "subject": _safe(label)}, "bold", {}, root / f"sub-{label}")
            _exclude(
                row,
                f"folder {f'sub-{label}'!r} is no subject folder: only letters and digits may follow `sub-`",
            )
            rows.append(row)
    return good, rows


def _listing(
    cohort: str, root: Path, labels: Sequence[str], suffixes: Sequence[str], endings: Sequence[str]
) -> Iterator[tuple[str, list[_File]]]:
    """Each person's files with one of the suffixes and endings, found by bids2table.

    bids2table is shown a folder with links to the people of one chunk. So it lists only those that are wanted, and
    its memory is bounded; and it does not stumble over a root whose name holds dots or wildcards.
    """
    import bids2table

    logging.getLogger("bids2table").setLevel(logging.ERROR)  # odd names are our rows, not its warnings
    clock = _Clock(cohort, len(labels))
    with tempfile.TemporaryDirectory(prefix="bhx-index-") as folder:
        for begin in range(0, len(labels), _PEOPLE_PER_LISTING):
            chunk = labels[begin : begin + _PEOPLE_PER_LISTING]
            view = Path(folder) / f"people{begin}"
            view.mkdir()
            for label in chunk:
                (view / f"sub-{label}").symlink_to(root / f"sub-{label}", target_is_directory=True)
            listed = bids2table.index_dataset(view).select(["suffix", "ext", "path"]).to_pydict()
            files: dict[str, list[_File]] = defaultdict(list)
            for suffix, ending, path in zip(listed["suffix"], listed["ext"], listed["path"], strict=True):
                if suffix in suffixes and ending in endings:
                    files[path.split("/", 1)[0].removeprefix("sub-")].append(_File(root / path))
            for done, label in enumerate(chunk, begin + 1):
                yield label, sorted(files[label], key=lambda f: _natural(str(f.path)))
                clock.tick(done)


class _Clock:
    """Lines of progress on stderr, one every ten seconds."""

    def __init__(self, cohort: str, total: int):
        self._cohort, self._total, self._last = cohort, total, time.monotonic()

    def tick(self, done: int) -> None:
        if time.monotonic() - self._last > 10:
            self._last = time.monotonic()
            print(f"index {self._cohort}: {done:,} of {self._total:,} people", file=sys.stderr, flush=True)


def _row(start: Row, modality: str, named: Mapping[str, str], path: Path | None = None) -> Row:
    """A row of a scan that nothing speaks against yet."""
    row = {**dict.fromkeys(SCHEMA.names), **start, "modality": modality, "status": "ok"}
    row["key"] = _key(start["cohort"], start["subject"], named)
    row["session"], row["task"], row["run"] = (named.get(e) or None for e in ("ses", "task", "run"))
    row["path"] = _path(path)
    return row


def _key(cohort: str, subject: str, named: Mapping[str, str]) -> str:
    """Sample key; what may not stand in one is made harmless, `_check_name` tells."""
    return entities.sample_key(cohort, _safe(subject), {e: _safe(v) for e, v in named.items() if v})


def _safe(label: str) -> str:
    """A BIDS label for one that is none, different for different ones."""
    try:
        return entities.check_label(label, "label")
    except ValueError:
        kept = re.sub(r"[^A-Za-z0-9]", "", label)
        return f"{kept}X{hashlib.sha256(label.encode(errors='surrogateescape')).hexdigest()[:6]}"


def _check_name(row: Row, file: _File) -> None:
    """Exclude a scan whose name contradicts its folder or holds characters that a name may not have."""
    folders: dict[str, str] = {}
    for part in file.path.parts[:-1]:
        entity, _, value = part.partition("-")
        if entity == "sub":  # what lies above the subject's folder says nothing about it
            folders = {}
        folders[entity] = value
    for entity, value in file.entities.items():
        if entity in ("sub", *entities.SCAN_ENTITIES) and value != _safe(value):
            _exclude(
                row, f"{entity}-{value} in the file name: only letters and digits may follow `{entity}-`"
            )
        if entity in ("sub", "ses") and value != folders.get(entity, value):
            _exclude(row, f"a file of {entity}-{value} lies in the folder of {entity}-{folders[entity]}")


def _no_bold(start: Row, tasks: Sequence[str], found: Iterable[str]) -> Row:
    """The row of a person without a run that is wanted."""
    row = _row(start, "bold", {"task": tasks[0]} if tasks else {})
    there = ", ".join(sorted(found))
    of_tasks = f" of task {' or '.join(tasks)}" if tasks else ""
    _exclude(row, f"no BOLD run{of_tasks}" + (f"; there is: {there}" if there else ""))
    return row


def _exclude(row: Row, reason: str) -> None:
    row["reason"] = f"{row['reason']}; {reason}" if row["status"] == "excluded" else reason
    row["status"] = "excluded"


def _link_anat(row: Row, anats: list[Row]) -> None:
    """Name the T1 that goes with a run: of the same session, else the person's first."""
    usable = [a for a in anats if a["status"] == "ok"]
    same = [a for a in usable if a["session"] == row["session"]]
    row["anat"] = next((a["key"] for a in same + usable), None)


def _table(rows: list[Row]) -> pa.Table:
    """Rows as a table; of two usable scans of one name none is kept, since nobody knows which is meant."""
    twins: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["status"] == "ok":
            twins[row["modality"], row["key"]].append(row)
    for same in twins.values():
        if len(same) > 1:
            names = ", ".join(sorted(Path(row["path"]).name for row in same))
            for row in same:
                _exclude(row, f"{len(same)} files claim to be this scan ({names}): keep one")
    rows.sort(key=lambda row: (row["subject"], row["modality"], row["key"], row["path"] or ""))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _subject_pattern(series: str) -> re.Pattern[str]:
    """Regular expression of a glob pattern with ``{subject}``, which becomes the group of that name."""
    parts = []
    for part in re.split(r"(\*\*/|\*|\?|\{subject\})", series):
        if part == "{subject}":
            parts.append("(?P=subject)" if "{subject}" in parts else "{subject}")
        else:
            parts.append({"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part)))
    return re.compile("".join(parts).replace("{subject}", "(?P<subject>[^/]+?)"))


def _grid(file: _File) -> tuple[str | None, str | None]:
    return file.entities.get("space"), file.entities.get("res")


def _first(files: Iterable[_File]) -> Path | None:
    return next((f.path for f in files), None)


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key in which run 2 comes before run 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def _count(n: int, thing: str) -> str:
    if n == 1:
        return f"1 {thing}"
    return f"{n:,} {'people' if thing == 'person' else thing + 's'}"


# --- the cache ------------------------------------------------------------------------------------------------


def _cache_key(name: str, cohort: config.Cohort) -> str:
    root = cohort.root.expanduser().absolute()
    if not root.is_dir():  # said as `build` says it
        build(name, cohort)
    participants = cohort.participants or root / "participants.tsv"
    times = [p.stat().st_mtime_ns if p.exists() else None for p in (root, participants)]
    facts = json.dumps([SCHEMA_VERSION, name, str(root), config.to_json(cohort), times])
    return hashlib.sha256(facts.encode()).hexdigest()


def _read_stamp(stamp: Path) -> str | None:
    try:
        return json.loads(stamp.read_text())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(cache: Path, name: str, table: pa.Table, key: str) -> None:
    """Write table and stamp, the stamp last: a table without its stamp is made again."""
    import pyarrow.parquet as pq

    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as folder:
        part = Path(folder)
        pq.write_table(table, part / "table", compression="zstd")
        (part / "stamp").write_text(json.dumps({"cohort": name, "key": key, "rows": table.num_rows}) + "\n")
        (part / "table").replace(cache / f"{name}.parquet")
        (part / "stamp").replace(cache / f"{name}.json")
