"""Read the names and label numbers of an atlas's ROIs from the text files that atlases come with."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.io import text_table
from bhx_prep.io.notes import quote

#: Largest list of names, bytes; FreeSurfer's lookup table of all its labels has 0.1 MB.
MAX_BYTES: Final = 10_000_000
#: What stands at labels that are no parcel.
BACKGROUND: Final = re.compile(
    r"(.*[ _-])?(unknown|unassigned|corpus ?callosum|medial[ _-]?wall)|\?\?\?|background.*|none|clear label",
    re.IGNORECASE,
)
#: Columns of names and of numbers in a table with a header, the best first; before the last three of the names comes any
#: that ends in ``name``. A column of numbers names nothing where another column does.
_NAME_COLUMNS: Final = (
    "name", "label_name", "roi_name", "roi name", "region_name", "names", "label", "roi", "region", "parcel",
)  # fmt: skip
_NUMBER_COLUMNS: Final = (
    "index", "label_index", "number", "no.", "id", "value", "intensity", "key",
    "roi label", "regionid", "region_id", "roi_id", "parcelid", "component", "label", "roi", "region", "parcel",
)  # fmt: skip
#: Second line of each pair in a label list of Connectome Workbench: number and colour.
_WORKBENCH: Final = re.compile(r"(\d+)( \d+){4}")
#: A line of FreeSurfer's and CBIG's lookup tables: number, name, colour.
_LOOKUP: Final = re.compile(r"(\d+)\s+(\S.*?)(?:\s+\d{1,3}){3,4}")
#: A line of ITK-SNAP's label descriptions: number, colour, three switches, name.
_ITKSNAP: Final = re.compile(r"(\d+)(?:\s+\d+){3}\s+[\d.]+\s+[01]\s+[01]\s+\"(.*)\"")
_NUMBERED: Final = re.compile(r"(\d+)[ \t]+(\S.*)")
#: A line of R's ``write.table``.
_OF_R: Final = re.compile(r'"(\d+)" "(.*)"')
#: A line of SPM's AAL: code, name, number.
_AAL: Final = re.compile(r"[A-Z0-9]+\t(\S+)\t(\d+)")

Rows = list[tuple[int | None, str]]


@dataclass(frozen=True)
class LabelList:
    """What a list of labels holds.

    Attributes
    ----------
    names : tuple of str
        R names, by rising number where the list states numbers.
    numbers : tuple of int, or None
        Value of each in label files; None where the list states none.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...] | None = None


def read_label_list(path: Path, where: str | None = None) -> LabelList:
    """Read names one a line, or a table of numbers and names.

    Known tables: FreeSurfer's and CBIG's lookup tables, BIDS' ``dseg.tsv`` and other TSV and CSV files with a header,
    label lists of Connectome Workbench, label descriptions of ITK-SNAP, and lines of a number and a name. Number 0
    with the name of a background is left out. Text may have any encoding.

    Parameters
    ----------
    path : Path
    where : str, optional
        What sentences call the file; its path by default.

    Raises
    ------
    DataError
        If it cannot be read as text, or holds a name or a number twice, or none.
    """
    where = where or str(path)
    whole = text_table.lines(path, MAX_BYTES)
    whole = [line for line in whole if not line.lstrip().startswith("#")] or whole
    lines = [line.strip() for line in whole]
    rows = (
        _workbench(lines)
        or _matching(lines, _ITKSNAP)
        or _matching(lines, _LOOKUP)
        or _matching(lines[1:], _OF_R)
    )
    rows = rows or [(number, name) for name, number in _aal(lines)] or _table(whole, where)
    rows = rows or _numbered(lines, where) or [(None, name) for name in _without_title(lines)]
    if all(number is not None for number, _ in rows):
        rows = sorted(rows, key=lambda row: row[0] or 0)
        if rows and rows[0][0] == 0 and BACKGROUND.fullmatch(rows[0][1].strip()):
            rows = rows[1:]
    names = tuple(name.strip().strip('"').strip() for _, name in rows)
    _check(where, names, [number for number, _ in rows])
    numbers = tuple(number for number, _ in rows if number is not None)
    return LabelList(names, numbers if len(numbers) == len(names) else None)


def _check(where: str, names: Sequence[str], numbers: Sequence[int | None]) -> None:
    if not names or (len(names) < 2 and None in numbers) or names[0].startswith(("[", "{")):
        raise DataError(f"{where} holds no list of ROI names")
    for what, values in (("name", names), ("number", [str(n) for n in numbers if n is not None])):
        if len(set(values)) != len(values):
            twice = next(value for i, value in enumerate(values) if value in values[:i])
            raise DataError(f"{where} holds a {what} twice: {quote(twice)}")
    if "" in names:
        raise DataError(f"{where}: ROI {names.index('') + 1} has no name")
    if numbers.count(None) < len(names) and all(name.isdecimal() for name in names):
        raise DataError(f"{where} holds numbers only: a name beside each, or names one a line, are expected")


def _workbench(lines: Sequence[str]) -> Rows:
    """Pairs of lines: a name, then its number and colour."""
    found = [_WORKBENCH.fullmatch(line) for line in lines[1::2]]
    if not lines or len(lines) % 2 or not all(found):
        return []
    return [(int(match[1]), name) for match, name in zip(found, lines[::2], strict=True) if match]


def _matching(lines: Sequence[str], pattern: re.Pattern[str]) -> Rows:
    """Number and name of each line, if all are of this form."""
    found = [pattern.fullmatch(line) for line in lines]
    return [(int(match[1]), match[2]) for match in found if match] if all(found) else []


def _numbered(lines: Sequence[str], where: str) -> Rows:
    """Lines of a number and a name, with or without the number again behind it (as AAL's are)."""
    rows = _matching(lines, _NUMBERED)
    other = [line for line in lines if not _NUMBERED.fullmatch(line)]
    if other and len(other) < len(lines) / 2:
        raise DataError(f"{where}: most lines begin with a number, but not {quote(other[0])}")
    if rows and all(name.split()[-1] == str(number) and " " in name for number, name in rows):
        rows = [(number, name.rsplit(None, 1)[0]) for number, name in rows]
    return rows


def _aal(lines: Sequence[str]) -> list[tuple[str, int]]:
    found = [_AAL.fullmatch(line) for line in lines]
    return [(match[1], int(match[2])) for match in found if match] if all(found) else []


def _table(lines: Sequence[str], where: str) -> Rows:
    """Rows of a TSV or CSV file: columns by its header, else a number and a name, else a name."""
    delimiter = next((d for d in "\t;," if lines and all(d in line for line in lines)), None)
    if delimiter is None:
        return []
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    cells = [
        [cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter, quoting=quoting)
    ]
    if len(cells) != len(lines):
        raise DataError(f"{where}: a quote is opened in a line and closed in another: remove stray quotes")
    if len(cells) == 1:  # all names in one line
        return [(None, name) for name in cells[0]]
    header = [cell.strip("'\"").lower() for cell in cells[0]]
    name = _name_column(header, cells[1:])
    if name is not None:
        return _of_columns(cells[1:], header, name, where)
    for body in (cells, cells[1:]):  # the first line may be any header
        if all(len(row) > 1 and row[0].isdecimal() and not row[1].isdecimal() for row in body):
            return [(int(row[0]), row[1]) for row in body]
    if delimiter == "\t":  # what stands behind a tab is something else
        return [(None, row[0]) for row in cells]
    is_text = all(line.count(delimiter) == line.count(f"{delimiter} ") for line in lines)
    if is_text or len({len(row) for row in cells}) > 1:  # a name may hold a comma
        return []
    raise DataError(
        f"{where} has {len(cells[0])} columns and none is called `name`: name it, or write names alone"
    )


def _name_column(header: Sequence[str], body: Sequence[Sequence[str]]) -> int | None:
    exact, further = _NAME_COLUMNS[:6], _NAME_COLUMNS[6:]
    found = [header.index(column) for column in exact if column in header]
    found += [j for j, column in enumerate(header) if column.rstrip("s").endswith("name")]
    found += [header.index(column) for column in further if column in header]
    texts = [j for j in found if not all(j < len(row) and row[j].isdecimal() for row in body)]
    return next(iter(texts or found), None)


def _of_columns(body: Sequence[Sequence[str]], header: Sequence[str], name: int, where: str) -> Rows:
    """Numbers and names of a table whose column of names is known."""
    number = next((j for c in _NUMBER_COLUMNS if c in header and (j := header.index(c)) != name), None)
    short = next((i for i, row in enumerate(body, 2) if len(row) <= max(name, number or 0)), None)
    if short is not None:
        raise DataError(f"{where}: row {short} has fewer columns than the header: complete it")
    if number is None:
        return [(None, row[name]) for row in body]
    odd = next((row[number] for row in body if not row[number].isdecimal()), None)
    if odd is None:
        return [(int(row[number]), row[name]) for row in body]
    if header[number] in _NAME_COLUMNS:  # other names
        return [(None, row[name]) for row in body]
    raise DataError(f"{where}: {quote(odd)} in column {header[number]} is no number of a label")


def _without_title(lines: Sequence[str]) -> Sequence[str]:
    titled = len(lines) > 1 and lines[0].lower() in _NAME_COLUMNS
    return lines[1:] if titled else lines
