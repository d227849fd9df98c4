"""FreeSurfer's regional volumes and cortical thickness, from fMRIPrep's output or from a table.

Of a folder of FreeSurfer subjects are read ``stats/aseg.stats`` (volumes, mm^3) and ``stats/{lh,rh}.aparc.stats`` (mean
thickness, mm), which recon-all writes for every subject; sessions of a subject are averaged. A table has a row per
subject and a column of numbers per region.

Fischl 2012, doi:10.1016/j.neuroimage.2012.01.021.

Examples
--------
::

    python -m bhx_prep.evaluation.baselines.volumes --shards results/patients/shards/index.json
        --source derivatives/sourcedata/freesurfer --out results/patients/volumes.npz
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from bhx_model.command_line import json_file, run_command
from bhx_model.errors import DataError
from bhx_model.evaluation import feature_table
from bhx_model.evaluation.feature_table import FeatureTable
from bhx_prep.config.cohorts import TableSettings
from bhx_prep.config.section import read_section
from bhx_prep.ingest import participants
from bhx_prep.ingest.cell_values import numbers_of
from bhx_prep.io.notes import short
from bhx_prep.shards import read as shards

logger = logging.getLogger(__name__)

#: Files of a subject, and which of their columns is read.
FILES: Final[Mapping[str, str]] = {
    "aseg.stats": "Volume_mm3",
    "lh.aparc.stats": "ThickAvg",
    "rh.aparc.stats": "ThickAvg",
}
#: Rows of aseg.stats that are no regions of the brain, or empty in most people.
_NO_REGION: Final = re.compile(r"WM-hypointensities|non-WM|5th-Ventricle|vessel|Optic-Chiasm")
_INTRACRANIAL: Final = re.compile(r"# Measure EstimatedTotalIntraCranialVol,[^,]*,[^,]*, *([0-9.eE+-]+)")


def of_freesurfer(folder: Path, subjects: Sequence[str]) -> dict[str, dict[str, float]]:
    """Regions of the subjects that FreeSurfer has finished.

    Parameters
    ----------
    folder : Path
        Of ``sub-<label>`` or ``sub-<label>_ses-<label>`` folders.
    subjects : sequence of str
        Labels.

    Returns
    -------
    dict
        Subject to region to volume (mm^3) or thickness (mm).

    Raises
    ------
    DataError
        If a file is no table of FreeSurfer's.
    """
    found = {}
    for subject in subjects:
        runs = [_of_run(one / "stats") for one in _folders(folder, subject)]
        runs = [run for run in runs if run]
        if runs:
            names = [name for name in runs[0] if all(name in run for run in runs)]
            found[subject] = {name: float(np.mean([run[name] for run in runs])) for name in names}
    return found


def _folders(folder: Path, subject: str) -> Iterator[Path]:
    if (own := folder / f"sub-{subject}").is_dir():
        yield own
    yield from sorted(one for one in folder.glob(f"sub-{subject}_ses-*") if ".long." not in one.name)


def _of_run(stats: Path) -> dict[str, float]:
    """Regions of one reconstruction; none where it has not finished."""
    if not all((stats / name).exists() for name in FILES):
        return {}
    regions: dict[str, float] = {}
    for name, column in FILES.items():
        text = (stats / name).read_text(encoding="utf-8", errors="replace")
        side = "" if name == "aseg.stats" else f"{name[:2]}_"
        rows = {f"{side}{region}": value for region, value in _rows(stats / name, text, column)}
        regions |= {region: value for region, value in rows.items() if not _NO_REGION.search(region)}
        if not side and (total := _INTRACRANIAL.search(text)):
            regions["EstimatedTotalIntraCranialVol"] = float(total[1])
    return regions


def _rows(path: Path, text: str, column: str) -> Iterator[tuple[str, float]]:
    header = next((line.split()[2:] for line in text.splitlines() if line.startswith("# ColHeaders")), [])
    if not {"StructName", column} <= set(header):
        msg = (
            f"{short(str(path))} has no columns StructName and {column}: run FreeSurfer of this subject again"
        )
        raise DataError(msg)
    name, value = header.index("StructName"), header.index(column)
    for line in text.splitlines():
        cells = line.split()
        if not line.startswith("#") and len(cells) == len(header):
            try:
                yield cells[name], float(cells[value])
            except ValueError as error:
                msg = f"{short(str(path))}: {column} of {cells[name]} is no number: run FreeSurfer again"
                raise DataError(msg) from error


def of_table(path: Path, settings: TableSettings, subjects: Sequence[str]) -> dict[str, dict[str, float]]:
    """Regions of the subjects of a table: its columns of numbers.

    Raises
    ------
    DataError
        If it cannot be read, or has no column of numbers.
    """
    table = participants.read(path, settings).match(subjects)
    found: dict[str, dict[str, float]] = {subject: {} for subject in subjects if subject in table.rows}
    columns = 0
    for name in table.names[1:]:
        numbers, refused, _ = numbers_of(table.column(name).known, name)
        if not numbers or refused:  # text: a session, a version
            continue
        columns += 1
        for subject in found.keys() & numbers.keys():
            found[subject][name] = numbers[subject]
    if not columns:
        msg = f"{table.file} has no column of numbers: a column per region was expected"
        raise DataError(msg)
    return found


def compute(packed: shards.PackedCohort, source: Path, settings: TableSettings) -> FeatureTable:
    """Regions of the subjects in a cohort's shards, of every one that has any.

    Parameters
    ----------
    packed : PackedCohort
    source : Path
        Folder of FreeSurfer subjects, or a table.
    settings : TableSettings
        How a table is read.

    Raises
    ------
    DataError
        If nobody has any.
    """
    cohort = packed.name
    subjects = sorted(shards.subjects(packed, "bold") | shards.subjects(packed, "t1w"))
    if source.is_dir():
        found = of_freesurfer(source, subjects)
    elif source.exists():
        found = of_table(source, settings, subjects)
    else:
        msg = f"{short(str(source))} is not there: name FreeSurfer's folder or a table as `morphometry` of {cohort}"
        raise DataError(msg)
    if not found:
        msg = f"no subject of {cohort} has finished stats in {short(str(source))}: leave out method volumes"
        raise DataError(msg)
    logger.info("%s: %d of %d subjects have regional morphometry", cohort, len(found), len(subjects))
    columns = list(dict.fromkeys(name for regions in found.values() for name in regions))
    values = np.array(
        [[regions.get(name, np.nan) for name in columns] for regions in found.values()], np.float32
    )
    people = [f"{cohort}/{subject}" for subject in found]
    return FeatureTable("volumes", bool(packed.index["synthetic"]), (cohort,), people, columns, values)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the regions of a cohort; 0 when written, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.evaluation.baselines.volumes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--shards", required=True, type=Path, help="index.json of the cohort's shards")
    add("--source", required=True, type=Path, help="folder of FreeSurfer subjects, or a table")
    add(
        "--table",
        type=json_file,
        default={},
        metavar="FILE",
        help="how a table is read (TableSettings), as JSON",
    )
    add("--out", required=True, type=Path)
    args = parser.parse_args(argv)

    def run() -> None:
        settings = read_section(TableSettings, args.table)
        feature_table.write(compute(shards.read_index(args.shards), args.source, settings), args.out)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
