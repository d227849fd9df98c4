"""Covariates of subjects besides their images: age, sex, site, head motion and acquisition.

A row per subject of the shards. Age, sex, site, scan year, and where it names one the motion, are columns of the table
of phenotypes that the cohort's section names; the rest is read from shards, quality control and image headers.

Examples
--------
::

    python -m bhx_prep.evaluation.baselines.covariates --shards results/patients/shards/index.json
        --index results/patients/index.parquet --qc results/patients/features/*/qc.parquet
        --participants participants.tsv --table T.json --columns C.json --out results/patients/covariates.parquet
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.atomic_write import atomic_write
from bhx_model.command_line import json_file, run_command
from bhx_model.errors import ConfigError, DataError
from bhx_model.evaluation.labels import Labels
from bhx_prep.config.cohorts import TableSettings
from bhx_prep.config.section import read_section
from bhx_prep.ingest import participants
from bhx_prep.ingest.cell_values import category, numbers_of, years_of
from bhx_prep.io.notes import brief
from bhx_prep.shards import read as shards

logger = logging.getLogger(__name__)

#: Columns of the file; text is a category, a number a number.
SCHEMA: Final = pa.schema(
    [
        pa.field("cohort", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        ("age", pa.float64()),
        ("sex", pa.string()),
        ("site", pa.string()),
        ("scan_year", pa.float64()),
        ("mean_fd_mm", pa.float64()),
        ("tr_s", pa.float64()),
        ("run_s", pa.float64()),
        ("n_runs", pa.float64()),
        ("voxel_mm", pa.float64()),
    ]
)
#: What each method reads.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "age_sex": ("age", "sex"),
    "site": ("site",),
    "motion": ("mean_fd_mm",),
    "acquisition": ("tr_s", "run_s", "n_runs", "voxel_mm", "scan_year"),
}
#: Columns of the table of phenotypes that a configuration may name, and what they become.
NAMED: Final[Mapping[str, str]] = {
    "age": "age",
    "sex": "sex",
    "site": "site",
    "scan_year": "scan_year",
    "motion": "mean_fd_mm",
}


@dataclass(frozen=True)
class Covariates:
    """Covariates of the subjects of one cohort or several."""

    synthetic: bool
    """Whether any of the data were made, not measured."""
    cohorts: tuple[str, ...]
    rows: dict[str, dict[str, Any]]
    """``cohort/label`` to what is known, None where it is not."""


def collect(
    cohort: shards.PackedCohort,
    index: Path,
    qc: Sequence[Path],
    table: participants.Participants | None,
    columns: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Covariates of every subject in the shards, rows of `SCHEMA`.

    Parameters
    ----------
    cohort : PackedCohort
    index : Path
        Index of the cohort's scans.
    qc : sequence of Path
        QC tables of its batches.
    table : Participants or None
        Its table of phenotypes, where any column of it is named.
    columns : mapping
        Of `NAMED`, to the column's name.

    Raises
    ------
    DataError
        If a column that is named is not there.
    """
    bold = _runs(cohort)
    subjects = sorted(bold.keys() | shards.subjects(cohort, "t1w"))
    found = {subject: dict.fromkeys(SCHEMA.names, None) for subject in subjects}
    motion, voxels = _motion(qc), _voxel_mm(index)
    for subject, row in found.items():
        runs = bold.get(subject, [])
        row |= {"cohort": cohort.name, "subject": subject}
        row |= {"n_runs": float(len(runs)) if runs else None, "voxel_mm": voxels.get(subject)}
        row |= {"tr_s": _mean([tr_s for tr_s, _ in runs]), "run_s": _mean([tr_s * n for tr_s, n in runs])}
        row["mean_fd_mm"] = _mean(motion.get(subject, []))
    if table is not None:
        table = table.match(subjects)
        for key, name in columns.items():
            for subject, value in _values(key, table.column(name)).items():
                if subject in found:
                    found[subject][NAMED[key]] = value
    return list(found.values())


def _runs(cohort: shards.PackedCohort) -> dict[str, list[tuple[float, int]]]:
    """Repetition time (s) and number of frames of the runs of every subject."""
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for shard in cohort.index["shards"]["bold"]:
        listed = shards.shard_list(cohort, shard)
        for subject, tr_s, n in zip(listed["subject"], listed["tr_s"], listed["n_frames"], strict=True):
            found[subject].append((tr_s, n))
    return found


def _motion(qc: Sequence[Path]) -> dict[str, list[float]]:
    """Mean framewise displacement (mm) of the usable runs of every subject, where it is known."""
    found: dict[str, list[float]] = defaultdict(list)
    for file in qc:
        for row in pq.read_table(file, columns=["subject", "modality", "status", "mean_fd_mm"]).to_pylist():
            if row["modality"] == "bold" and row["status"] == "ok" and row["mean_fd_mm"] is not None:
                found[row["subject"]].append(row["mean_fd_mm"])
    return found


def _voxel_mm(index: Path) -> dict[str, float]:
    """Edge (mm) of a cube as large as a voxel of a subject's first usable BOLD volume."""
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError

    found: dict[str, float] = {}
    columns = ["subject", "modality", "status", "kind", "path"]
    for row in pq.read_table(index, columns=columns).to_pylist():
        usable = row["modality"] == "bold" and row["status"] == "ok" and row["kind"] in ("raw", "volume")
        if usable and row["subject"] not in found:
            try:
                zooms = nib.load(row["path"]).header.get_zooms()[:3]  # pyright: ignore[reportAttributeAccessIssue]
            except (OSError, ImageFileError) as error:  # gone since it was indexed
                logger.info("voxel size of %s is not known: %s", row["subject"], error)
                continue
            found[row["subject"]] = float(np.prod(zooms) ** (1 / 3))
    return found


def _values(key: str, column: participants.Column) -> Mapping[str, float | str]:
    if key in ("sex", "site"):
        return {subject: category(cell) for subject, cell in column.known.items()}
    if key == "scan_year":
        return years_of(column.known)
    return numbers_of(column.known, brief(column.name))[0]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def write(rows: Sequence[Mapping[str, Any]], path: Path, *, synthetic: bool) -> None:
    """Write the file of one cohort."""
    schema = SCHEMA.with_metadata({"bhx": json.dumps({"synthetic": synthetic})})
    with atomic_write(path) as part:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), part)


def read(path: Path) -> Covariates:
    """Read the file.

    Raises
    ------
    DataError
        If it is no such file.
    """
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[b"bhx"])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        msg = f"{path} is no file of covariates ({type(error).__name__}): remove it and make it again"
        raise DataError(msg) from error
    rows = {f"{row['cohort']}/{row['subject']}": row for row in table.to_pylist()}
    cohorts = tuple(dict.fromkeys(row["cohort"] for row in rows.values()))
    return Covariates(bool(about["synthetic"]), cohorts, rows)


def join(tables: Sequence[Covariates]) -> Covariates:
    """Covariates of several cohorts."""
    return Covariates(
        any(table.synthetic for table in tables),
        tuple(cohort for table in tables for cohort in table.cohorts),
        {one: row for table in tables for one, row in table.rows.items()},
    )


def encode(table: Covariates, group: str, labels: Labels) -> tuple[np.ndarray, int]:
    """Numbers that a linear model reads: values, a column for each category of the training subjects, and what is missing.

    Parameters
    ----------
    table : Covariates
    group : str
        Of `GROUPS`.
    labels : Labels

    Returns
    -------
    features : ndarray, (N, P) float32
        NaN for a missing number, beside an indicator that it is missing; a category that nobody has in training is none.
    n_missing : int
        Subjects of whom nothing is known.

    Raises
    ------
    DataError
        If nothing is known of any training subject.
    """
    people, fitted = labels.people, labels.fitted
    parts: list[np.ndarray] = []
    anything = np.zeros(len(people), bool)
    for name in GROUPS[group]:
        cells = [table.rows.get(one, {}).get(name) for one in people]
        there = np.array([cell is not None for cell in cells])
        if not there[fitted].any():
            continue
        anything |= there
        if SCHEMA.field(name).type == pa.string():
            levels = sorted(
                {cell for cell, own in zip(cells, fitted, strict=True) if own and cell is not None}
            )
            parts += [np.array([[cell == level] for cell in cells], np.float32) for level in levels]
        else:
            parts.append(np.array([[np.nan if cell is None else cell] for cell in cells], np.float32))
        if not there.all():
            parts.append((~there[:, None]).astype(np.float32))
    if not parts:
        known = " or ".join(key for key, name in NAMED.items() if name in GROUPS[group])
        msg = (
            f"{' and '.join(GROUPS[group])} of {labels.cohort} is not known of any training subject: name the column as "
            f"`columns: {{{known}: ..}}` of the cohort, or leave out method {group}"
        )
        raise DataError(msg)
    return np.concatenate(parts, axis=1), int((~anything).sum())


def main(argv: Sequence[str] | None = None) -> int:
    """Write the covariates of a cohort; 0 when written, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.evaluation.baselines.covariates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--shards", required=True, type=Path, help="index.json of the cohort's shards")
    add("--index", required=True, type=Path, help="index of its scans")
    add("--qc", required=True, nargs="+", type=Path, help="QC tables of its batches")
    add("--participants", type=Path, help="its table of phenotypes, where columns of it are named")
    add("--table", type=json_file, default={}, metavar="FILE", help="how it is read (TableSettings), as JSON")
    add(
        "--columns", type=json_file, default={}, metavar="FILE", help="its columns by what they hold, as JSON"
    )
    add("--out", required=True, type=Path)
    args = parser.parse_args(argv)

    def run() -> None:
        cohort, table = shards.read_index(args.shards), None
        if unknown := args.columns.keys() - NAMED.keys():
            msg = f"{sorted(unknown)[0]!r} is no covariate; there are {', '.join(NAMED)}"
            raise ConfigError(msg)
        if args.columns:
            if args.participants is None:
                raise ConfigError("columns are named, but no table: name it with --participants")
            settings = read_section(TableSettings, args.table)
            table = participants.read(args.participants, settings, list(dict.fromkeys(args.columns.values())))
        rows = collect(cohort, args.index, args.qc, table, args.columns)
        write(rows, args.out, synthetic=bool(cohort.index["synthetic"]))

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
