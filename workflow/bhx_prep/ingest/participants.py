"""The table of phenotypes (``participants.tsv``): which participants have which value, and why others have none.

Read for endpoints only. Its values never enter a shard.
"""

from __future__ import annotations

import difflib
import gzip
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from bhx_model.errors import DataError
from bhx_prep.config import config

#: Names of the column of ids, the first that is there counts. BIDS says `participant_id`; the others are in the
#: tables that ABIDE, ADHD-200 and UK Biobank publish.
ID_COLUMNS: Final = (
    "participant_id", "sub", "SUB_ID", "subject", "subject_id", "ScanDir ID", "eid",
)  # fmt: skip

#: Written where a value is not known.
MISSING: Final = ("", "n/a", "N/A", "NA", "na", "NaN", "nan")

_LABEL = re.compile(r"[A-Za-z0-9+]+")


def read(path: Path) -> pd.DataFrame:
    """Read a table of phenotypes.

    Separated by tabs, commas or semicolons; UTF-8, else Latin-1; ``.gz`` is unpacked.

    Parameters
    ----------
    path : Path

    Returns
    -------
    DataFrame
        One row per participant, index ``subject`` (label without ``sub-``), all values strings, NaN where unknown.
        ``attrs["excluded"]`` lists ``(id, reason)`` of rows that cannot be used: no label, or two that differ.

    Raises
    ------
    DataError
        If the file is missing, no table, empty, or has no column of ids.
    """
    text = _text(path)
    first = text.split("\n", 1)[0]
    separator = max("\t,;", key=first.count)
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            dtype=str,
            keep_default_na=False,
            na_values=list(MISSING),
            index_col=False,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        msg = f"{path} is not a table: {str(error).strip()}"
        raise DataError(msg) from error
    frame.columns = [str(name).strip() for name in frame.columns]
    twice = [name for name, n in Counter(frame.columns).items() if n > 1]
    if twice:
        msg = f"{path} has two columns {twice[0]!r}: rename one"
        raise DataError(msg)
    ids = next((name for name in ID_COLUMNS if name in frame.columns), None)
    if ids is None:
        msg = f"{path} has no column participant_id; it has: {_some(list(frame.columns))}"
        raise DataError(msg)
    if frame.empty:
        msg = f"{path} has no participants: there is a header only"
        raise DataError(msg)
    frame = frame.apply(lambda values: values.str.strip()).replace(list(MISSING), None)
    labels = ["" if pd.isna(label) else str(label).removeprefix("sub-") for label in frame[ids]]
    frame = frame.assign(**{ids: labels})
    frame.index = pd.Index(labels, name="subject")
    excluded = []
    for line, label in enumerate(labels, 2):
        if not label:
            excluded.append((f"line {line}", "has no id"))
        elif not _LABEL.fullmatch(label):
            excluded.append((label, f"{label!r} is not a subject label: only letters and digits may be used"))
    frame = frame.loc[[bool(_LABEL.fullmatch(label)) for label in labels], :].drop_duplicates()
    counts = Counter(map(str, frame.index))
    excluded += [
        (label, f"is {n} times in {path.name}, with different values") for label, n in counts.items() if n > 1
    ]
    frame = frame.loc[[counts[str(label)] == 1 for label in frame.index], :]
    frame.attrs["excluded"] = excluded
    return frame


def spelt_like(frame: pd.DataFrame, subjects: Iterable[str]) -> pd.DataFrame:
    """A table whose ids lost (or gained) leading zeros, with the ids of the subjects that have data.

    Spreadsheets make 50002 of 0050002, and so do the tables that ABIDE publishes beside folders ``sub-0050002``. An id
    is changed only if one subject and one row can be meant; the others stay, and are listed as subjects without a row.

    Parameters
    ----------
    frame : DataFrame
        From `read`.
    subjects : iterable of str
        Labels of the subjects with data.
    """
    rows, with_data = ({}, {})
    for found, labels in ((rows, map(str, frame.index)), (with_data, set(subjects))):
        for label in labels:
            found.setdefault(label.lstrip("0"), []).append(label)
    anew = {
        rows[bare][0]: with_data[bare][0]
        for bare in rows.keys() & with_data.keys()
        if bare.isdecimal() and len(rows[bare]) == len(with_data[bare]) == 1
    }
    renamed = frame.rename(index=anew)
    renamed.attrs = frame.attrs
    return renamed


def column(frame: pd.DataFrame, name: str, path: Path) -> pd.Series:
    """One column of a table that `read` returned.

    Parameters
    ----------
    frame : DataFrame
    name : str
        As in the table's header.
    path : Path
        Of the table, for the message.

    Raises
    ------
    DataError
        If there is no such column; the nearest one is named.
    """
    if name in frame.columns:
        return frame.loc[:, name]
    lower = {str(known).lower(): str(known) for known in frame.columns}
    near = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    hint = f"did you mean {lower[near[0]]!r}?" if near else f"it has: {_some(list(frame.columns))}"
    msg = f"{path} has no column {name!r}; {hint}"
    raise DataError(msg)


def values(
    frame: pd.DataFrame, name: str, subjects: Sequence[str], path: Path
) -> tuple[pd.Series, list[tuple[str, str]]]:
    """Values of a column for the subjects that have data, and which are excluded and why.

    Parameters
    ----------
    frame : DataFrame
        From `read`.
    name : str
        Of the column.
    subjects : sequence of str
        Labels of the subjects with usable data.
    path : Path
        Of the table, for messages.

    Returns
    -------
    values : Series of str
        Index: label, in the order of `subjects`; nothing unknown among them.
    excluded : list of (subject, reason)
        Subjects without a value, rows that `read` refused, and rows of subjects without data.

    Raises
    ------
    DataError
        As `column`.
    """
    known = {str(label): value for label, value in column(frame, name, path).items()}
    refused = dict(frame.attrs.get("excluded", []))
    # 50002 in the table and 0050002 in the folder names: the reason says so, nothing is guessed
    unpadded = {label.lstrip("0"): label for label in known}
    kept, excluded = {}, []
    for subject in dict.fromkeys(subjects):
        if subject in known:
            if pd.isna(known[subject]):
                excluded.append((subject, f"{name} is unknown (n/a) in {path.name}"))
            else:
                kept[subject] = known[subject]
        elif subject not in refused:
            near = unpadded.get(subject.lstrip("0"))
            hint = f", which has {near}: ids must be spelt alike" if near else ""
            excluded.append((subject, f"has data but no row in {path.name}{hint}"))
    excluded += refused.items()
    have_data = set(subjects)
    excluded += [(s, f"is in {path.name} but has no usable data") for s in known if s not in have_data]
    return pd.Series(kept, name=name, dtype="str").rename_axis("subject"), excluded


def mistakes(study: config.Config) -> list[str]:
    """What endpoints need and tables do not have: a line each, with its dotted path.

    A table that does not exist is no mistake yet: it may be added later.

    Parameters
    ----------
    study : Config
    """
    lines = []
    for name, endpoint in study.endpoints.items():
        path = study.cohorts[endpoint.cohort].phenotypes
        if not path.exists():
            continue
        try:
            frame = read(path)
        except DataError as error:
            lines.append(f"endpoints.{name}.cohort: {error}")
            continue
        for key, names in (("column", (endpoint.column,)), ("stratify", endpoint.stratify)):
            for wanted in names:
                try:
                    found = set(column(frame, wanted, path).dropna().astype(str))
                except DataError as error:
                    lines.append(f"endpoints.{name}.{key}: {error}")
                    continue
                absent = [c for c in endpoint.classes if not found & set(c.values)] if key == "column" else []
                there = f"in column {wanted!r} of {path}; there are: {_some(sorted(found))}"
                lines += [
                    f"endpoints.{name}.classes: no participant is {' or '.join(map(repr, c.values))} {there}"
                    for c in absent
                ]
    return lines


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except FileNotFoundError:
        msg = f"there is no table of phenotypes {path}: add it, or name it as `participants` of the cohort"
        raise DataError(msg) from None
    except (OSError, EOFError) as error:
        msg = f"{path} cannot be read: {error}"
        raise DataError(msg) from error
    if not content.strip():
        msg = f"{path} is empty"
        raise DataError(msg)
    if b"\0" in content:
        msg = f"{path} is not a table of text: save it as tab-separated UTF-8"
        raise DataError(msg)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _some(names: Sequence[str], n: int = 12) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
