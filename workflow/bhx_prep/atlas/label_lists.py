"""Names of an atlas's ROIs, and their numbers in its label files, from the text files that atlases come with."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.io.notes import quote

#: Largest list of names, bytes; FreeSurfer's lookup table of all its labels has 0.1 MB.
MAX_BYTES: Final = 10_000_000
#: What stands at labels that are no parcel.
BACKGROUND: Final = re.compile(
    r"(.*[ _-])?(unknown|unassigned|corpus ?callosum|medial[ _-]?wall)|\?\?\?|background.*|none|clear label",
    re.IGNORECASE,
)
#: Columns of names and of numbers in a table with a header, the best first.
_NAME_COLUMNS: Final = (
    "name",
    "label",
    "roi",
    "roi_name",
    "roi name",
    "region",
    "region_name",
    "parcel",
    "names",
)
_NUMBER_COLUMNS: Final = ("index", "label_index", "number", "no.", "id", "value", "intensity")
#: Second line of each pair in a label list of Connectome Workbench: number and colour.
_WORKBENCH: Final = re.compile(r"(\d+)( \d+){4}")
#: A line of FreeSurfer's and CBIG's lookup tables: number, name, colour.
_LOOKUP: Final = re.compile(r"(\d+)\s+(\S.*?)(?:\s+\d{1,3}){3,4}")
#: A line of ITK-SNAP's label descriptions: number, colour, three switches, name.
_ITKSNAP: Final = re.compile(r"(\d+)(?:\s+\d+){3}\s+[\d.]+\s+[01]\s+[01]\s+\"(.*)\"")
_NUMBERED: Final = re.compile(r"(\d+)[ \t]+(\S.*)")

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


def read_label_list(path: Path) -> LabelList:
    """Read names one a line, or a table of numbers and names.

    Known tables: FreeSurfer's and CBIG's lookup tables, BIDS' ``dseg.tsv`` and other TSV and CSV files with a header,
    label lists of Connectome Workbench, label descriptions of ITK-SNAP, and lines of a number and a name. Number 0
    with the name of a background is left out.

    Raises
    ------
    DataError
        If it cannot be read as text, or holds a name or a number twice, or none.
    """
    whole = [line for line in _text(path).splitlines() if line.strip()]
    whole = [line for line in whole if not line.lstrip().startswith("#")] or whole
    lines = [line.strip() for line in whole]
    rows = _workbench(lines) or _matching(lines, _ITKSNAP) or _matching(lines, _LOOKUP) or _table(whole, path)
    rows = rows or _numbered(lines, path) or [(None, name) for name in _without_title(lines)]
    if all(number is not None for number, _ in rows):
        rows = sorted(rows, key=lambda row: row[0] or 0)
        if rows and rows[0][0] == 0 and BACKGROUND.fullmatch(rows[0][1].strip()):
            rows = rows[1:]
    names = tuple(name.strip().strip('"').strip() for _, name in rows)
    _check(path, names, [number for number, _ in rows])
    numbers = tuple(number for number, _ in rows if number is not None)
    return LabelList(names, numbers if len(numbers) == len(names) else None)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is no list of ROI names: it has {path.stat().st_size / 1e6:.0f} MB")
        content = path.read_bytes()
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except OSError as error:
        msg = f"cannot read atlas.names {path}: {error.strerror}"
        raise DataError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"cannot read atlas.names {path}: it is no text in UTF-8: save it as such"
        raise DataError(msg) from error
    if "\0" in text:
        raise DataError(f"cannot read atlas.names {path}: it is no text")
    return text


def _check(path: Path, names: Sequence[str], numbers: Sequence[int | None]) -> None:
    if not names:
        raise DataError(f"{path} holds no ROI name")
    for what, values in (("name", names), ("number", [str(n) for n in numbers if n is not None])):
        if len(set(values)) != len(values):
            twice = next(value for i, value in enumerate(values) if value in values[:i])
            raise DataError(f"{path} holds a {what} twice: {quote(twice)}")
    if "" in names:
        raise DataError(f"{path}: ROI {names.index('') + 1} has no name")
    if numbers.count(None) < len(names) and all(name.isdecimal() for name in names):
        raise DataError(f"{path} holds numbers only: a name beside each, or names one a line, are expected")


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


def _numbered(lines: Sequence[str], path: Path) -> Rows:
    """Lines of a number and a name, with or without the number again behind it (as AAL's are)."""
    rows = _matching(lines, _NUMBERED)
    other = [line for line in lines if not _NUMBERED.fullmatch(line)]
    if other and len(other) < len(lines) / 2:
        raise DataError(f"{path}: most lines begin with a number, but not {quote(other[0])}")
    if rows and all(name.split()[-1] == str(number) and " " in name for number, name in rows):
        rows = [(number, name.rsplit(None, 1)[0]) for number, name in rows]
    return rows


def _table(lines: Sequence[str], path: Path) -> Rows:
    """Rows of a TSV or CSV file: columns by its header, else a number and a name, else a name."""
    delimiter = next((d for d in "\t;," if lines and d in lines[0]), None)
    if delimiter is None:
        return []
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    cells = [
        [cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter, quoting=quoting)
    ]
    if len(cells) != len(lines):
        raise DataError(f"{path}: a quote is opened in a line and closed in another: remove stray quotes")
    header = [cell.lower() for cell in cells[0]]
    name = next((header.index(column) for column in _NAME_COLUMNS if column in header), None)
    number = next((header.index(column) for column in _NUMBER_COLUMNS if column in header), None)
    if name is not None:
        short = next((i for i, row in enumerate(cells, 1) if len(row) <= max(name, number or 0)), None)
        if short is not None:
            raise DataError(f"{path}: row {short} has fewer columns than the header: complete it")
        if number is None:
            return [(None, row[name]) for row in cells[1:]]
        odd = next((row[number] for row in cells[1:] if not row[number].isdecimal()), None)
        if odd is not None:
            raise DataError(f"{path}: {quote(odd)} in column {header[number]} is no number of a label")
        return [(int(row[number]), row[name]) for row in cells[1:]]
    if all(len(row) > 1 and row[0].isdecimal() for row in cells):
        return [(int(row[0]), row[1]) for row in cells]
    # a name may hold a comma; what stands behind a tab is something else
    return [(None, row[0]) for row in cells] if delimiter == "\t" else []


def _without_title(lines: Sequence[str]) -> Sequence[str]:
    titled = len(lines) > 1 and lines[0].lower() in _NAME_COLUMNS
    return lines[1:] if titled else lines
