"""Choose the files to use: the same rule for all inputs, changed by a cohort's section.

A file is left out by the list `exclude`, by ``.bidsignore`` or by a column of ``scans.tsv``; `select` leaves out all but
some values of a BIDS entity. Of what remains, files that hold one scan are ranked: by `prefer`, then as the functions
of each input say. What was chosen among several is a note of the scan that was taken.
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from bhx_model.errors import ConfigError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest.bids_files import File
from bhx_prep.ingest.rows import Row, add_note, exclude
from bhx_prep.io import bids_names, notes
from bhx_prep.io.pointers import content_missing
from bhx_prep.io.spaces import MNI152

#: Voxel size (mm) of the T1 grid of the paper's model.
T1W_MM: Final = 1.0
#: Columns of ``scans.tsv`` that leave a scan out, the first that is there; and what a cell says of a scan that is used.
EXCLUDE_COLUMNS: Final = ("bhx_exclude", "exclude")
USED: Final = ("", "n/a", "na", "nan", "none", "0", "0.0", "false", "no", "n", "f")
#: Stands for files without the entity, in `select` and `prefer`.
WITHOUT: Final = "none"


@dataclass(frozen=True)
class Choice:
    """What decides among the files of a cohort.

    Attributes
    ----------
    cohort : str
        Its name.
    root : Path
        Absolute.
    space : str
        Of the BOLD outputs; T1w volumes of the same space are preferred.
    t1w_mm : float or None
        Voxel size (mm) of the model's T1 grid; the paper's where it is not known.
    select, prefer : mapping
        BIDS entity to values.
    excluded : tuple of str
        Sample keys, file names and paths.
    ignored : tuple of str
        Lines of ``.bidsignore``.
    denoised : bool
        The cohort's series are used without a table of confounds (`strategy: none`), where there is none.
    own : bool
        Outputs of our own preprocessing: of resolutions that it was asked for no choice is noted.
    """

    cohort: str = ""
    root: Path = Path()
    space: str = MNI152[0]
    t1w_mm: float | None = T1W_MM
    select: Mapping[str, Sequence[str]] = field(default_factory=dict)
    prefer: Mapping[str, Sequence[str]] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    denoised: bool = False
    own: bool = False

    @classmethod
    def of(cls, name: str, cohort: CohortSection, root: Path, t1w_mm: float | None = T1W_MM) -> Choice:
        """The choice of a cohort; of raw data reads ``.bidsignore``: fMRIPrep's own lists all that it is here for.

        Raises
        ------
        ConfigError
            If that file cannot be read.
        """
        lines: list[str] = []
        try:
            if cohort.input == "bids":
                file = root / ".bidsignore"
                lines = file.read_text(encoding="utf-8-sig").splitlines() if os.path.lexists(file) else []
                missing = content_missing(file, file.stat().st_size) if lines else None
                if missing:
                    raise ConfigError(f"cohort {name}: {file} {missing}")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"cohort {name}: {root / '.bidsignore'} cannot be read ({type(error).__name__}): fix or remove it"
            raise ConfigError(msg) from error
        select, prefer = ({str(k): v for k, v in given.items()} for given in (cohort.select, cohort.prefer))
        denoised = cohort.strategy == "none"
        return cls(name, root, cohort.space, t1w_mm, select, prefer, cohort.exclude, tuple(lines), denoised)

    def left_out(
        self, path: Path, keys: Iterable[str] = (), flagged: Mapping[str, str] | None = None
    ) -> str | None:
        """Why a file is not used, if the user leaves it out.

        Parameters
        ----------
        path : Path
            Below the root.
        keys : iterable of str
            Sample keys of the scan that the file holds.
        flagged : mapping, optional
            What ``scans.tsv`` says of files, from `scans_tables`.
        """
        text = str(path)
        if flagged and text in flagged:
            return flagged[text]
        below = text.removeprefix(f"{self.root}{os.sep}")
        if self.excluded:
            names = {below, path.name, path.name.partition(".")[0]}
            names |= {below[: place.start()] for place in re.finditer(re.escape(os.sep), below)}
            names |= {name for key in keys for name in (key, key.removeprefix(f"{self.cohort}_"))}
            pattern = _matching(self.excluded, {bids_names.same_scan(name) for name in names})
            if pattern is not None:
                return f"left out by `exclude` ({notes.quote(pattern)})"
        if self.ignored and _bidsignore(self.ignored).match_file(below):
            return "left out by .bidsignore"
        return None

    def not_selected(self, entities: Mapping[str, str]) -> str | None:
        """Why `select` leaves a file with these entities out, if it does."""
        for entity, values in self.select.items():
            if not _has(entities, entity, values):
                asked = " or ".join(f"{entity}-{v}" if v != WITHOUT else f"no {entity}-" for v in values)
                return f"left out by `select`, which asks for {asked}"
        return None

    def selected_t1w(self, files: list[File]) -> list[File]:
        """T1w images that `select` leaves: a value that none of them has is meant for the runs."""
        for entity, values in self.select.items():
            some = [f for f in files if _has(f.entities, entity, values)]
            files = some or files
        return files

    def rank(self, entities: Mapping[str, str], of: Iterable[str] | None = None) -> tuple[int, ...]:
        """Place of a file in the order of `prefer`, by all of its entities or some; the lowest is the best."""
        own = bids_names.unpadded(entities)
        ranks = []
        for entity, values in self.prefer.items():
            if of is None or entity in of:
                wanted = [bids_names.unpadded({entity: v})[entity] for v in values]
                value = own.get(entity, WITHOUT)
                ranks.append(wanted.index(value) if value in wanted else len(wanted))
        return tuple(ranks)

    def prefer_runs(self, rows: list[Row]) -> None:
        """Exclude the usable rows of a subject that `prefer` takes another one for.

        Runs that differ in nothing but the entities of `prefer` are one scan, and so are tables of one run that differ in
        what they were made by.
        """
        are_tables = any(row.get("kind") == "table" for row in rows)
        entities = [e for e in self.prefer if (are_tables or e in bids_names.SCAN_ENTITIES) and e != "task"]
        others = [e for e in bids_names.SCAN_ENTITIES if e not in entities]
        scans: dict[tuple[str | None, ...], list[tuple[tuple[int, ...], Row]]] = defaultdict(list)
        for row in rows:
            if entities and row["modality"] == "bold" and row["status"] == "ok" and row["path"]:
                named = bids_names.unpadded(bids_names.parse(Path(row["path"]).name))
                scans[tuple(map(named.get, others))].append((self.rank(named, entities), row))
        for ranked in scans.values():
            first = min(rank for rank, _ in ranked)
            taken = [row for rank, row in ranked if rank == first]
            for rank, row in ranked:
                if rank != first:
                    exclude(row, f"`prefer` takes {Path(taken[0]['path']).name} for this scan")
            if len(taken) < len(ranked):
                add_note(taken[0], notes.Kind.CHOICE, f"one of {len(ranked)} files of this scan, by `prefer`")


def note_reconstructions(rows: list[Row]) -> None:
    """Note runs that are used and differ in ``rec-`` only: one acquisition, which then counts twice."""
    scans: dict[tuple[str | None, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row["modality"] == "bold" and row["status"] == "ok" and "_rec-" in (row["path"] or ""):
            named = bids_names.unpadded(bids_names.parse(Path(row["path"]).name))
            scans[tuple(named.get(e) for e in bids_names.SCAN_ENTITIES if e != "rec")].append(row)
    for same in scans.values():
        if len(same) > 1:
            for row in same:
                add_note(
                    row,
                    notes.Kind.CHOICE,
                    f"{len(same)} reconstructions (rec-) of this run are used: `prefer: {{rec: [..]}}` takes one",
                )


def unused(patterns: Iterable[str], rows: Iterable[Row]) -> list[str]:
    """Patterns of `exclude` that left no scan out: most likely misspelt."""
    reasons = "\n".join({row["reason"] for row in rows if row["reason"] and "`exclude`" in row["reason"]})
    return [pattern for pattern in patterns if f"`exclude` ({notes.quote(pattern)})" not in reasons]


def scans_tables(files: Iterable[File]) -> tuple[dict[str, str], str | None]:
    """What the ``scans.tsv`` of a subject say of files: path to reason of those to leave out, and what could not be used.

    A column ``bhx_exclude``, or ``exclude`` where there is none of that name, leaves out every file whose cell is not
    one of `USED`; the cell may say why. A file is found by its path in the table's folder, or by its name alone.
    """
    flagged: dict[str, str] = {}
    fault = None
    files = list(files)
    for table in files:
        if table.suffix != "scans":
            continue
        rows, reason = _read_scans(table.path)
        fault = reason or fault
        by_name: dict[str, list[str]] = defaultdict(list)
        for file in files if rows else ():
            if file.suffix != "scans" and file.path.is_relative_to(table.path.parent):
                by_name[_stem(file.path.name)].append(str(file.path))
        for name, reason in rows:
            found = by_name[_stem(re.split(r"[/\\\\]", name)[-1])]
            exact = os.path.normpath(f"{table.path.parent}{os.sep}{name}")
            flagged.update(dict.fromkeys([exact] if exact in found else [exact, *found], reason))
            if not found and bids_names.suffix(name) in ("bold", "T1w"):
                fault = f"{notes.short(table.path.name)} leaves out {notes.short(name)}, which is not there"
    return flagged, fault


def _stem(name: str) -> str:
    return bids_names.same_scan(name.partition(".")[0])


def _read_scans(path: Path) -> tuple[list[tuple[str, str]], str | None]:
    """Files that a ``scans.tsv`` leaves out, each with the reason; and why it could not be read."""
    unread = f"{notes.short(path.name)} cannot be read ({{}}): nothing is left out by it"
    try:
        if missing := content_missing(path, path.stat().st_size):
            return [], f"{notes.short(path.name)} {missing}: nothing is left out by it"
        with path.open(encoding="utf-8-sig", newline="") as table:
            reader = csv.DictReader(table, delimiter="\t")
            header = list(reader.fieldnames or ())
            rows: list[dict[str, Any]] = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return [], unread.format(type(error).__name__)
    names = [name.strip().casefold() for name in header]
    columns = dict(zip(names, header, strict=True))
    column = next((columns[c] for c in EXCLUDE_COLUMNS if c in columns), None)
    if column is not None and names.count(column.strip().casefold()) > 1:
        return [], unread.format("two columns of one name")
    if column is None or "filename" not in columns:
        meant = any("exclude" in name for name in names)
        return [], unread.format("no tabs, or no column filename") if meant else None
    left_out = []
    for row in rows:
        cell, name = row[column], str(row[columns["filename"]] or "").strip()
        if name and str(cell or "").strip().casefold() not in USED:
            left_out.append(
                (name.lstrip("/"), f"left out by scans.tsv ({str(column).strip()}: {notes.quote(cell)})")
            )
    return left_out, None


def _has(entities: Mapping[str, str], entity: str, values: Sequence[str]) -> bool:
    value = bids_names.unpadded(entities).get(entity, WITHOUT)
    return value in {bids_names.unpadded({entity: v})[entity] for v in values}


def _matching(patterns: tuple[str, ...], names: set[str]) -> str | None:
    """The first pattern that one of the names matches."""
    plain, starred = _compiled(patterns)
    for name in names:
        if name in plain:
            return plain[name]
    for pattern, expression in starred:
        if any(map(expression.fullmatch, names)):
            return pattern
    return None


@lru_cache(maxsize=8)
def _compiled(patterns: tuple[str, ...]) -> tuple[dict[str, str], list[tuple[str, re.Pattern[str]]]]:
    """Patterns without ``*`` by what they match, and the others as expressions."""
    plain, starred = {}, []
    for pattern in patterns:
        text = bids_names.same_scan(pattern.strip().removeprefix("./").rstrip("/"))
        if "*" in text:
            starred.append((pattern, re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)))
        else:
            plain[text] = pattern
    return plain, starred


@lru_cache(maxsize=8)
def _bidsignore(lines: tuple[str, ...]) -> Any:
    import pathspec

    return pathspec.GitIgnoreSpec.from_lines(lines)
