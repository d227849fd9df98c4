"""Collect the reviews of a cohort's scans: one table, one page, and the number of decisions.

Examples
--------
::

    python -m bhx_prep.review.collect --cohort ward --index .bhx/index/ward.parquet --features results/ward/features \
        --batches B.json --decisions D.json --out results/ward
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.command_line import json_file, run_command
from bhx_model.errors import DataError
from bhx_prep.io import bids_names
from bhx_prep.review.decided import place_of
from bhx_prep.review.numbers import XCPD
from bhx_prep.review.page import Reports, page

logger = logging.getLogger(__name__)

Row = dict[str, Any]

#: Texts of the table, before its numbers.
TEXTS: Final = (
    "cohort", "subject", "session", "task", "run", "modality", "key", "state", "status", "reason", "overruled",
    "decision", "who", "when", "why", "strategy",
)  # fmt: skip
#: Numbers of the features' quality control, with what they are.
OWN: Final = {
    "mean_fd_mm": "mean framewise displacement (mm) that features.max_mean_fd_mm is compared with",
    "max_fd_mm": "largest framewise displacement (mm) of the frames that are used",
    "tsnr": "median over parcels of temporal mean / sd before denoising",
    "n_rois_covered": "parcels with enough coverage",
    "mean_coverage": "mean coverage of the parcels",
    "seconds": "length that is used (s)",
    "tr_s": "repetition time (s)",
    "n_frames": "frames",
    "n_kept": "frames that are used",
    "template_dice": "Dice of a T1's brain mask and the template's, on the model's grid",
    "template_correlation": "correlation of a T1 with the template, of structure of 4 to 12 mm",
}
#: Names of a row that no number of a ``desc-quality`` file takes the place of.
_NO_NUMBERS: Final = frozenset({*TEXTS, "synthetic", "notes", "batch", "ambiguous"})
#: What says that a decision excluded or kept a scan.
EXCLUDED_BY_DECISION: Final = "excluded by decision"
KEPT_BY_DECISION: Final = "kept by decision"


def collect(
    cohort: str, index: Path, features: Path, batches: Sequence[str], decisions: Sequence[Mapping[str, str]]
) -> list[Row]:
    """Rows of a cohort's scans.

    Parameters
    ----------
    cohort : str
    index : Path
        Of the cohort.
    features : Path
        Folder of its batches; pictures and their numbers are in the folder ``qc`` beside it.
    batches : sequence of str
        Their numbers, as in file names.
    decisions : sequence of mappings
        What people decided: `modality`, `key`, `decision`, `who`, `when`, `why`.

    Raises
    ------
    DataError
        If a table cannot be read.
    """
    columns = ["modality", "key", "subject", "session", "task", "run"]
    listed = {place_of(row): row for row in _read(index, columns).to_pylist()}
    decided = {place_of(row): row for row in decisions}
    named = Counter(_labels(row) for row in listed.values())
    rows = []
    for number in batches:
        drawn = features.with_name("qc") / f"batch-{number}.parquet"
        pictured = {place_of(row): row for row in _read(drawn).to_pylist()} if drawn.exists() else {}
        checked = features / f"batch-{number}" / "qc.parquet"
        asked = [name for name in pq.read_schema(checked).names if name not in ("fd_mm", "kept")]
        for row in _read(checked, asked).to_pylist():
            place = place_of(row)
            labels = listed.get(place) or _of_key(row)
            row |= {name: labels[name] for name in ("session", "task", "run")}
            row["task"] = row["task"] if row["modality"] == "bold" else None
            row |= {
                name: value
                for name, value in pictured.get(place, {}).items()
                if name not in _NO_NUMBERS and row.get(name) is None
            }
            row |= {name: decided.get(place, {}).get(name) for name in ("who", "when", "why")}
            row["cohort"] = cohort
            row["batch"] = number if pictured else None
            row["ambiguous"] = named[_labels(row)] > 1
            row["state"] = _state(row)
            rows.append(row)
    rows.sort(key=lambda row: (row["subject"], row["modality"], row["key"]))
    return rows


def _read(file: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(file, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{file} cannot be read ({type(error).__name__}): remove it to make it again"
        ) from error


def _labels(row: Row) -> tuple[str, ...]:
    """What a line of the decisions has to name a scan by."""
    run = bids_names.unpadded({"run": row["run"] or ""})["run"]
    task = row["task"] if row["modality"] == "bold" else None
    return row["subject"], row["session"] or "", task or "", run, row["modality"]


def _of_key(row: Row) -> Row:
    """Labels of a scan that is not in the index: a T1w that was merged of several."""
    found = bids_names.parse(row["key"].partition("_")[2])
    return {
        name: found.get(entity) for name, entity in (("session", "ses"), ("task", "task"), ("run", "run"))
    }


def _state(row: Row) -> str:
    if row["status"] != "ok":
        return EXCLUDED_BY_DECISION if row["decision"] == "exclude" else "excluded"
    return KEPT_BY_DECISION if row["overruled"] else "used"


def preprocessing_reports(folder: Path | None, subjects: Iterable[str]) -> dict[str, list[str]]:
    """Subject to the names of the pages that fMRIPrep wrote of it, one or one per session; those who have any.

    Parameters
    ----------
    folder : Path or None
        Of the derivatives.
    subjects : iterable of str
        Labels without ``sub-``.
    """
    found: dict[str, list[str]] = {}
    for file in sorted(folder.glob("sub-*.html")) if folder is not None else ():
        found.setdefault(bids_names.parse(file.name).get("sub", ""), []).append(file.name)
    return {subject: found[subject] for subject in subjects if subject in found}


def number_columns(rows: Iterable[Row]) -> dict[str, str]:
    """Names of the numbers of some rows to what they are: XCP-D's, ours, then what else `desc-quality` files have."""
    known = {*_NO_NUMBERS, *XCPD, *OWN}
    others = {
        name
        for row in rows
        for name, value in row.items()
        if name not in known and isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {**XCPD, **OWN, **dict.fromkeys(sorted(others), "of the preprocessing's desc-quality file")}


def to_table(rows: Sequence[Row], numbers: Iterable[str]) -> pa.Table:
    """The table of ``qc.parquet``."""
    fields = [
        *((name, pa.string()) for name in TEXTS),
        ("synthetic", pa.bool_()),
        ("notes", pa.list_(pa.string())),
    ]
    schema = pa.schema([*fields, *((name, pa.float64()) for name in numbers)])
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema)


def counts(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """How many scans of each modality are in each state."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row["modality"], Counter())[row["state"]] += 1
    return {modality: dict(sorted(states.items())) for modality, states in sorted(found.items())}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the rule ``collect_quality``."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.review.collect",
        description="Numbers of all scans of a cohort, and their page.",
        epilog="example: python -m bhx_prep.review.collect --cohort ward --index .bhx/index/ward.parquet"
        " --features results/ward/features --batches B.json --decisions D.json --out results/ward",
    )
    parser.add_argument("--cohort", required=True, help="name in the configuration")
    parser.add_argument("--index", required=True, type=Path, help="Parquet index of the cohort")
    parser.add_argument("--features", required=True, type=Path, help="folder of the batches' features")
    parser.add_argument(
        "--batches", required=True, type=json_file, metavar="FILE", help="JSON list of the cohort's batches"
    )
    parser.add_argument(
        "--decisions",
        required=True,
        type=json_file,
        metavar="FILE",
        help="JSON list of {modality, key, decision, who, when, why}",
    )
    parser.add_argument(
        "--reports", type=Path, metavar="DIR", help="folder of the derivatives, with fMRIPrep's sub-*.html"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the cohort's results")
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    rows = collect(args.cohort, args.index, args.features, args.batches, args.decisions)
    numbers = number_columns(rows)
    with atomic_write(args.out / "qc.parquet") as part:
        pq.write_table(to_table(rows, numbers), part, compression="zstd")
    shown = {name: text for name, text in numbers.items() if any(row.get(name) is not None for row in rows)}
    subjects = dict.fromkeys(row["subject"] for row in rows)
    reports = preprocessing_reports(args.reports, subjects)
    base = os.path.relpath(args.reports, args.out / "qc") if reports else ""
    html = page(
        args.cohort, rows, shown, Reports(base, reports), synthetic=any(row["synthetic"] for row in rows)
    )
    with atomic_write(args.out / "qc" / "index.html") as part:
        part.write_text(html, encoding="utf-8")
    found = counts(rows)
    write_json(args.out / "qc" / "counts.json", {"cohort": args.cohort, "scans": found})
    for modality, states in found.items():
        logger.info(
            "%s, %s: %s", args.cohort, modality, ", ".join(f"{n} {state}" for state, n in states.items())
        )


if __name__ == "__main__":
    sys.exit(main())
