"""Checks that need a whole cohort: whether any run is usable, the order of ROIs, and duplicates.

A cohort whose series are clearly in another order than it states is refused here, before it has an index of shards that
anything could be trained on. What cannot be decided is a note of the report, and a warning in the log.

Examples
--------
::

    python -m bhx_prep.features.check_cohort --cohort ward --features results/ward/features --batches B.json \
        --templates results/templates --out results/ward/check.json
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.atomic_write import write_json
from bhx_model.command_line import json_file, run_command
from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import load_atlas
from bhx_prep.atlas.reference import load_reference
from bhx_prep.features import duplicates, roi_order, series_files
from bhx_prep.features.table_columns import AS_GIVEN
from bhx_prep.ingest.rows import NO_BOLD
from bhx_prep.io import notes

logger = logging.getLogger(__name__)

#: Runs whose connectivity is computed at most; those of larger cohorts are drawn by the hash of their key.
MOST_COMPARED: Final = 500
#: Pairs that the report lists at most.
MOST_LISTED: Final = 1000

# what differs between the files of subjects, sessions and runs
_FILE_NAME: Final = re.compile(r"sub-[A-Za-z0-9+]+_(?:ses-[A-Za-z0-9+]+_)?")
_QC_COLUMNS: Final = ("subject", "key", "modality", "status", "reason", "strategy", "sha256")


@dataclass(frozen=True)
class Quality:
    """What the QC tables of a cohort say of its runs.

    Attributes
    ----------
    n_used, n_excluded : int
        BOLD runs.
    n_volumes : int
        T1 volumes that can be used.
    reasons : Counter
        Why BOLD runs are excluded.
    volume_reasons : Counter
        Why T1 volumes are.
    are_tables : bool
        Whether the series were parcellated by other software.
    same_volumes : tuple of (str, str)
        Keys of T1 volumes of two subjects that are the same, byte for byte.
    """

    n_used: int
    n_excluded: int
    n_volumes: int
    reasons: Counter[str]
    volume_reasons: Counter[str]
    are_tables: bool
    same_volumes: tuple[tuple[str, str], ...] = ()


def read_quality(files: Sequence[Path]) -> Quality:
    """Read the QC tables of a cohort's batches.

    Raises
    ------
    DataError
        If one cannot be read.
    """
    used, excluded, volumes, tables = 0, 0, 0, 0
    reasons: Counter[str] = Counter()
    of_volumes: Counter[str] = Counter()
    first: dict[str, tuple[str, str]] = {}
    same = []
    for file in files:
        try:
            rows = pq.ParquetFile(file).read(columns=list(_QC_COLUMNS)).to_pylist()
        except (OSError, pa.ArrowException) as error:
            msg = f"{file} cannot be read ({error}): extract the features of this batch again"
            raise DataError(msg) from error
        for row in rows:
            if row["modality"] != "bold":
                volumes += row["status"] == "ok"
                if row["status"] == "ok" and row.get("sha256"):
                    subject, key = first.setdefault(row["sha256"], (row["subject"], row["key"]))
                    if subject != row["subject"]:
                        same.append((key, row["key"]))
                if row["status"] != "ok":
                    of_volumes[_FILE_NAME.sub("sub-*_", row["reason"])] += 1
            elif row["status"] == "ok":
                used += 1
                tables += row["strategy"] == AS_GIVEN
            else:
                excluded += 1
                reasons[_FILE_NAME.sub("sub-*_", row["reason"])] += 1
    return Quality(used, excluded, volumes, reasons, of_volumes, 2 * tables > used, tuple(same))


def check(
    cohort: str, features: Path, batches: Sequence[str], templates: Path, *, refuses: bool = True
) -> dict[str, Any]:
    """Check a cohort; the value of its ``check.json``.

    Parameters
    ----------
    cohort : str
    features : Path
        Folder of its batches.
    batches : sequence of str
        Numbers of the batches, as in file names.
    templates : Path
        Folder of `bhx_prep.atlas.fetch`.
    refuses : bool
        Whether another order of ROIs is an error; else it is a note.

    Raises
    ------
    DataError
        If no run can be used, or the series are clearly in another order than is stated.
    ConfigError
        If the templates cannot be used.
    """
    folders = [features / f"batch-{number}" for number in batches]
    quality = read_quality([folder / "qc.parquet" for folder in folders])
    noted: list[str] = []
    if not quality.n_used:
        noted.append(_without_runs(cohort, quality))
    stored = series_files.list_runs([folder / series_files.FILE for folder in folders])
    comparison = compare_order(stored, templates)
    _log(cohort, comparison)
    if comparison.verdict == "other":
        sentence = order_sentence(cohort, comparison, are_tables=quality.are_tables)
        if refuses:
            raise DataError(sentence)
        noted.append(notes.note(notes.Kind.ORDER, sentence))
    elif quality.n_used:
        noted += [notes.note(notes.Kind.ORDER, detail) for detail in _doubts(comparison, stored.atlas)]
    same = duplicates.find_same([stored])
    found = {
        notes.Kind.DUPLICATES: [(pair.first, pair.second) for pair in same],
        notes.Kind.SAME_T1W: quality.same_volumes,
    }
    for kind, keys in found.items():
        if keys:
            pairs = "1 pair" if len(keys) == 1 else f"{len(keys):,} pairs"
            noted.append(notes.note(kind, f"{pairs}, such as {keys[0][0]} and {keys[0][1]}"))
    for text in noted:
        logger.warning("%s: %s", cohort, text)
    return {
        "cohort": cohort,
        "atlas": stored.atlas,
        "runs": {
            "usable": quality.n_used,
            "excluded": quality.n_excluded,
            "compared": comparison.n_runs,
        },
        "order": roi_order.to_json(comparison),
        "duplicates": [pair.to_json() for pair in same[:MOST_LISTED]],
        "n_duplicates": len(same),
        "same_t1w": [list(keys) for keys in quality.same_volumes[:MOST_LISTED]],
        "notes": noted,
    }


def compare_order(stored: series_files.StoredRuns, templates: Path) -> roi_order.Comparison:
    """Compare the connectivity of at most `MOST_COMPARED` runs with the atlas's.

    Raises
    ------
    ConfigError, DataError
        If templates or series cannot be read.
    """
    atlas, reference = load_atlas(templates), load_reference(templates)
    if stored.runs and stored.roi_sha256 != atlas.roi_sha256:
        msg = f"the features are not of {atlas.label}, or in another order of ROIs: extract them again"
        raise DataError(msg)
    drawn = sorted(stored.runs, key=lambda run: hashlib.sha256(run.key.encode()).digest())[:MOST_COMPARED]
    drawn.sort(key=lambda run: (run.file, run.row))
    orders = roi_order.known_orders(reference, atlas.hemisphere, atlas.subcortical, atlas.names)
    return roi_order.compare(reference, orders, ((run.key, run.series()) for run in drawn))


def order_sentence(cohort: str, comparison: roi_order.Comparison, *, are_tables: bool) -> str:
    """Say in which order the series are, by which numbers, and what to do."""
    found, stated = comparison.best, comparison.stated
    what, r = next(iter(comparison.correlations.items()))
    if found in comparison.others and len(comparison.others[found]) < comparison.n_runs // 2 + 1:
        keys = sorted(comparison.others[found])
        return (
            f"cohort {cohort}: {len(keys)} of {comparison.n_runs} runs are in {found}, such as {keys[0]}, the others in"
            f" the {stated}: give their tables ROI names, or leave them out (cohorts.{cohort}.exclude)"
        )
    if not are_tables:
        remedy = "bring atlas.names into the order of its labels"
    elif networks := re.fullmatch(r"(\d+)-network order", found):
        remedy = f"set atlas.networks: {networks[1]}, or correct their names"
    else:
        remedy = "correct their rows or names"
    return (
        f"cohort {cohort}: the series are in {found}: correlation with {what} {_short(r[found])} against"
        f" {_short(r[stated])} in the stated {stated.removeprefix('stated ')}; {remedy}"
    )


def _short(r: float) -> str:
    """A correlation as in papers: .75."""
    return f"{r:.2f}".replace("0.", ".", 1)


def _doubts(comparison: roi_order.Comparison, atlas: str) -> list[str]:
    """What a cohort that passes leaves open."""
    if comparison.verdict == "skipped":
        return [f"of the ROIs of {atlas} nothing but names is known, their order is taken as given"]
    doubts = []
    if comparison.verdict == "unclear":
        what, r = next(iter(comparison.correlations.items()))
        doubts.append(
            f"no order of {atlas} stands out (correlation with {what} {_short(r[comparison.stated])} as stated): few"
            " frames, simulated series, or another atlas"
        )
    for name, keys in comparison.others.items():
        doubts.append(f"{len(keys)} of {comparison.n_runs} runs are in {name}, such as {min(keys)}")
    return doubts


def _without_runs(cohort: str, quality: Quality) -> str:
    """The note of a cohort that has T1 volumes alone.

    Raises
    ------
    DataError
        If there are runs, or nothing at all can be used.
    """
    refused = [(reason, n) for reason, n in quality.reasons.most_common() if not reason.startswith(NO_BOLD)]
    if quality.n_volumes and not refused:
        return notes.note(notes.Kind.NO_RUNS, f"{quality.n_volumes} T1 volumes")
    if not refused and quality.volume_reasons:
        total, (reason, n) = quality.volume_reasons.total(), quality.volume_reasons.most_common(1)[0]
        msg = f"cohort {cohort}: it has no BOLD run, and none of its {total} T1 volumes can be used: {reason} ({n})"
        raise DataError(msg)
    total = sum(n for _, n in refused) or quality.n_excluded
    parts = [f"{reason} ({n})" for reason, n in (refused or quality.reasons.most_common())[:2]]
    if len("; ".join(parts)) > 220:
        parts = parts[:1]
    raise DataError(f"cohort {cohort}: none of its {total} BOLD runs can be used: {'; '.join(parts)}")


def _log(cohort: str, comparison: roi_order.Comparison) -> None:
    for what, r in comparison.correlations.items():
        beyond = comparison.beyond_rows[what]
        logger.info("%s: correlation of %d runs with %s, by order of ROIs:", cohort, comparison.n_runs, what)
        for name in sorted(r, key=lambda name: -beyond[name])[:5]:
            logger.info("  %6.3f (%.3f beyond neighbouring rows) %s", r[name], beyond[name], name)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the rule ``check_cohort``."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.features.check_cohort",
        description="Check the order of ROIs of a cohort's series, and find runs that are there twice.",
        epilog="example: python -m bhx_prep.features.check_cohort --cohort ward --features results/ward/features"
        " --batches B.json --templates results/templates --out results/ward/check.json",
    )
    parser.add_argument("--cohort", required=True, help="name in the configuration")
    parser.add_argument("--features", required=True, type=Path, help="folder of the batches' features")
    parser.add_argument(
        "--batches", required=True, type=json_file, metavar="FILE", help="JSON list of the cohort's batches"
    )
    parser.add_argument("--templates", required=True, type=Path, help="folder of bhx_prep.atlas.fetch")
    parser.add_argument(
        "--order-check", choices=("refuse", "note"), default="refuse", help="what another order of ROIs is"
    )
    parser.add_argument("--out", required=True, type=Path, help="the report, a JSON file")
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    refuses = args.order_check == "refuse"
    write_json(args.out, check(args.cohort, args.features, args.batches, args.templates, refuses=refuses))


if __name__ == "__main__":
    sys.exit(main())
