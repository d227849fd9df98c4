"""``bhx ingest``: convert DICOM files to a BIDS dataset by the user's map, without what identifies the subjects."""

from __future__ import annotations

import argparse
import csv
import io
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import ConfigError, DataError

if TYPE_CHECKING:
    from bhx_prep.dicom.plan import Planned
    from bhx_prep.dicom.series import Found, Series

logger = logging.getLogger(__name__)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx ingest``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    one = actions.add_parser(
        "dicom",
        help="convert the series that a map names with dcm2niix; prints a table of all series to stdout",
        epilog="example: bhx ingest dicom dicom bids --map map.yaml > series.tsv",
    )
    one.add_argument(
        "source", type=Path, metavar="IN", help="folder with DICOM files, in any order; only read"
    )
    one.add_argument("out", type=Path, metavar="OUT", help="BIDS dataset; existing files are not changed")
    one.add_argument(
        "--map", type=Path, required=True, help="the map: what each series becomes, and the table of subjects"
    )
    one.add_argument("--dry-run", action="store_true", help="print the table, write nothing")
    two = actions.add_parser(
        "list",
        help="print a table of the series in a folder, with patients as numbers",
        epilog="example: bhx ingest list dicom --subjects subjects.tsv",
    )
    two.add_argument("source", type=Path, metavar="IN", help="folder with DICOM files")
    two.add_argument(
        "--subjects",
        type=Path,
        metavar="FILE",
        help="write a table of the patients' ids and labels, for you to edit",
    )


def command(args: argparse.Namespace) -> int:
    """Run ``bhx ingest``."""
    return {"dicom": ingest_dicom, "list": list_series}[args.action](args)


def ingest_dicom(args: argparse.Namespace) -> int:
    """Convert the series that a map names.

    Raises
    ------
    ConfigError
        If the map, the table of subjects or the folders cannot be used.
    DataError
        If some series were not converted; the others are.
    SiteError
        If dcm2niix is missing.
    """
    from bhx_prep.dicom import dataset, ingest, plan, series, series_map, subject_table

    mapping = series_map.load(args.map)
    dataset.check_places(args.source, args.out, {"the map": args.map, "the table": mapping.subjects})
    visits = subject_table.read(mapping.subjects)
    found = series.read_folder(args.source)
    planned = plan.plan(found.series, mapping, visits)
    _log_others(found)
    try:
        ingest.check_mapping(planned, mapping, args.map)
        if not args.dry_run:
            ingest.write(planned, mapping, args.out)
    finally:
        print_table(plan.COLUMNS, [one.row() for one in planned])
    _conclude(planned, args.out, mapping.subjects, mapping.deface == "none")
    if found.broken:
        raise DataError(
            f"{len(found.broken)} files of {args.source} cannot be read as DICOM: copy them again"
        )
    return 0


def _conclude(planned: Sequence[Planned], out: Path, table: Path, faces: bool) -> None:
    from bhx_prep.dicom import plan

    outcomes = Counter(one.outcome for one in planned)
    logger.info(
        "%s: %s", out, ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    )
    if outcomes[plan.UNKNOWN]:
        logger.warning(
            "%d of the series fit no rule of the map: see the rows `unknown` of the table",
            outcomes[plan.UNKNOWN],
        )
    if faces and any(one.file and "/anat/" in one.file for one in planned):
        logger.warning("faces are left in the anatomical images: `deface: face` in the map cuts them off")
    if outcomes[plan.NO_LABEL]:
        lost = len({one.series.patient for one in planned if one.outcome == plan.NO_LABEL})
        msg = (
            f"{lost} patients (or days of theirs) are not in {table.name}: `bhx ingest list IN --subjects FILE` lists "
            "the ids; write n/a as participant_id to leave one out"
        )
        raise DataError(msg)
    if outcomes[plan.FAILED]:
        first = next(one for one in planned if one.outcome == plan.FAILED)
        raise DataError(
            f"{outcomes[plan.FAILED]} series were not converted, e.g. series {first.series.number}: {first.reason}"
        )


def list_series(args: argparse.Namespace) -> int:
    """Print the series of a folder; write a table of subjects if requested.

    Raises
    ------
    ConfigError
        If there are no DICOM files, or the table is there.
    """
    from bhx_prep.dicom import series

    if args.subjects is not None and args.subjects.exists():
        raise ConfigError(f"{args.subjects} is there: name another file, and copy the rows that it lacks")
    found = series.read_folder(args.source)
    patients = sorted({one.patient for one in found.series})
    days = {patient: sorted({s.date for s in found.series if s.patient == patient}) for patient in patients}
    print_table(
        ("patient", "day", "number", "description", "protocol", "image_type", "images", "vendor", "reason"),
        [
            _listed(one, patients.index(one.patient) + 1, days[one.patient].index(one.date) + 1)
            for one in found.series
        ],
    )
    _log_others(found)
    if args.subjects is not None:
        with atomic_write(args.subjects) as part:
            part.write_text(_skeleton(days), encoding="utf-8")
        args.subjects.chmod(0o600)
        logger.info("%s: patients: %d; keep it apart from the dataset", args.subjects, len(patients))
    return 0


def _listed(one: Series, patient: int, day: int) -> dict[str, str]:
    description, protocol = one.shown
    image_type = " ".join(sorted(one.image_type))
    reason = one.faults[0] if one.faults else ("" if one.images else "no MR image")
    values = {
        "patient": str(patient),
        "day": str(day),
        "number": "" if one.number is None else str(one.number),
        "description": description,
        "protocol": protocol,
        "image_type": image_type,
        "images": str(len(one.files)),
        "vendor": one.vendor,
        "reason": reason,
    }
    return {key: " ".join(value.split()) or "n/a" for key, value in values.items()}


def _skeleton(days: Mapping[str, Sequence[str]]) -> str:
    """A table of subjects: a row per patient, or per day of one who came more than once."""
    sessions = any(len(dates) > 1 for dates in days.values())
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(["patient_id", "participant_id", *(["session", "study_date"] if sessions else [])])
    width = max(2, len(str(len(days))))
    for number, (patient, dates) in enumerate(days.items(), 1):
        for visit, date in enumerate(dates, 1):
            more = [str(visit), date] if sessions else []
            table.writerow([patient, f"{number:0{width}d}", *more])
            if not sessions:
                break
    return text.getvalue()


def _log_others(found: Found) -> None:
    if found.others:
        logger.info("%d files are not DICOM files of a series and are ignored", found.others)
    if found.archives:
        logger.warning("%d archives are not read: unpack them first", found.archives)
    if found.broken:
        logger.warning(
            "%d files cannot be read, nor the series beside them: copy them again", len(found.broken)
        )


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Print a table as TSV; texts of headers bring no tabs or line ends into it."""
    writer = csv.DictWriter(
        sys.stdout, columns, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, escapechar="\\"
    )
    writer.writeheader()
    writer.writerows(rows)
