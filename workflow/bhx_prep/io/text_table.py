"""Read text tables of any encoding, line ending, separator and comment style; cells stay text.

Nothing is inferred here: no cell becomes a number, no line a header. The standard library only, so that the index can
look at a table's first line.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.io.notes import quote, short

#: Bytes of text that are read of a table at most; some 6 million cells.
MAX_BYTES: Final = 128 << 20
#: Bytes within which the first line has to end.
MAX_LINE: Final = 4 << 20

#: Characters of an array's header, in which records name their fields.
MAX_HEADER: Final = 1 << 18

#: How separators are called; None stands for runs of blanks.
SEPARATORS: Final = {"\t": "tabs", ";": "semicolons", ",": "commas", None: "blanks"}

_EXCEL_HINT = re.compile(r'"?sep=.?"?')
#: What begins files that are no text at all, or no table.
_OTHER_FILES: Final = (
    (b"PK\x03\x04", "is a zip archive or an Excel workbook: save it as text (CSV)"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook: save it as text (CSV)"),
    (b"\x1f\x8b", "is gzipped: give its name the ending .gz"),
    (b"version https://git-lfs", "is a pointer of git-lfs, its content is not here (git lfs pull)"),
    (b"/annex/objects/", "is a pointer of git-annex, its content is not here (datalad get)"),
    (b"\x93NUMPY", "is a NumPy array: give its name the ending .npy"),
    (b"PAR1", "is a Parquet table: give its name the ending .parquet"),
)


@dataclass(frozen=True)
class TextTable:
    """Cells of a table, row by row.

    Attributes
    ----------
    rows : list of list of str
        All of one length; without blank lines and comments.
    commented : bool
        Whether the first row stood behind a ``#``: it is a header, whatever is in it.
    separator : str or None
        One of `SEPARATORS`.
    """

    rows: list[list[str]]
    commented: bool
    separator: str | None


def first_line(path: Path) -> str:
    """The first line with content, of a table that may be large; Excel's ``sep=;`` is skipped.

    Raises
    ------
    DataError
        If the file is no text, or that line does not end.
    """
    for limit in (1 << 14, MAX_LINE):
        raw = _bytes(path, limit)
        text = _decode(raw, path)
        found = [
            line for line in text.split("\n") if line.strip() and not _EXCEL_HINT.fullmatch(line.strip())
        ]
        if len(raw) < limit or len(found) > 1:
            return found[0] if found else ""
    raise DataError(f"{short(path.name)} is no table: its first line is longer than {MAX_LINE >> 20} MB")


def read(path: Path) -> TextTable:
    """Read a table.

    Raises
    ------
    DataError
        With a sentence if it is no text, is too large, has no rows, or has rows of different lengths.
    """
    raw = _bytes(path, MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise DataError(
            f"{short(path.name)} has more than {MAX_BYTES >> 20} MB of text: no ROI x time table is so large"
        )
    numbered = [(i, line) for i, line in enumerate(_decode(raw, path).split("\n"), 1) if line.strip()]
    if numbered and _EXCEL_HINT.fullmatch(numbered[0][1].strip()):
        numbered = numbered[1:]
    comments = [line for _, line in numbered if line.lstrip().startswith("#")]
    body = [(i, line) for i, line in numbered if not line.lstrip().startswith("#")]
    if not body and len(comments) > 1:  # names of rows may begin with it
        body, comments = numbered, []
    if not body:
        raise DataError(f"{short(path.name)} holds no rows")
    separator = _separator([line for _, line in body], path)
    rows = split([line for _, line in body], separator, path)
    header = _header(comments, rows, separator, path)
    if header is not None:
        rows, body = [header, *rows], [(0, ""), *body]
    if len(rows) > 1 and len(rows[0]) == len(rows[1]) - 1:  # R's write.table names no column of row names
        rows[0] = ["", *rows[0]]
    _check_lengths(rows, [i for i, _ in body], separator, path)
    if len(rows[0]) > 1 and not any(row[-1] for row in rows):  # a separator at the end of every line
        rows = [row[:-1] for row in rows]
    return TextTable(rows, header is not None, separator)


def _bytes(path: Path, limit: int) -> bytes:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            return file.read(limit)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{short(path.name)} cannot be read ({type(error).__name__}): fetch or write it again"
        ) from error


def _decode(raw: bytes, path: Path) -> str:
    """Text whose lines end in line feeds."""
    start = raw[:512].lstrip()
    for magic, what in _OTHER_FILES:
        if start.startswith(magic):
            raise DataError(f"{short(path.name)} {what}")
    if start[:14].lower().startswith((b"<!doctype", b"<html")):
        raise DataError(f"{short(path.name)} is a web page, no table: its download failed, fetch it again")
    text = raw.decode(_encoding(raw), errors="replace")
    if "\x00" in text:
        raise DataError(f"{short(path.name)} is no text: it holds zero bytes")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _encoding(raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = raw[:512:2].count(0), raw[1:512:2].count(0)
    if 4 * max(zeros) > len(raw[:512]):  # UTF-16 without its mark: every second byte of plain text is zero
        return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        # a character that the limit cut in two is none of another encoding's
        return "utf-8-sig" if error.start > len(raw) - 4 else "cp1252"
    return "utf-8-sig"


def _separator(lines: Sequence[str], path: Path) -> str | None:
    """The separator that every line has, and equally often but for the first, whose corner may be missing."""
    some = [*lines[:3], lines[-1]]
    for separator in ("\t", ";", ","):
        if all(separator in line for line in some):
            return separator
    used = [s for s in ("\t", ";", ",") if any(s in line for line in some)]
    if len(used) > 1 or (used and len(lines) > 1 and all(used[0] in line for line in some[1:])):
        names = [next((SEPARATORS[s] for s in used if s in line), "nothing") for line in some[:2]]
        if names[0] != names[1]:
            msg = f"{short(path.name)}: its first line is separated by {names[0]}, the second by {names[1]}: use one"
            raise DataError(msg)
    if used:
        raise DataError(
            f"{short(path.name)}: only some lines have {SEPARATORS[used[0]]} between cells: rows are ragged"
        )
    return None


def lines(path: Path, most: int = MAX_BYTES) -> list[str]:
    """Lines with content, of a file of at most so many bytes that may have any encoding and line ends.

    Raises
    ------
    DataError
        If it is no text, or larger.
    """
    raw = _bytes(path, most + 1)
    if len(raw) > most:
        raise DataError(f"{short(path.name)} is no list of ROI names: it has more than {most / 1e6:.0f} MB")
    return [line for line in _decode(raw, path).split("\n") if line.strip()]


def split(lines: Sequence[str], separator: str | None, path: Path) -> list[list[str]]:
    """Cells of lines; None separates at blanks.

    Raises
    ------
    DataError
        If quotes do not close.
    """
    if separator is None:
        return [line.split() for line in lines]
    if not any('"' in line for line in lines):
        # to strip every cell takes as long as to split
        return [
            [cell.strip() for cell in line.split(separator)] if " " in line else line.split(separator)
            for line in lines
        ]
    try:
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{short(path.name)} has stray quotes ({error}): write its cells without quotes"
        ) from error
    return [[cell.strip() for cell in row] for row in rows]


def _header(
    comments: Sequence[str], rows: list[list[str]], separator: str | None, path: Path
) -> list[str] | None:
    """Cells of the last commented line, if it has a cell for each column, and the first row is no header itself."""
    if not comments or any(number(cell) is None for cell in rows[0][1:]):
        return None
    line = comments[-1].lstrip().removeprefix("#")
    # C-PAC writes `#1<tab>#2`, NumPy makes `# #1<tab>#2` of that: the second mark shows that the first is part of a name
    for separated in (separator, None):
        (cells,) = split([line.strip()], separated, path)
        if len(cells) == len(rows[0]):
            marked = any(cell.startswith("#") for cell in cells[1:])
            return [f"#{cells[0].removeprefix('#')}", *cells[1:]] if marked else cells
    return None


def _check_lengths(rows: list[list[str]], lines: Sequence[int], separator: str | None, path: Path) -> None:
    n = len(rows[0])
    for row, line in zip(rows, lines, strict=True):
        if len(row) != n:
            msg = (
                f"{short(path.name)}: line {line} has {len(row)} cells between {SEPARATORS[separator]}, the first {n}:"
                " rows are ragged, separators mixed, or numbers have decimal commas"
            )
            raise DataError(msg)


def number(cell: str) -> float | None:
    """Value of a cell, NaN where it says that there is none, None where it is text."""
    if cell.lower() in MISSING:
        return float("nan")
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


#: Cells that stand for no value, in lower case.
MISSING: Final = frozenset({"", ".", "n/a", "na", "nan", "-nan", "null", "none", "missing", "#n/a"})


def no_number(cell: str, where: str) -> DataError:
    """The error of a cell that should be a number."""
    if has_decimal_comma(cell):
        return DataError(f"{where} holds {quote(cell)}: write numbers with a decimal point, not a comma")
    return DataError(f"{where} holds {quote(cell)}, which is no number")


def has_decimal_comma(cell: str) -> bool:
    """Whether a cell is a number as Excel writes it in half of Europe."""
    return bool(re.fullmatch(r"-?\d{1,12},\d+([eE][-+]?\d+)?", cell))
