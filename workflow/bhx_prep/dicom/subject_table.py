"""The user's table from patients to subject labels. Only the labels are written to the dataset."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bhx_model.errors import ConfigError, DataError
from bhx_prep.dicom import identity
from bhx_prep.dicom.series import Series
from bhx_prep.io import bids_names, text_table

#: In place of a label: this patient is excluded.
LEFT_OUT = "n/a"


@dataclass(frozen=True)
class Visit:
    """A row: what one patient, or one day of a patient, becomes.

    Attributes
    ----------
    patient : str
    subject : str
        Label without ``sub-``; empty for excluded patients.
    session : str
        Label without ``ses-``; empty where there are none.
    date : str
        YYYYMMDD; empty for any day.
    line : int
        Of the table, for messages: nothing else of it may be shown.
    """

    patient: str
    subject: str
    session: str
    date: str
    line: int


def read(path: Path) -> list[Visit]:
    """Read the table.

    Raises
    ------
    ConfigError
        If it is missing, lacks a column, has labels that are none, names a patient or a subject twice.
    """
    if not path.is_file():
        raise ConfigError(
            f"there is no table of subjects {path}: `bhx ingest list IN --subjects {path.name}` begins one"
        )
    try:
        rows = text_table.read(path).rows
    except DataError as error:
        raise ConfigError(str(error)) from None
    header = [cell.strip().lower() for cell in rows[0]]
    for column in ("patient_id", "participant_id"):
        if header.count(column) != 1:
            raise ConfigError(f"{path}: needs one column {column}; its columns are {', '.join(header)}")
    visits = [_visit(path, n, dict(zip(header, row, strict=True))) for n, row in enumerate(rows[1:], 2)]
    if not visits:
        raise ConfigError(f"{path} names no patient: add a row for each")
    _check_patients(path, visits)
    _check_subjects(path, visits)
    return visits


def _visit(path: Path, line: int, row: dict[str, str]) -> Visit:
    patient = row["patient_id"].strip()
    subject = row["participant_id"].strip().removeprefix("sub-")
    session = row.get("session", "").strip().removeprefix("ses-")
    date = re.sub(r"[-./]", "", row.get("study_date", "").strip())
    session, date = ("" if value == LEFT_OUT else value for value in (session, date))
    if not patient or not subject:
        raise ConfigError(
            f"{path}, row {line}: patient_id or participant_id is empty; write n/a to leave a patient out"
        )
    if date and not _is_day(date):
        raise ConfigError(f"{path}, row {line}: study_date is no date: write it as 2024-01-31")
    if subject == LEFT_OUT:
        return Visit(patient, "", "", date, line)
    for value, what in ((subject, "participant_id"), (session, "session")):
        try:
            bids_names.check_label(value or "none", what)
        except DataError:  # the value is not shown: it may be the patient's id
            msg = f"{path}, row {line}: {what} is no BIDS label: use letters and digits only"
            raise ConfigError(msg) from None
    return Visit(patient, subject, session, date, line)


def _is_day(text: str) -> bool:
    """Whether a text is a day as DICOM has it, YYYYMMDD."""
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return re.fullmatch(r"(?:19|20)\d{6}", text) is not None


def _check_patients(path: Path, visits: Sequence[Visit]) -> None:
    rows = defaultdict(list)
    for visit in visits:
        rows[visit.patient].append(visit)
    for mine in rows.values():
        if len(mine) == 1:
            continue
        lines = " and ".join(str(visit.line) for visit in mine[:2])
        if len({visit.date for visit in mine}) < len(mine) or not all(visit.date for visit in mine):
            msg = f"{path}, rows {lines}: the same patient twice; give each visit its study_date and session, or remove one"
            raise ConfigError(msg)


def _check_subjects(path: Path, visits: Sequence[Visit]) -> None:
    rows, spelt = defaultdict(list), {}
    for visit in visits:
        if visit.subject:
            rows[visit.subject].append(visit)
            if spelt.setdefault(visit.subject.lower(), visit.subject) != visit.subject:
                raise ConfigError(
                    f"{path}, row {visit.line}: its label differs from another in capitals only"
                )
    for subject, mine in rows.items():
        sessions = [visit.session for visit in mine]
        if len(mine) > 1 and (len(set(sessions)) < len(mine) or not all(sessions)):
            lines = " and ".join(str(visit.line) for visit in mine[:2])
            msg = f"{path}, rows {lines}: sub-{subject} twice; give each visit a session of its own, or another label"
            raise ConfigError(msg)


def visit_of(visits: Sequence[Visit], series: Series, element: str) -> Visit | None:
    """Row of a series' patient and day; None if there is none."""
    wanted = series.patient if element == "PatientID" else series.name
    mine = [visit for visit in visits if visit.patient == wanted]
    return next((visit for visit in mine if visit.date in ("", series.date)), None)


def tells(visit: Visit, series: Series) -> bool:
    """Whether the labels of a row say who the patient is."""

    def plain(text: str) -> str:
        return re.sub(r"[\W_]+", "", text).lower()

    words = {plain(word) for word in series.identifying}
    labels = [plain(label) for label in (visit.subject, visit.session) if label]
    long = {word for word in words if len(word) >= identity.INSIDE}
    return any(
        label in words
        or identity.identifies(label, long)
        or (len(label) >= identity.INSIDE and any(word.startswith(label) for word in long))
        for label in labels
    )
