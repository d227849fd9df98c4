"""The index of a cohort: one row per scan, for every kind of input.

What cannot be used is a row too, with a reason that a user understands: data that cannot be used raise nothing.
The table is cached in ``.bhx/index/<cohort>.parquet``, because Snakemake reads it whenever it plans; for the same
reason nothing heavy is imported at the top of this module.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.errors import ConfigError, DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.section import to_json
from bhx_prep.ingest import bids_files, fmriprep, layouts, raw_bids, timeseries
from bhx_prep.ingest.choice import T1W_MM, Choice, unused
from bhx_prep.ingest.rows import Row, add_note, exclude, subjects_and_unknown
from bhx_prep.io import bids_names, notes
from bhx_prep.io.notes import short
from bhx_prep.process_pool import process_pool

logger = logging.getLogger(__name__)

#: Raise it when rows change for equal inputs: caches made before are then made anew.
SCHEMA_VERSION: Final = 4

SCHEMA: Final = pa.schema(
    [
        pa.field("cohort", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
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
        # see `bhx_prep.io.notes`
        ("notes", pa.list_(pa.string())),
    ]
)

CACHE: Final = Path(".bhx/index")

_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")

#: Chunks of subjects that make starting processes worth while.
_WORTH_PROCESSES = 8

#: Columns that name files a scan is read from.
FILE_COLUMNS: Final = ("path", "path_right", "sidecar", "confounds", "mask")

#: Owner of the folders that several subjects share; not a subject's label.
SHARED: Final = ""


def build(name: str, cohort: CohortSection, *, t1w_mm: float = T1W_MM) -> pa.Table:
    """List a cohort's scans.

    Parameters
    ----------
    name : str
        Of the cohort.
    cohort : Cohort
        Its section of the configuration.
    t1w_mm : float
        Voxel size (mm) of the model's T1 grid, ``features.t1w_resolution_mm``.

    Returns
    -------
    pyarrow.Table
        `SCHEMA`, one row per BOLD run and T1 image, sorted by subject, modality and key.

    Raises
    ------
    ConfigError
        If the cohort's folder is missing or has no subjects.
    """
    root = _root(cohort)
    if not root.is_dir():
        demo = " (`bhx synth` makes the demo's)" if "demo-data" in root.parts else ""
        msg = f"cohort {name}: there is no folder {root}{demo}: fix cohorts.{name}.root in the configuration"
        raise ConfigError(msg)
    start = Row(cohort=name, input=cohort.input, synthetic=cohort.synthetic)
    choice = Choice.of(name, cohort, root, t1w_mm)
    listing = layouts.listing_of(cohort)
    if listing is not None:
        places, rows = layouts.places_and_unknown(listing, start, root, cohort)
        rows += _by_chunks(partial(layouts.rows_of, start, root, cohort, t1w_mm), places, name)
        for row in rows:
            if (
                row["path"]
                and row["status"] == "ok"
                and (reason := choice.left_out(Path(row["path"]), [row["key"]]))
            ):
                exclude(row, reason)
    elif cohort.input == "timeseries":
        rows = list(timeseries.list_rows(start, root, cohort, choice))
    else:
        labels, rows = subjects_and_unknown(start, root, cohort.subjects)
        options: dict[str, Any] = {"tasks": cohort.tasks, "tr_s": cohort.tr_s, "tr": cohort.tr}
        options["choice"] = choice
        list_rows = raw_bids.list_rows if cohort.input == "bids" else fmriprep.list_rows
        rows += _by_chunks(partial(_rows_of, list_rows, start, root, options), labels, name)
    if not rows:
        usual = cohort.series if cohort.input == "timeseries" else "sub-<label>"
        raise _no_subjects(name, cohort, root, usual if listing is None else listing.expects)
    for pattern in unused(cohort.exclude, rows) if cohort.subjects is None else ():
        logger.warning(
            "cohort %s: `exclude` has %s, which leaves no scan out: is it spelt right?", name, pattern
        )
    return _table(rows)


def _no_subjects(name: str, cohort: CohortSection, root: Path, expected: str) -> ConfigError:
    return ConfigError(
        f"cohort {name}: no subjects in {root}: `input: {cohort.input}` expects {expected} there;"
        " is it the right folder?"
    )


def derivatives(
    root: Path,
    *,
    cohort: str,
    space: str,
    subjects: Sequence[str],
    t1w_mm: float = T1W_MM,
) -> pa.Table:
    """List fMRIPrep-shaped derivatives of some subjects, as after our own preprocessing.

    Parameters
    ----------
    root : Path
        Folder of the derivatives; a subject without a folder there is a row with a reason.
    cohort, space : str
        Name of the cohort, and which of the BOLD outputs to list.
    subjects : sequence of str
        Labels without ``sub-``.
    t1w_mm : float
        Voxel size (mm) of the model's T1 grid.

    Returns
    -------
    pyarrow.Table
        `SCHEMA`, the rows of ``input: fmriprep``; all tasks.
    """
    start, root = Row(cohort=cohort, input="fmriprep"), root.absolute()
    labels, rows = subjects_and_unknown(start, root, subjects)
    choice = Choice(cohort, root, space, t1w_mm, own=True)
    return _table([*rows, *fmriprep.list_rows(start, root, labels, None, None, choice=choice)])


def _rows_of(
    list_rows: Callable[..., Iterable[Row]],
    start: Row,
    root: Path,
    options: dict[str, Any],
    labels: Sequence[str],
) -> list[Row]:
    return list(list_rows(start, root, labels, **options))


def _by_chunks(
    rows_of: Callable[[Sequence[Any]], list[Row]], labels: Sequence[Any], cohort: str
) -> list[Row]:
    """Rows of all subjects; of a large cohort by several processes, since waiting for its disk is most of the work."""
    chunks = bids_files.chunks(labels)
    rows: list[Row] = []
    logged = time.monotonic()
    with ExitStack() as stack:
        parts = map(rows_of, chunks)
        if len(chunks) >= _WORTH_PROCESSES:
            parts = stack.enter_context(process_pool()).map(rows_of, chunks)
        for done, part in enumerate(parts, 1):
            rows += part
            if time.monotonic() - logged > 10:
                logged = time.monotonic()
                listed = sum(map(len, chunks[:done]))
                logger.info("index %s: %s of %s subjects", cohort, f"{listed:,}", f"{len(labels):,}")
    return rows


def load(
    cache: Path,
    name: str,
    cohort: CohortSection,
    *,
    build_if_stale: bool = True,
    t1w_mm: float = T1W_MM,
) -> pa.Table:
    """Read a cohort's index from the cache, and make it first where it is absent or old.

    Old means: the cohort's section of the configuration changed, or the files at the top of its folder. Of subjects
    whose files or folders changed the rows alone are made anew. A file that appears in a folder in which nothing was
    listed before, and a sidecar between the top and the image's folder that is edited, are seen by
    ``bhx index --refresh``.

    Parameters
    ----------
    cache : Path
        Folder of the cache, usually `CACHE`.
    name, cohort, t1w_mm
        As for `build`.
    build_if_stale : bool
        False reads the cache as it is, as jobs do.

    Raises
    ------
    ConfigError
        As `build`.
    DataError
        If the cache is absent and must not be made.
    """
    import pyarrow.parquet as pq

    file = cache / f"{name}.parquet"
    if not build_if_stale:
        if not file.exists():
            msg = f"cohort {name} has no index in {cache}: run `bhx index {name}` first"
            raise DataError(msg)
        return pq.ParquetFile(file).read()
    key, stamp = _cache_key(name, cohort, t1w_mm), _read_stamp(cache / f"{name}.json")
    changed = {SHARED}
    if file.exists() and stamp.get("key") == key:
        table = pq.ParquetFile(file).read()
        now, then = _states(table, cohort), stamp["states"]
        changed = {owner for owner in now.keys() | then.keys() if now.get(owner) != then.get(owner)}
        if not changed:
            return table
    if SHARED in changed:
        table = build(name, cohort, t1w_mm=t1w_mm)
    else:
        some = cohort.model_copy(update={"subjects": tuple(sorted(changed))})
        theirs = build(name, some, t1w_mm=t1w_mm)
        others = [row for row in table.to_pylist() if row["subject"] not in changed]
        table = _table(others + theirs.to_pylist())
    scans = usable_scans(table) if cohort.input == "bids" else {}
    _write(cache, name, table, key, _states(table, cohort), scans)
    return pq.ParquetFile(file).read()


def _states(table: pa.Table, cohort: CohortSection) -> dict[str, str]:
    """Hash of sizes and times of the files and folders below each subject's own folder.

    All other files count for `SHARED`. In a known data set a folder or file is a subject's own if its name, or that of
    a folder above it, holds the label.
    """
    root = str(_root(cohort))
    named = cohort.layout is not None
    parts: dict[str, set[str]] = defaultdict(set)
    seen: set[str] = set()
    columns = [table[column].to_pylist() for column in ("subject", *FILE_COLUMNS)]
    for subject, *files in zip(*columns, strict=True):
        own = f"{root}{os.sep}sub-{subject}"
        path, sidecar = files[0], files[FILE_COLUMNS.index("sidecar")]
        if path and not sidecar:  # it may be one that could not be read
            folder, _, name = path.rpartition(os.sep)
            files.append(f"{folder}{os.sep}{name.partition('.')[0]}.json")
        for path in filter(None, files):
            while len(path) > len(root) and path not in seen:
                seen.add(path)
                if named:
                    owner = subject if subject in path[len(root) :] else SHARED
                else:
                    owner = subject if path == own or path.startswith(own + os.sep) else SHARED
                parts[owner].add(f"{path} {state_of(path)}")
                if path.rpartition(os.sep)[2].startswith(("sub-", "ses-")) and "." not in path[len(root) :]:
                    parts[owner].add(state_of(_scans_table(path, subject)))
                path = path.rpartition(os.sep)[0]
    return {
        owner: hashlib.sha256("\n".join(sorted(of_owner)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        for owner, of_owner in parts.items()
    }


def _scans_table(folder: str, subject: str) -> str:
    """Path of the ``scans.tsv`` of a subject's or session's folder, there or not: it is edited in place."""
    name = folder.rpartition(os.sep)[2]
    session = f"_{name}" if name.startswith("ses-") else ""
    return f"{folder}{os.sep}sub-{subject}{session}_scans.tsv"


def state_of(path: str) -> str:
    """Size and time of change of a file or folder; of the archive, where the path leads into one."""
    try:
        stat = os.stat(path)  # noqa: PTH116, half a million times
    except NotADirectoryError:
        return state_of(path.rpartition(os.sep)[0])
    except OSError:  # the reason is found when it is read
        return "absent"
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _table(rows: list[Row]) -> pa.Table:
    """Rows as a table; of two usable scans of one name none is kept, since it is unknown which is meant."""
    twins: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["status"] == "ok":
            twins[row["modality"], bids_names.same_scan(row["key"])].append(row)
    for same in twins.values():
        if len(same) > 1:
            first, second, *more = sorted(Path(row["path"]).name for row in same)
            names = f"{short(first)}, {short(second)}{', ..' if more else ''}"
            remedy = "keep one" if same[0]["kind"] != "table" else "let `select` or `series` match one"
            for row in same:
                exclude(row, f"{len(same)} files claim to be this scan ({names}): {remedy}")
    _note_similar_labels(rows)
    rows.sort(key=lambda row: (row["subject"], row["modality"], row["key"], row["path"] or ""))
    try:
        return pa.Table.from_pylist(rows, schema=SCHEMA)
    except UnicodeEncodeError:  # a name of bytes that are no text: its scan is excluded, and the row says so
        return pa.Table.from_pylist([_as_text(row) for row in rows], schema=SCHEMA)


def _as_text(row: Row) -> Row:
    """A row with escapes in place of the bytes of names that are no UTF-8."""
    return {
        column: os.fsencode(value).decode("utf-8", "backslashreplace") if isinstance(value, str) else value
        for column, value in row.items()
    }


def _note_similar_labels(rows: list[Row]) -> None:
    """Note subjects whose labels differ in zeros before a number or in case only: they stay two subjects."""
    labels: dict[str, set[str]] = defaultdict(set)
    for label in {row["subject"] for row in rows}:
        labels[_ZEROS.sub("", label).casefold()].add(label)
    similar = {label: same - {label} for same in labels.values() if len(same) > 1 for label in same}
    for row in rows if similar else ():
        if row["subject"] in similar:
            other = min(similar[row["subject"]])
            add_note(row, notes.Kind.SUBJECT, f"sub-{row['subject']} and sub-{other} are two subjects")


def usable_scans(table: pa.Table) -> dict[str, list[list[Any]]]:
    """What of every subject is preprocessed: path, repetition time (s) and number of echoes of its scans."""
    columns = ("subject", "status", "path", "tr_s", "echoes")
    found: dict[str, list[list[Any]]] = defaultdict(list)
    for subject, status, path, tr_s, echoes in zip(*(table[c].to_pylist() for c in columns), strict=True):
        if status == "ok":
            found[subject].append([path, tr_s, echoes])
    return dict(found)


def _root(cohort: CohortSection) -> Path:
    return cohort.root.absolute()


def _cache_key(name: str, cohort: CohortSection, t1w_mm: float) -> str:
    root = _root(cohort)
    if not root.is_dir():  # `build` raises with the reason
        build(name, cohort)
    with os.scandir(root) as entries:
        top = sorted(
            f"{e.name} {state_of(e.path)}" if e.name.endswith((".json", ".bidsignore")) else e.name
            for e in entries
            if e.name.startswith("sub-")
            or e.name.endswith((".json", ".bidsignore"))
            or cohort.input == "timeseries"
            or cohort.layout is not None
        )
    known = json.dumps([SCHEMA_VERSION, name, str(root), to_json(cohort), t1w_mm, top])
    return hashlib.sha256(known.encode()).hexdigest()


def _read_stamp(stamp: Path) -> dict[str, Any]:
    """What is known of the cached table; nothing if the file is absent or damaged."""
    try:
        known = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and isinstance(known.get("states"), dict) else {}


def _write(
    cache: Path,
    name: str,
    table: pa.Table,
    key: str,
    states: dict[str, str],
    scans: dict[str, list[list[Any]]],
) -> None:
    """Write table and stamp, the stamp last: a table without its stamp is made again."""
    import pyarrow.parquet as pq

    file = cache / f"{name}.parquet"
    # rows that stay the same keep their file, and with it whatever was made from it
    if not (file.exists() and _same(table, file)):
        with atomic_write(file, shared=True) as part:
            pq.write_table(table, part, compression="zstd")
    known = {"cohort": name, "key": key, "rows": table.num_rows, "states": states}
    if scans:  # preprocessing reads them, which cannot read Parquet
        known["scans"] = scans
    write_json(cache / f"{name}.json", known, shared=True)


def _same(table: pa.Table, file: Path) -> bool:
    import pyarrow.parquet as pq

    try:
        return table.equals(pq.ParquetFile(file).read())
    except (OSError, pa.ArrowException):  # a broken cache is replaced
        return False
