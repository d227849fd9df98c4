"""The table of phenotypes (``participants.tsv``): values of participants, and why others have none.

Read for endpoints and for families only. Its values never enter a shard.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import TableSettings
from bhx_prep.ingest import delimited, layouts, subject_ids
from bhx_prep.ingest.cell_values import UNKNOWN, KnownValues, MissingValues, listed, number_of, same
from bhx_prep.io import notes

#: Names of the column that tells several rows of a participant apart, without regard to case.
SESSION_COLUMNS: Final = frozenset(
    {"session_id", "session", "ses", "visit", "visit_id", "eventname", "event_id", "viscode", "timepoint", "wave"}
)  # fmt: skip

#: A number that `missing` names and that more participants have is no family.
LARGEST_FAMILY: Final = 20
#: Written for a participant without relatives, besides what is unknown in any column.
NO_FAMILY: Final = frozenset(
    {"none", "no", "unknown", "missing", "-", "--", "?", "single", "singleton", "unrelated"}
)

_SETTINGS = TableSettings()


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name : str
    known : dict
        Subject to cell, for those whose value is known.
    unknown : dict
        Subject to the reason why it is not.
    differing : set of str
        Those of them whose rows differ.
    missing : Counter
        How often each cell that means unknown is there, empty ones among them.
    """

    name: str
    known: dict[str, str]
    unknown: dict[str, str]
    differing: set[str]
    missing: Counter[str]

    def notes(self) -> list[str]:
        """What was assumed: which cells were read as unknown."""
        codes = {cell: n for cell, n in self.missing.most_common() if cell}
        if not codes:
            return []
        some = ", ".join(f"{notes.quote(cell)} ({n} x)" for cell, n in list(codes.items())[:3])
        more = f" and {len(codes) - 3} other codes" if len(codes) > 3 else ""
        return [notes.note(notes.Kind.TABLE, f"{notes.brief(self.name)}: read as unknown are {some}{more}")]


@dataclasses.dataclass(frozen=True)
class Participants:
    """A table of phenotypes, or the columns of it that were asked for.

    Attributes
    ----------
    path : Path
    header : tuple of str
        Names of all columns of the file.
    names : tuple of str
        Of the columns that were read, the column of ids first.
    rows : dict
        Subject to its rows, a cell for every one of `names`.
    excluded : dict
        Ids of rows that cannot be used, to the reason.
    missing : MissingValues
    renamed : dict
        Id in the table to the subject's label, where `match` brought together what is spelt differently.
    unclear : dict
        Subject without a row to ids that could mean it.
    spelt : callable
        The label that a known data set makes of an id.
    """

    path: Path
    header: tuple[str, ...]
    names: tuple[str, ...]
    rows: dict[str, list[list[str]]]
    excluded: dict[str, str]
    missing: MissingValues
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    unclear: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    spelt: Callable[[str], str] = str

    @property
    def file(self) -> str:
        """Name of the file, for a sentence."""
        return notes.short(self.path.name)

    @cached_property
    def session(self) -> str | None:
        """The column that distinguishes several rows of a participant."""
        return next((name for name in self.header if name.lower() in SESSION_COLUMNS), None)

    def match(self, subjects: Iterable[str]) -> Participants:
        """The table with the labels of the subjects that have data in the place of its ids.

        See `bhx_prep.ingest.subject_ids.bring_together`.
        """
        with_data = set(subjects)
        ids = {label: cells[0][0] for label, cells in self.rows.items()}
        plain = {subject: self.spelt(subject) for subject in with_data}
        of = Counter(plain.values())
        plain = {s: p for s, p in plain.items() if p != s and of[p] == 1 and p not in with_data}
        back = {p: s for s, p in plain.items()}
        anew, unclear = subject_ids.bring_together(self.rows, {plain.get(s, s) for s in with_data})
        anew |= {p: p for p in back.keys() & self.rows.keys()}
        anew = {label: back.get(subject, subject) for label, subject in anew.items()}
        unclear = {back.get(subject, subject): labels for subject, labels in unclear.items()}
        renamed = {ids[label]: anew.get(label, label) for label in self.rows}
        renamed = {i: label for i, label in renamed.items() if i.removeprefix("sub-") != label}
        excluded = dict(self.excluded)
        meant = [i for i, label in renamed.items() if label in with_data]
        for i, shorter in subject_ids.of_sessions(meant, with_data).items():
            excluded[renamed[i]] = (
                f"{notes.quote(i)} of {self.file} may be a session of sub-{shorter}: spell it as the folder"
            )
        of = {anew.get(label, label): cells for label, cells in self.rows.items()}
        rows = {label: cells for label, cells in of.items() if label not in excluded}
        renamed = {i: label for i, label in renamed.items() if label not in excluded}
        return dataclasses.replace(self, rows=rows, excluded=excluded, renamed=renamed, unclear=unclear)

    def of(self, subjects: Collection[str]) -> Participants:
        """The table with the rows of some subjects only."""
        rows = {subject: self.rows[subject] for subject in self.rows if subject in subjects}
        return dataclasses.replace(self, rows=rows)

    def column(self, name: str, values: Collection[str] = ()) -> Column:
        """One column.

        Where a participant has several rows, its value is what all of them say, unknown cells aside.

        Parameters
        ----------
        name : str
            As in the header.
        values : collection of str
            Cells that are known whatever else they might mean, such as a class called NA.

        Raises
        ------
        DataError
            If there is no such column; the nearest one is named.
        """
        place = self._place(name)
        kept, title = KnownValues(values), notes.brief(name)
        known, unknown, differing = {}, {}, set()
        missing: Counter[str] = Counter()
        for subject, rows in self.rows.items():
            cells = []
            for row in rows:
                cell = row[place]
                if kept.find(cell) is None and cell in self.missing:
                    missing[cell] += 1
                else:
                    cells.append(cell)
            if not cells:
                unknown[subject] = (
                    f"{title} is unknown ({notes.brief(rows[0][place]) or 'empty'}) in {self.file}"
                )
            elif same(cells):
                known[subject] = cells[0]
            else:
                differing.add(subject)
                first = ", ".join(notes.quote(cell, 24) for cell in list(dict.fromkeys(cells))[:2])
                unknown[subject] = (
                    f"{title} differs between its {len(rows)} rows ({first}): keep one {notes.brief(self.session or 'row')}"
                    " per participant"
                )
        return Column(name, known, unknown, differing, missing)

    def _place(self, name: str) -> int:
        if name in self.names:
            return self.names.index(name)
        if name in self.header:
            msg = f"column {name!r} of {self.file} was not read"
            raise AssertionError(msg)
        lower = {known.lower(): known for known in self.header}
        near = difflib.get_close_matches(name.lower(), list(lower)[: delimited.MOST_COLUMNS], n=1, cutoff=0.5)
        hint = f"did you mean {notes.quote(lower[near[0]])}?" if near else f"it has: {listed(self.header)}"
        msg = f"{self.file} has no column {notes.quote(name)}; {hint}"
        raise DataError(msg)

    def notes(self) -> list[str]:
        """What was assumed about ids and rows."""
        found = []
        if self.renamed:
            first = next(iter(self.renamed.items()))
            what = f"{len(self.renamed)} ids of {self.file} are spelt otherwise than the subjects', e.g."
            found.append(f"{what} {notes.quote(first[0])} for {notes.short(first[1])}")
        several = sum(len(rows) > 1 for rows in self.rows.values())
        if several:
            found.append(f"{several} participants have several rows in {self.file}; used where they agree")
        return [notes.note(notes.Kind.TABLE, text) for text in found]


def read(
    path: Path, settings: TableSettings = _SETTINGS, columns: Sequence[str] | None = None
) -> Participants:
    """Read a table of phenotypes.

    See `bhx_prep.ingest.delimited.read_cells` for the text, and `bhx_prep.ingest.subject_ids.label_of` for the ids.

    Parameters
    ----------
    path : Path
    settings : TableSettings
        What the cohort's section says of its table.
    columns : sequence of str, optional
        The columns that are needed; all when None.

    Returns
    -------
    Participants
        Rows that cannot be used are in `excluded`: no label, too few cells, or two ids that could be one subject.

    Raises
    ------
    DataError
        If the file is missing, no table, empty, or has no column of ids.
    """
    file = notes.short(path.name)
    cells = _cells(path, settings, columns)
    spelt = layouts.load(settings.layout).label if settings.layout else str
    content = cells.rows
    if settings.second_header and content and not subject_ids.may_be_id(content[0][1][0]):
        content = content[1:]  # of the user's own table the second line may be a participant
    excluded: dict[str, str] = {}
    n = len(cells.header)
    for line, count, first in cells.short:
        where = notes.brief(first.removeprefix("sub-")) or f"line {line}"
        excluded[where] = f"its line {line} has {count} cells, the header {n}: write n/a into empty cells"
    rows: dict[str, list[list[str]]] = {}
    for line, row in content:
        if not any(row):
            continue
        if not row[0]:
            excluded[f"line {line}"] = "has no id"
            continue
        try:
            rows.setdefault(subject_ids.label_of(spelt(row[0])), []).append(row)
        except DataError as error:
            excluded[notes.brief(row[0].removeprefix("sub-"))] = str(error)
    if not rows and not excluded:
        msg = f"{file} has no participants: there is a header only"
        raise DataError(msg)
    _drop_unusable(rows, excluded, file)
    missing = MissingValues(settings.missing)
    return Participants(path, tuple(cells.header), tuple(cells.names), rows, excluded, missing, spelt=spelt)


def _cells(path: Path, settings: TableSettings, columns: Sequence[str] | None) -> delimited.Cells:
    """Cells of the needed columns, that of the ids first."""
    if (stated := settings.id_column) is not None:
        return delimited.read_cells(path, lambda names: stated if stated in names else None, columns, stated)
    find_ids = partial(subject_ids.find_id_column, known=settings.id_columns)
    cells = delimited.read_cells(path, find_ids, columns)
    if other := subject_ids.other_id_column(cells.header, cells.names[0]):
        msg = (
            f"{notes.short(path.name)} may have the ids in {notes.quote(cells.names[0])} or in {notes.quote(other)}: "
            "name the column as `id_column` of the cohort"
        )
        raise DataError(msg)
    return cells


def _drop_unusable(rows: dict[str, list[list[str]]], excluded: dict[str, str], file: str) -> None:
    """Remove subjects of whom a row has too few cells, or whose ids could be those of two; the latter's reason is added."""
    for label, mine in list(rows.items()):
        ids = list(dict.fromkeys(row[0] for row in mine))
        if not subject_ids.written_alike(ids):
            excluded[label] = (
                f"{file} has {listed([notes.quote(i, 24) for i in ids])}, which would be one subject: rename one"
            )
            del rows[label]
        elif label in excluded:  # another row of it has too few cells
            del rows[label]


def values(
    table: Participants, name: str, subjects: Sequence[str], classes: Collection[str] = ()
) -> tuple[Column, dict[str, str]]:
    """Values of a column for the subjects that have data, and which are excluded and why.

    Parameters
    ----------
    table : Participants
        After `Participants.match`.
    name : str
        Of the column.
    subjects : sequence of str
        Labels of the subjects with usable data.
    classes : collection of str
        As of `Participants.column`.

    Returns
    -------
    column : Column
        Of these subjects, in their order.
    excluded : dict
        Subjects without a value, rows that `read` refused, and rows of subjects without data, to the reason.

    Raises
    ------
    DataError
        As `Participants.column`.
    """
    with_data = dict.fromkeys(subjects)
    everyone = table.column(name, classes)
    mine = {subject: table.rows[subject] for subject in with_data if subject in table.rows}
    column = dataclasses.replace(table, rows=mine).column(name, classes)
    excluded = dict(column.unknown)
    for subject in with_data:
        if subject not in table.rows and subject not in table.excluded:
            near = table.unclear.get(subject, [])
            hint = f", which has {listed(near, 60)}: spell ids alike" if near else ""
            excluded[subject] = f"has data but no row in {table.file}{hint}"
    excluded |= table.excluded
    no_data = f"is in {table.file} but has no usable data"
    excluded |= {s: no_data for s in everyone.known if s not in with_data}
    return column, excluded


def families(table: Participants, name: str) -> dict[str, str]:
    """Subject to the id of its family, for those who have one.

    Numbers of `missing`, such as 777, may be families as well: they are, unless they are negative or have more members than
    `LARGEST_FAMILY`. Where an id of a family is the id of a participant, that participant is one of them.

    Raises
    ------
    DataError
        If there is no such column, or a participant has two families.
    """
    codes = table.column(name).missing
    numbers = {cell: number_of(cell) for cell, n in codes.items() if n <= LARGEST_FAMILY}
    column = table.column(
        name, [cell for cell, number in numbers.items() if number is not None and number >= 0]
    )
    for subject in sorted(column.differing)[:1]:
        msg = f"sub-{subject}: {column.unknown[subject]}"
        raise DataError(msg)
    found = {subject: _family(cell) for subject, cell in column.known.items() if not _is_unknown(cell)}
    return _with_relatives(table, found)


def _family(cell: str) -> str:
    number = number_of(cell)
    return " ".join(cell.lower().split()) if number is None else f"{number:.17g}"


def _is_unknown(cell: str) -> bool:
    return cell.lower() in UNKNOWN | NO_FAMILY or (number_of(cell) or 0) < 0


def _with_relatives(table: Participants, families: dict[str, str]) -> dict[str, str]:
    """Families of which those are one that name a participant of the other, as a column with the id of a twin does."""
    named = {_family(rows[0][0].removeprefix("sub-")): subject for subject, rows in table.rows.items()}
    same: dict[str, str] = {}

    def root(family: str) -> str:
        while family in same:
            family = same[family]
        return family

    joined = dict(families)
    for family in sorted(set(families.values())):
        relative = named.get(_family(family.removeprefix("sub-")))
        if relative is None:
            continue
        if family.isdecimal():  # families may be counted, as participants are: only who is named in return
            own = families.get(relative, family)
            if len(family) < 4 or (own != family and families.get(named.get(own, "")) != family):
                continue
        first, second = root(family), root(joined.setdefault(relative, family))
        if first != second:
            same[max(first, second)] = min(first, second)
    return {subject: root(family) for subject, family in joined.items()}


def has_row(path: Path, subject: str, settings: TableSettings = _SETTINGS) -> bool:
    """Whether a table has a row that is or could be a subject's, however it is spelt.

    Raises
    ------
    DataError
        As `read`.
    """
    table = read(path, settings, columns=())
    labels = {*table.rows, *table.excluded}
    anew, unclear = subject_ids.bring_together(labels, [subject])
    return subject in labels or subject in anew.values() or subject in unclear
