"""Read a table of series: its values, and the labels of both axes wherever they are.

The first line is read as text before anything is inferred. What only counts rows or columns is no data and is taken out.
Which axis is ROIs and what order they have is not decided here, see `bhx_prep.features.timeseries`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.feather as feather
import pyarrow.parquet as pq

from bhx_model.errors import DataError
from bhx_prep.io import axis_labels, cifti, text_table
from bhx_prep.io.notes import quote, short
from bhx_prep.io.reading import reading

#: Headers of the column of names, where several columns hold text.
_NAME_HEADERS = (
    "label_name", "name", "names", "label", "labels", "roi", "roi_name", "region", "parcel", "parcel_name", "node",
)  # fmt: skip


@dataclass(frozen=True)
class SeriesTable:
    """Values with the labels of their axes.

    Attributes
    ----------
    values : numpy.ndarray of shape (rows, columns)
        NaN where a cell holds nothing.
    rows, columns : tuple of str, or None
        Cleaned labels; None where the file has none.
    notes : list of str
        What was assumed: details of `bhx_prep.io.notes.Kind.TABLE`.
    """

    values: np.ndarray
    rows: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)


def read(path: Path) -> SeriesTable:
    """Read a table by the ending of its name.

    Raises
    ------
    DataError
        With a sentence if it cannot be read, or is no table of numbers with two axes.
    """
    name = path.name.lower()
    if name.endswith(".ptseries.nii"):
        return _of_cifti(path)
    if name.endswith(".npy"):
        table = _of_array(path)
    elif name.endswith((".parquet", ".feather")):
        table = _of_frame(path)
    else:
        table = _of_text(path)
    return _without_counts(table)


def _of_cifti(path: Path) -> SeriesTable:
    axes, rows = cifti.read_series(path)
    if len(axes.parcels) != rows.shape[0]:
        msg = f"{short(path.name)}: {len(axes.parcels)} parcels in its header, {rows.shape[0]} rows"
        raise DataError(msg)
    return SeriesTable(rows, tuple(map(axis_labels.clean, axes.parcels)))


def _of_array(path: Path) -> SeriesTable:
    # mapped: a damaged header takes no memory for what is not there
    with reading(path, "is no array of numbers"):
        array = np.load(path, mmap_mode="r", allow_pickle=False, max_header_size=text_table.MAX_HEADER)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{short(path.name)} is an archive of arrays, one array is expected")
    columns = None
    if array.dtype.names and array.ndim == 1:  # records: the fields have names
        columns = tuple(map(axis_labels.clean, array.dtype.names))
        with reading(path, "holds fields that are no numbers"):
            array = np.stack([np.asarray(array[n], np.float64) for n in array.dtype.names], axis=1)
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        msg = (
            f"{short(path.name)} holds an array of shape {array.shape} and type {quote(array.dtype)}: real"
            " numbers of ROI x time are expected"
        )
        raise DataError(msg)
    return SeriesTable(np.asarray(array), None, columns)


def _of_frame(path: Path) -> SeriesTable:
    is_parquet = path.name.lower().endswith(".parquet")
    with reading(path, f"cannot be read as a {'Parquet' if is_parquet else 'Feather'} table"):
        table = pq.read_table(path) if is_parquet else feather.read_table(path)
        frame = table.to_pandas()
    if not frame.columns.is_unique:
        raise DataError(f"{short(path.name)} has two columns of the same name")
    if isinstance(frame.columns, pd.MultiIndex) or isinstance(frame.index, pd.MultiIndex):
        raise DataError(
            f"{short(path.name)} has labels of several levels: write it with one name per row and column"
        )
    labels = [axis_labels.clean(c) for c in frame.columns]
    texts = [j for j, kind in enumerate(frame.dtypes) if _is_text(frame.iloc[:, j], kind)]
    if len(texts) > 2 and 2 * len(texts) > len(labels):
        raise DataError(
            f"{short(path.name)} holds text where numbers are expected: write its columns as numbers"
        )
    rows = None
    if not isinstance(frame.index, pd.RangeIndex):
        rows = tuple(map(axis_labels.clean, frame.index))
    names = _name_column(
        [[axis_labels.clean(v) for v in frame.iloc[:, j]] for j in texts], [labels[j] for j in texts], path
    )
    kept = [j for j in range(len(labels)) if j not in texts]
    for j in kept:
        kind = frame.dtypes.iloc[j]
        if (
            not pd.api.types.is_numeric_dtype(kind)
            or pd.api.types.is_bool_dtype(kind)
            or pd.api.types.is_complex_dtype(kind)
        ):
            raise DataError(
                f"{short(path.name)}: column {quote(labels[j])} holds {quote(kind)}: real numbers are expected"
            )
    with reading(path, "holds values that are no numbers"):
        values = frame.iloc[:, kept].to_numpy(np.float64, na_value=np.nan)
    return SeriesTable(values, names or rows, tuple(labels[j] for j in kept))


def _is_text(column: pd.Series, kind: Any) -> bool:
    if isinstance(kind, pd.CategoricalDtype):
        kind = kind.categories.dtype
    if pd.api.types.is_string_dtype(kind) and kind != np.dtype(object):
        return True
    return kind == np.dtype(object) and all(isinstance(v, str | bytes) or v is None for v in column)


def _of_text(path: Path) -> SeriesTable:
    table = text_table.read(path)
    rows, said = table.rows, []
    endings = {".tsv": "\t", ".csv": ","}
    expected = next((s for e, s in endings.items() if e in path.name.lower()), table.separator)
    if table.separator != expected and len(rows[0]) > 1:
        said.append(f"its cells are separated by {text_table.SEPARATORS[table.separator]}")
    header = None
    if table.commented or _is_header(rows[0], rows[min(1, len(rows) - 1)]):
        header, rows = [axis_labels.clean(cell) for cell in rows[0]], rows[1:]
        if not rows:
            raise DataError(f"{short(path.name)} has a header and no rows")
    if len(rows[0]) == 1:
        raise DataError(
            f"{short(path.name)} has one column only: is the separator right, or is it no ROI x time table?"
        )
    texts = [j for j, cell in enumerate(rows[0]) if text_table.number(cell) is None]
    for j in texts:
        if text_table.has_decimal_comma(rows[0][j]) or _is_mostly_numbers([row[j] for row in rows[1:]]):
            raise text_table.no_number(rows[0][j], _where(path, 2 if header else 1, j))
    if 2 * len(texts) > len(rows[0]):
        raise text_table.no_number(rows[0][texts[1]], _where(path, 2 if header else 1, texts[1]))
    headers = header or [""] * len(rows[0])
    columns = [[axis_labels.clean(row[j]) for row in rows] for j in texts]
    if [h.lower() for h in headers[:2]] == ["file", "sub-brick"] and texts[:2] == [0, 1]:  # AFNI's 3dROIstats
        names = _name_column(columns[2:], [headers[j] for j in texts[2:]], path)
    else:
        names = _name_column(columns, [headers[j] for j in texts], path)
    kept = [j for j in range(len(rows[0])) if j not in set(texts)]
    values = _numbers(rows, kept, path, first_line=2 if header else 1)
    return SeriesTable(values, names, tuple(header[j] for j in kept) if header else None, said)


def _is_mostly_numbers(cells: Sequence[str]) -> bool:
    return sum(text_table.number(cell) is not None for cell in cells) * 2 > len(cells)


def _where(path: Path, row: int, column: int) -> str:
    return f"{short(path.name)}: row {row}, column {column + 1}"


def _is_header(cells: Sequence[str], following: Sequence[str]) -> bool:
    """Whether a first line is labels: text among its cells but the first, or numbers that are no data.

    Numbers are labels where they only count, or where all are whole, none twice, and the next line's have decimals.
    """
    numbers = [text_table.number(axis_labels.clean(cell)) for cell in cells]
    if any(n is None for n in numbers[1:]):
        return True
    skipped = int(numbers[0] is None or not cells[0])  # a name before a row of data, or a corner
    found = [n for n in numbers[skipped:] if n is not None]
    whole = all(n.is_integer() for n in found) and len(set(found)) == len(found) > 4
    decimals = sum("." in cell or "e" in cell.lower() for cell in following[skipped:])
    return axis_labels.steps(found) or (whole and 2 * decimals > len(found))


def _name_column(columns: list[list[str]], headers: list[str], path: Path) -> tuple[str, ...] | None:
    """The column that labels the rows, of those that hold text; one that is the same in every row labels nothing."""
    varied = [j for j, column in enumerate(columns) if len(set(column)) > 1 or len(column) == 1]
    if len(varied) > 1:
        named = [j for j in varied if headers[j].lower() in _NAME_HEADERS]
        best = sorted(named, key=lambda j: _NAME_HEADERS.index(headers[j].lower()))
        if not best:
            which = " and ".join(quote(headers[j]) for j in varied[:2])
            raise DataError(
                f"{short(path.name)} has several columns of text ({which}): keep the ROI names only"
            )
        varied = best[:1]
    return tuple(columns[varied[0]]) if varied else None


def _numbers(rows: list[list[str]], kept: Sequence[int], path: Path, *, first_line: int) -> np.ndarray:
    """Values of some columns of text cells, (rows, columns) float64."""
    values = np.empty((len(rows), len(kept)))
    every = len(kept) == len(rows[0])
    for i, row in enumerate(rows):
        cells = row if every else [row[j] for j in kept]
        try:
            values[i] = [float(cell) for cell in cells]
            if "_" not in "".join(cells):  # Python takes 1_000 for a number
                continue
        except ValueError:
            pass
        for j, cell in enumerate(cells):
            found = text_table.number(cell)
            if found is None:
                raise text_table.no_number(cell, _where(path, i + first_line, kept[j]))
            values[i, j] = found
    return values


def _without_counts(table: SeriesTable) -> SeriesTable:
    """Take out what labels and is no data: first columns and a first row of running numbers, of numbers of labels, of times.

    Numbers that do more than count become the labels of an axis without any.
    """
    values, rows, columns, said = table.values, table.rows, table.columns, list(table.notes)
    while values.shape[1] > 2 and values.shape[0] > 1:
        what = _first_column(values, columns)
        if what is None:
            break
        said.append(f"its first column {what} and is left out")
        rows = rows or _as_labels(values[:, 0])
        values, columns = values[:, 1:], None if columns is None else columns[1:]
    if table.rows is None and values.shape[0] > 2:
        first = values[0].tolist()
        if axis_labels.counts(first):
            said.append("its first row only counts columns and is left out")
            values, rows = values[1:], rows and rows[1:]
        elif axis_labels.are_labels(first, values[1].tolist()):
            said.append(f"its first row {_WHOLE if _are_whole(first) else _EVEN} and is left out")
            if columns is None or axis_labels.kind(columns) is axis_labels.Axis.NUMBERS:
                columns = _as_labels(values[0])
            values, rows = values[1:], rows and rows[1:]
    return SeriesTable(values, rows, columns, said)


_WHOLE, _EVEN = "holds numbers of labels", "holds times"


def _first_column(values: np.ndarray, columns: Sequence[str] | None) -> str | None:
    """What a first column holds that is no data, in words."""
    header = None if columns is None else columns[0].lower()
    first = values[:, 0].tolist()
    counted = axis_labels.counts(first[1:] if np.isnan(first[0]) and header is None else first)
    unnamed = header is None or header in axis_labels.INDEX_HEADERS or text_table.number(header) is not None
    odd = (
        columns is not None and axis_labels.alike(columns[1:]) and not axis_labels.alike(columns[:2])
    )  # unlike all others
    if counted and (unnamed or odd):
        return "only counts rows"
    if header in axis_labels.INDEX_HEADERS and axis_labels.steps(first):
        return "only counts rows"
    if (unnamed or odd) and axis_labels.are_labels(first, values[:, 1].tolist()):
        return _WHOLE if _are_whole(first) else _EVEN
    return None


def _are_whole(values: Sequence[float]) -> bool:
    return all(float(v).is_integer() for v in values)


def _as_labels(values: np.ndarray) -> tuple[str, ...] | None:
    """Numbers as labels; None where they only count."""
    numbers = values.tolist()
    return (
        None
        if axis_labels.counts(numbers) or not np.isfinite(values).all()
        else tuple(f"{v:g}" for v in numbers)
    )
