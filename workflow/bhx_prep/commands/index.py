"""``bhx index``: how many scans of a cohort are usable, why the others are not, and what was assumed."""

from __future__ import annotations

import argparse
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bhx_model.errors import BhxError, ConfigError, DataError, format_error
from bhx_prep.config import config
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import participants
from bhx_prep.ingest.index import CACHE, load
from bhx_prep.io import notes

logger = logging.getLogger(__name__)

Row = dict[str, Any]

# lines of a list on one screen
_MOST = 8


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bhx index``."""
    parser.add_argument("cohorts", nargs="*", metavar="COHORT", help="cohorts to list (default: all)")
    parser.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="configuration (config.yaml)"
    )
    parser.add_argument(
        "--refresh", action="store_true", help="read every file again, even if nothing seems to have changed"
    )
    parser.add_argument(
        "--notes", action="store_true", help="list every note: what was assumed about each scan"
    )
    parser.add_argument(
        "--duplicates",
        action="store_true",
        help="list folders, subjects and series that occur twice in the study",
    )


def command(args: argparse.Namespace) -> int:
    """Index cohorts and print what a user has to know of them."""
    study = config.load(args.config)
    cohorts, t1w_mm = study.cohorts, study.features.t1w_resolution_mm
    for name in args.cohorts:
        if name not in cohorts:
            msg = f"no cohort {name!r} in {args.config}; there are: {', '.join(cohorts)}"
            raise ConfigError(msg)
    failed, tables = False, {}
    for name in args.cohorts or cohorts:
        if args.refresh:
            (CACHE / f"{name}.json").unlink(missing_ok=True)
        try:
            table = load(CACHE, name, cohorts[name], t1w_mm=t1w_mm)
        except (BhxError, OSError) as error:
            logger.error("%s", format_error(error))
            failed = True
            continue
        tables[name] = table
        print(summary(table))
        if line := participants_line(cohorts[name], table):
            print(line)
        if args.notes:
            print("\n".join(all_notes(table)))
        print(f"  all rows: {CACHE / name}.parquet\n")
    if args.duplicates:
        from bhx_prep.commands import duplicates  # NumPy, which a plain list has no use for

        asked = {name: cohorts[name] for name in args.cohorts or cohorts}
        for line in duplicates.lines(study.results, asked, tables):
            print(line)
    return int(failed)


def summary(table: pa.Table, most: int = _MOST) -> str:
    """What a user has to know of an index, on one screen.

    Parameters
    ----------
    table : pyarrow.Table
        An index of one cohort, not empty.
    most : int
        Reasons, and kinds of notes, to print.
    """
    columns = ["cohort", "input", "subject", "modality", "tr_s", "n_frames", "status", "reason", "notes"]
    rows = table.select(columns).to_pylist()
    subjects = {row["subject"] for row in rows}
    usable = {row["subject"] for row in rows if row["status"] == "ok"}
    lines = [
        f"{rows[0]['cohort']} (input {rows[0]['input']}): {len(usable):,} of {_count(len(subjects), 'subject')} usable"
    ]
    for modality in ("bold", "t1w"):
        states = Counter(row["status"] for row in rows if row["modality"] == modality)
        lines.append(f"  {modality:<5}{states['ok']:>7} usable {states['excluded']:>7} excluded")
    lines += _lengths([r for r in rows if r["modality"] == "bold" and r["status"] == "ok"])
    lines += _reasons(rows, most)
    lines += _kinds(rows, most)
    return "\n".join(lines)


def participants_line(cohort: CohortSection, table: pa.Table) -> str | None:
    """How many subjects have a row in the table of phenotypes, and its columns; None where there is no table."""
    path = cohort.phenotypes
    if not path.exists():
        return None
    subjects = set(table["subject"].to_pylist())
    try:
        found = participants.read(path, cohort.table, columns=()).match(subjects)
    except DataError as error:
        return f"  {path.name} cannot be used: {error}"
    with_row = len(subjects & found.rows.keys())
    columns = [name for name in found.header if name != found.names[0]]
    more = f" and {len(columns) - _MOST} more" if len(columns) > _MOST else ""
    refused = f"; {_count(len(found.excluded), 'row')} cannot be used" if found.excluded else ""
    return (
        f"  {path.name}: a row for {with_row:,} of {_count(len(subjects), 'subject')}{refused}; columns"
        f" {', '.join(name[:40] for name in columns[:_MOST]) or 'none'}{more}"
    )


def _lengths(runs: Sequence[Row]) -> Iterator[str]:
    """Repetition times, and how long the usable runs are."""
    times = Counter(round(run["tr_s"], 4) for run in runs if run["tr_s"])
    if times:
        shown = [f"{tr:g} s ({n:,})" for tr, n in sorted(times.items())]
        more = f" and {len(shown) - _MOST} more" if len(shown) > _MOST else ""
        yield f"  repetition time {', '.join(shown[:_MOST])}{more}"
    minutes = [r["tr_s"] * r["n_frames"] / 60 for r in runs if r["tr_s"] and r["n_frames"]]
    if minutes:
        unknown = (
            f"; of {len(runs) - len(minutes):,} known when they are read" if len(minutes) < len(runs) else ""
        )
        yield f"  length {min(minutes):.1f} to {max(minutes):.1f} min{unknown}"


def _reasons(rows: Sequence[Row], most: int) -> Iterator[str]:
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        if row["status"] != "ok":
            reasons[row["modality"], _anybody(row, row["reason"])].append(row["subject"])
    ranked = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    for (modality, reason), excluded in ranked[:most]:
        yield f"  {len(excluded):>7} {modality} (sub-{excluded[0]}{', ..' if len(excluded) > 1 else ''}): {reason}"
    if len(ranked) > most:
        yield f"          and {_count(len(ranked) - most, 'further reason')}"


def _kinds(rows: Sequence[Row], most: int) -> Iterator[str]:
    """Kinds of notes of the usable scans, each with its most frequent detail."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row["status"] == "ok":
            for note in row["notes"] or ():
                kinds[notes.kind_of(note)][_anybody(row, note.partition(": ")[2])] += 1
    ranked = sorted(kinds.items(), key=lambda item: (-item[1].total(), item[0]))
    if ranked:
        yield "  notes (`bhx index --notes` lists them):"
    for kind, details in ranked[:most]:
        (detail, n), *others = details.most_common()
        more = f", and {_count(len(others), 'other detail')}" if others else ""
        yield f"  {details.total():>7} {kind}: {detail}{f' ({n:,})' if others else ''}{more}"


def all_notes(table: pa.Table) -> list[str]:
    """A line for every note of the usable scans."""
    rows = table.select(["key", "modality", "status", "notes"]).to_pylist()
    usable = [row for row in rows if row["status"] == "ok"]
    return [f"  {row['key']} {row['modality']}: {note}" for row in usable for note in row["notes"] or ()]


def _anybody(row: Row, sentence: str) -> str:
    """A reason or note without the subject: those that name the file differ from subject to subject."""
    return sentence.replace(f"sub-{row['subject']}_", "sub-*_")


def _count(n: int, thing: str) -> str:
    return f"1 {thing}" if n == 1 else f"{n:,} {thing}s"
