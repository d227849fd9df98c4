"""Read delimited text tables of users: detect encoding, separator and quoting.

Only the columns that are asked for are kept, line by line, so a table of a million columns needs little memory. What
cannot be read is refused in one sentence.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.ingest.cell_values import listed
from bhx_prep.io.notes import quote, short

#: Characters of a line: a header of a million columns has some ten million.
LONGEST_LINE: Final = 1 << 24
#: Bytes of a table, unpacked; reading them takes a minute.
LARGEST: Final = 1 << 31
#: Columns of a table that is read as a whole.
MOST_COLUMNS: Final = 20_000
SEPARATORS: Final = ("\t", ",", ";")

_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_FORMATS = {
    b"PK\x03\x04": "a spreadsheet or zip file",
    b"\xd0\xcf\x11\xe0": "a spreadsheet file",
    b"PAR1": "a Parquet file",
    b"$FL": "a file of SPSS",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF file",
}
#: What spreadsheets write for themselves above the header.
_SEPARATOR_LINE = re.compile(r'"?sep=.?"?[,;\t]*', re.IGNORECASE)
_SAVE_AS_TEXT = "save it as text separated by tabs (UTF-8)"


@dataclass
class Cells:
    """Columns of a table.

    Attributes
    ----------
    header : list of str
        Names of all columns of the file.
    names : list of str
        Of the columns that were kept, the column of ids first.
    rows : list of (int, list of str)
        Number of the line, and a cell for every name.
    short : list of (int, int, str)
        Lines that have too few cells: number, how many cells there are, and the first one.
    """

    header: list[str]
    names: list[str]
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    short: list[tuple[int, int, str]] = field(default_factory=list)


class _Ragged(DataError):
    """A line does not have the header's number of cells."""


def read_cells(
    path: Path,
    find_ids: Callable[[Sequence[str]], str | None],
    columns: Sequence[str] | None = None,
    wanted: str = "participant_id",
) -> Cells:
    """Read a table of text.

    Separated by tabs, commas or semicolons: whatever makes a column of ids of the header. UTF-8, UTF-16 or UTF-32 with or
    without a byte order mark, else Latin-1; any line ends; packed with gzip or not. A quote means nothing where every line
    has the header's number of cells without it, as BIDS has it; else cells may be quoted, and contain separators and line
    ends. Quotes around a whole cell are removed.

    Parameters
    ----------
    path : Path
    find_ids : callable
        Given the names of columns, the one that holds ids, or None.
    columns : sequence of str, optional
        Names of the columns to keep besides the ids, those that are not there are left out; all when None.
    wanted : str
        What the column of ids is called in a sentence that says that there is none.

    Raises
    ------
    DataError
        If there is no such file, or it is no table that can be read without guessing.
    """
    encodings = _encodings(path)
    for encoding in encodings:
        try:
            return _read_as(path, encoding, find_ids, columns, wanted)
        except UnicodeDecodeError:
            if encoding == encodings[-1]:
                msg = f"{_file(path)} is not text in {encoding}: {_SAVE_AS_TEXT}"
                raise DataError(msg) from None
        except (OSError, EOFError, zlib.error) as error:
            msg = f"{_file(path)} cannot be read: {quote(error)}; copy or save it again"
            raise DataError(msg) from error
    raise AssertionError(encodings)


def _file(path: Path) -> str:
    return short(path.name)


def _encodings(path: Path) -> list[str]:
    """Encodings to try, from the first bytes of a file."""
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(_too_large(path))
        with _open(path) as file:
            head = file.read(4096)
    except FileNotFoundError:
        if path.is_symlink():
            msg = f"{_file(path)} is a link to a file that is not there; if git-annex keeps it, run `datalad get`"
        else:
            msg = (
                f"there is no table of phenotypes {path}: add it, or name it as `participants` of the cohort"
            )
        raise DataError(msg) from None
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{_file(path)} cannot be read: {quote(error)}; copy or save it again"
        raise DataError(msg) from error
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return [encoding]
    for magic, name in _FORMATS.items():
        if head.startswith(magic):
            msg = f"{_file(path)} is {name}, not a table of text: {_SAVE_AS_TEXT}"
            raise DataError(msg)
    if head.startswith(b"version https://git-lfs") or b"annex/objects/" in head[:200]:
        msg = f"{_file(path)} is a pointer, its content is not here: run `datalad get` or `git lfs pull`"
        raise DataError(msg)
    if not head.strip():
        msg = f"{_file(path)} is empty"
        raise DataError(msg)
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):  # without a mark, every other byte is zero
        if len(head) > 3 and head[first::2].count(0) > 0.8 * len(head[first::2]):
            return [encoding]
    return ["utf-8", "latin-1"]


def _open(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _read_as(
    path: Path,
    encoding: str,
    find_ids: Callable[[Sequence[str]], str | None],
    columns: Sequence[str] | None,
    wanted: str,
) -> Cells:
    with _open(path) as file:
        first = next(_lines(path, file, encoding), (1, ""))[1]
    separator, header = _header(path, first, find_ids, wanted)
    named = max(place for place, name in enumerate(header) if name) + 1
    try:
        # spreadsheets add empty cells; who counts them takes a comma in quotes for one of them
        return _read_columns(path, encoding, separator, header[:named], find_ids, columns)
    except _Ragged:
        if named == len(header):
            raise
        return _read_columns(path, encoding, separator, header, find_ids, columns, quotes=True)


def _read_columns(
    path: Path,
    encoding: str,
    separator: str,
    header: list[str],
    find_ids: Callable[[Sequence[str]], str | None],
    columns: Sequence[str] | None,
    *,
    quotes: bool = False,
) -> Cells:
    """Read a table of that header; as quoted cells where `quotes` says so, or where lines do not fit without."""
    places = _places(path, header, find_ids(header), columns)
    ragged = None
    plain = Cells(header, [])
    if not quotes:
        try:
            with _open(path) as file:
                lines = _lines(path, file, encoding)
                rows = _plain_rows(path, lines, separator, len(header), max(places))
                plain = _collect(header, places, rows)
        except _Ragged as error:
            ragged = error
        if ragged is None and not plain.short:
            return plain
    # rows that are too short or too long are whole ones if their cells hold line ends or separators
    with _open(path) as file:
        lines = _lines(path, file, encoding)
        quoted = _collect(header, places, _quoted_rows(path, lines, separator, header, places[0], ragged))
    return quoted if quotes or ragged is not None or len(quoted.short) < len(plain.short) else plain


def _lines(path: Path, file: gzip.GzipFile | io.BufferedReader, encoding: str) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank."""
    total = 0
    with io.TextIOWrapper(file, encoding=encoding, newline=None) as text:
        for number in itertools.count(1):
            line = text.readline(LONGEST_LINE)
            if not line:
                return
            total += len(line)
            if len(line) >= LONGEST_LINE:
                msg = f"line {number} of {_file(path)} has over {LONGEST_LINE:,} characters: is it a table, a row a line?"
                raise DataError(msg)
            if total > LARGEST:
                raise DataError(_too_large(path))
            if "\0" in line:
                msg = f"{_file(path)} is not a table of text, line {number} has a zero byte: {_SAVE_AS_TEXT}"
                raise DataError(msg)
            if number == 1:
                line = line.removeprefix("\ufeff")
                if _SEPARATOR_LINE.fullmatch(line.strip()):
                    continue
            if "\u200b" in line:  # seen by nobody, and in what is copied from pages
                line = line.replace("\u200b", "")
            if line.strip():
                yield number, line.rstrip("\n")


def _too_large(path: Path) -> str:
    return f"{_file(path)} has over {LARGEST >> 30} GB: save the columns that endpoints need as a table of their own"


def _header(
    path: Path, line: str, find_ids: Callable[[Sequence[str]], str | None], wanted: str
) -> tuple[str, list[str]]:
    """Separator and names of the columns."""
    by_ending = "," if ".csv" in path.suffixes else "\t"
    candidates = sorted(SEPARATORS, key=lambda s: (s != by_ending, -line.count(s)))
    found = []
    for separator in candidates:
        plain = [_bare(cell) for cell in line.split(separator)]
        quoted = _quoted_cells(line, separator) if '"' in line else plain
        # names may be quoted because they contain the separator
        names = quoted if len(quoted) < len(plain) else plain
        if find_ids(names) is not None:
            found.append((separator, names))
    if not found:
        n, separator = max((line.count(s), s) for s in SEPARATORS)
        names = [_bare(cell) for cell in line.split(separator, 12)]
        if not n:
            msg = (
                f"{_file(path)} has one column only, {quote(names[0])}: separate columns by tabs, and call the "
                f"ids {short(wanted)}"
            )
            raise DataError(msg)
        msg = (
            f"{_file(path)} has no column {short(wanted)}; it has: {listed([n or '(no name)' for n in names], 60)}: name "
            "that of the ids as `id_column` of the cohort"
        )
        raise DataError(msg)
    return max(found, key=lambda one: len(one[1]) > 1)


def _quoted_cells(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return [line]


def _bare(cell: str) -> str:
    """A cell without the quotes around it."""
    cell = cell.strip()
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        cell = cell[1:-1].replace('""', '"').strip()
    return _text_of(cell)


def _text_of(cell: str) -> str:
    """A cell without the formula ``="01"`` by which spreadsheets keep a number as text."""
    return cell[2:-1] if len(cell) > 2 and cell.startswith('="') and cell.endswith('"') else cell


def _places(path: Path, header: Sequence[str], ids: str | None, columns: Sequence[str] | None) -> list[int]:
    """Where the columns are that are kept, that of the ids first."""
    if columns is None and len(header) > MOST_COLUMNS:
        msg = f"{_file(path)} has {len(header):,} columns, at most {MOST_COLUMNS:,} are read: save those that are needed"
        raise DataError(msg)
    wanted = set(header) - {""} if columns is None else {*columns, ids}
    places: dict[str, int] = {}
    for place, name in enumerate(header):
        if name in wanted and places.setdefault(name, place) != place:
            msg = f"{_file(path)} has two columns {quote(name)}: rename one"
            raise DataError(msg)
    return sorted(places.values(), key=lambda place: header[place] != ids)


def _plain_rows(
    path: Path, lines: Iterable[tuple[int, str]], separator: str, n: int, last: int
) -> Iterator[tuple[int, int, list[str]]]:
    """Number, count of cells and the cells up to the last that is kept of every row; a quote means nothing."""
    for number, line in itertools.islice(lines, 1, None):
        count = line.count(separator) + 1
        while count > n and not line.rpartition(separator)[2].strip():  # spreadsheets add empty cells
            line, count = line.rpartition(separator)[0], count - 1
        if count > n:
            raise _Ragged(_too_many(path, number, count, n))
        yield number, count, [_bare(cell) for cell in line.split(separator, last + 1)[: last + 1]]


def _quoted_rows(
    path: Path,
    lines: Iterable[tuple[int, str]],
    separator: str,
    header: Sequence[str],
    ids: int,
    ragged: _Ragged | None,
) -> Iterator[tuple[int, int, list[str]]]:
    """Number, count of cells and the cells of every row; they may be quoted, and contain separators and line ends.

    Raises `ragged`, what a reading without quotes came upon, where a row has too many cells, too.
    """
    n = len(header)
    read: list[tuple[int, str]] = []  # lines of the row that is being read

    def feed() -> Iterator[str]:
        for one in lines:
            read.append(one)
            yield one[1] + "\n"

    rows = csv.reader(feed(), delimiter=separator, strict=True)
    try:
        for index, cells in enumerate(rows):
            if any(_is_row(line, separator, n, ids, cells) for _, line in read[1:]):
                msg = f"{_file(path)}: a quote on line {read[0][0]} is not closed before the next row: remove or close it"
                raise DataError(msg)
            while len(cells) > n and not cells[-1].strip():
                cells.pop()
            if len(cells) > n:
                raise ragged or _Ragged(_too_many(path, read[0][0], len(cells), n))
            if index:
                yield read[0][0], len(cells), [_text_of(cell.strip()) for cell in cells]
            read.clear()
    except csv.Error:
        if not read or '"' not in read[0][1]:
            raise ragged or _Ragged(f"{_file(path)}: line {read[0][0] if read else 1} is too long") from None
        msg = f"{_file(path)}: a quote on line {read[0][0]} is not closed or not doubled: remove it, or save as BIDS has it"
        raise DataError(msg) from None


def _is_row(line: str, separator: str, n: int, ids: int, cells: Sequence[str]) -> bool:
    """Whether a line within a quoted cell is itself a row, with as many cells and an id like that of the row it is in."""
    if n == 1 or line.count(separator) < n - 1 or ids >= len(cells):
        return False
    return _shape(_bare(line.split(separator)[ids])) == _shape(cells[ids].strip())


def _shape(text: str) -> str:
    """What an id is made of: ``a-0`` of ``sub-01``."""
    return re.sub(r"[0-9]+", "0", re.sub(r"[^\W\d_]+", "a", text))


def _too_many(path: Path, number: int, count: int, n: int) -> str:
    hint = "does it lack the name of a first column?" if count == n + 1 else "is the separator right?"
    return f"{_file(path)} is not a table: line {number} has {count} cells, the header has {n}: {hint}"


def _collect(header: list[str], places: Sequence[int], rows: Iterable[tuple[int, int, list[str]]]) -> Cells:
    cells = Cells(header, [header[place] for place in places])
    named = max(place for place, name in enumerate(header) if name) + 1
    for number, count, content in rows:
        if count < named:
            cells.short.append((number, count, content[places[0]] if places[0] < len(content) else ""))
        else:
            cells.rows.append((number, [content[place] for place in places]))
    return cells
