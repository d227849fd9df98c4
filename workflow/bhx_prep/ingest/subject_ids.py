"""Match ids of tables with labels of subjects, however they are spelt.

BIDS takes letters and digits only, so NDAR_INV0A1 is in the folder sub-NDARINV0A1; spreadsheets make 50002 or 50002.0
of 0050002. Two ids are brought together where nobody else can be meant; ids that could be one subject are refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.io.notes import quote

#: Names of the column of ids, the first that is there counts; case, spaces and underscores do not matter. BIDS says
#: `participant_id`; the others are in the tables of ABIDE, ADHD-200, UK Biobank, ABCD, HCP, PPMI and ADNI, and in
#: those that COINS, LORIS and REDCap write.
ID_COLUMNS: Final = (
    "participant_id", "participants_id", "sub", "SUB_ID", "subject", "subject_id", "ScanDir ID", "eid",
    "participant.eid", "src_subject_id", "subjectkey", "PATNO", "PTID", "URSI", "PSCID", "CandID", "participant",
    "record_id", "id",
)  # fmt: skip
#: Of them those that may as well count rows: where another column could hold ids, somebody has to say which does.
_VAGUE: Final = frozenset({"id", "recordid"})
_NOT_OF_PERSONS = re.compile(
    r"fam|site|ses|visit|event|scanner|group|cent|mother|father|twin|project|batch|room|release|proto|device|exam|image"
    r"|coil|pair",
    re.IGNORECASE,
)
_IDS = re.compile(
    r".+[_. #-][Ii][Dd]s?|.*[a-z]I[Dd]s?"
    r"|.*([Ss][Uu][Bb][Jj]\w*|[Pp]articipant)[_. -]?([Ll]abel|[Cc]ode|[Nn]o|[Nn]r|[Nn]umber)"
)

_MONTH = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DATE = re.compile(
    rf"\d{{1,2}}[- ]({_MONTH})[a-z]*([- ]\d{{2,4}})?|({_MONTH})[a-z]*[- ]\d{{2,4}}"
    r"|\d{4}-\d{1,2}-\d{1,2}([ T][\d:.]+)?|\d{1,2}([./])\d{1,2}\5\d{2,4}",
    re.IGNORECASE,
)
_SCIENTIFIC = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)
_PREFIX = re.compile(r"sub[-_]", re.IGNORECASE)
_WHOLE = re.compile(r"(\d+)[.,]0+")
_THOUSANDS = re.compile(r"\d{1,3}[.,]000")
_LONGEST = 100
_LABEL = re.compile(r"[A-Za-z0-9+]+")


def find_id_column(names: Collection[str], known: Iterable[str] = ()) -> str | None:
    """The column that holds ids, None where there is none.

    Parameters
    ----------
    names : collection of str
        Of the columns.
    known : iterable of str
        What a known data set calls it, before `ID_COLUMNS`.
    """
    exact, plain = set(names), {}
    wanted = (*known, *ID_COLUMNS)
    for name in wanted:
        if name in exact:
            return name
    forms = {_plain(name) for name in wanted}
    for name in names:
        if len(name) < 40 and (form := _plain(name)) in forms:
            plain.setdefault(form, name)
    return next((plain[_plain(name)] for name in wanted if _plain(name) in plain), None)


def other_id_column(names: Collection[str], column: str) -> str | None:
    """Another column that could hold ids, where the one that was found may as well count rows; else None."""
    if _plain(column) not in _VAGUE:
        return None
    return next(
        (n for n in names if n != column and _IDS.fullmatch(n[:80]) and not _NOT_OF_PERSONS.search(n)), None
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_.#-]", "", name).lower()


def label_of(text: str) -> str:
    """The subject's label that corresponds to an id of a table, as a BIDS folder has it after ``sub-``.

    Raises
    ------
    DataError
        If it can be none, with the reason.
    """
    if _DATE.fullmatch(text):
        msg = f"{quote(text)} is a date, which spreadsheets make of ids such as MAR1 or 1-3: write the id again, as text"
        raise DataError(msg)
    if _SCIENTIFIC.fullmatch(text):
        msg = f"{quote(text)} is a rounded number, which spreadsheets make of long ids: write the id again, as text"
        raise DataError(msg)
    text = text.removeprefix("'")  # by which spreadsheets keep a number as text
    label = _PREFIX.sub("", text, count=1) if _PREFIX.match(text) else text
    if _THOUSANDS.fullmatch(label):
        msg = f"{quote(text)} may be a thousand or a whole number, as spreadsheets write ids: write the id again, as text"
        raise DataError(msg)
    if whole := _WHOLE.fullmatch(label):
        label = whole[1]
    label = re.sub(r"[_-]", "", label)
    if len(label) > _LONGEST:
        msg = f"{quote(text)} has {len(text):,} characters, more than a subject label has"
        raise DataError(msg)
    if not _LABEL.fullmatch(label):
        msg = f"{quote(text)} is not a subject label: only letters and digits may be used"
        raise DataError(msg)
    return label


def may_be_id(text: str) -> bool:
    """Whether a cell may hold an id; a description of the column has words, or nothing."""
    return bool(text.strip()) and not re.search(r"\s", text.strip())


def of_sessions(ids: Iterable[str], subjects: Iterable[str]) -> dict[str, str]:
    """Ids that begin with a subject's label before ``_`` or ``-``, as ``001_1`` for session 1 of 001, to that subject."""
    forms = {_form(subject): subject for subject in subjects}
    found = {}
    for text in ids:
        parts = re.split(r"[_-]", _PREFIX.sub("", text, count=1))
        heads = ("".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
        if head := next((head for head in heads if _form(head) in forms), None):
            found[text] = forms[_form(head)]
    return found


def written_alike(ids: Collection[str]) -> bool:
    """Whether several ids of one label are one id, but for ``sub-``."""
    return len({re.sub(r"^sub-", "", one) for one in ids}) <= 1


def bring_together(
    labels: Iterable[str], subjects: Iterable[str]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Find the subjects that labels of a table mean.

    Labels that are spelt alike mean each other. The others are compared without regard to case and to leading zeros of
    numbers, and mean each other where one label and one subject only can be meant.

    Parameters
    ----------
    labels : iterable of str
        Of rows of a table, from `label_of`.
    subjects : iterable of str
        Labels of the subjects with data.

    Returns
    -------
    anew : dict
        Label of the table to the subject that it means, where the two differ.
    unclear : dict
        Subject without a row to the labels that could mean it, where several subjects or labels could.
    """
    rows, with_data = defaultdict(list), defaultdict(list)
    for found, group in ((set(labels), rows), (set(subjects), with_data)):
        for label in sorted(found):
            group[_form(label)].append(label)
    anew: dict[str, str] = {}
    unclear: dict[str, list[str]] = {}
    for form in rows.keys() & with_data.keys():
        in_table, there = rows[form], with_data[form]
        if len(in_table) == len(there) == 1:
            if in_table != there:
                anew[in_table[0]] = there[0]
        else:
            unclear |= {subject: in_table for subject in there if subject not in in_table}
    return anew, unclear


def _form(label: str) -> str:
    """A label without regard to case and leading zeros."""
    return label.lstrip("0") or "0" if label.isdecimal() else label.lower()
