"""Convert a user's series (arrays, tensors, tables with named columns) to rows of ROIs in the model's order."""

from __future__ import annotations

import logging
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from bhx_model.data import roi_names as spelling
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import DataError

logger = logging.getLogger(__name__)

#: Repetition times that a scan of the brain can have, s; anything else is most likely in other units.
TR_RANGE_S: Final = (0.2, 12.0)
#: Steps of a 16-bit number in a standard deviation of a series, below which too much of it is lost.
MIN_STEPS_PER_SD: Final = 8.0
#: Digits of numpy's float16, the leading one with them.
_BITS_OF_HALF: Final = 11


def check_tr(tr_s: Any) -> float:
    """Return a repetition time in seconds, as a number.

    Parameters
    ----------
    tr_s : float, or an array or tensor of one number

    Raises
    ------
    DataError
        If it is not in seconds, with what it may be instead.
    """
    low, high = TR_RANGE_S
    if isinstance(tr_s, np.ndarray | torch.Tensor) and tr_s.ndim == 0:
        tr_s = tr_s.item()
    if not isinstance(tr_s, numbers.Real) or isinstance(tr_s, bool):
        msg = f"tr_s is {str(tr_s)[:40]!r}: give the repetition time in seconds, as a number"
        raise DataError(msg)
    try:
        tr_s = float(tr_s)
    except OverflowError:
        tr_s = math.inf
    except TypeError as error:  # numpy takes durations for whole numbers
        raise DataError(f"tr_s is {str(tr_s)[:40]!r}: give it in seconds, as a number") from error
    if math.isfinite(tr_s) and low <= tr_s <= high:
        return tr_s
    if math.isfinite(tr_s) and low <= tr_s / 1000 <= high:
        msg = f"tr_s is {tr_s:g}, which looks like milliseconds: give {tr_s / 1000:g}"
    else:
        msg = f"tr_s is {tr_s:g}: give the repetition time in seconds, between {low:g} and {high:g}"
    raise DataError(msg)


def is_table(value: Any) -> bool:
    """Whether `value` is a table with named columns, of pandas or polars."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy")


def rows_of_rois(series: Any, roi_names: Any, rois: RoiMetadata) -> NDArray[np.float64]:
    """Series with a row per ROI, in the model's order.

    Parameters
    ----------
    series : array-like or tensor, (R, T), or table
        Of a table the columns (or the rows, where their index has the names) decide which series is of which ROI.
    roi_names : sequence of str or bytes, or None
        Names of an array's rows; a table has its own.
    rois : RoiMetadata
        Of the model.

    Returns
    -------
    (R, T) float64

    Raises
    ------
    DataError
        If names are missing, unknown or in another order than the rows of an array may be in, or it holds no numbers.
    """
    if is_table(series):
        return _from_table(series, roi_names, rois)
    if isinstance(series, Mapping) or hasattr(series, "column_names"):
        kind = type(series).__name__
        msg = (
            f"the series is a {kind}, whose names are not read: give a table of pandas or polars, or an array"
        )
        raise DataError(msg)
    array = numbers_of(series, "the series")
    if array.ndim == 3:
        msg = f"the series has shape {array.shape}: embed takes one person, (ROIs, frames); encode_series takes many"
        raise DataError(msg)
    if array.ndim != 2:
        msg = f"series has shape {array.shape}, the model needs ({len(rois)} ROIs, frames): check atlas and axes"
        raise DataError(msg)
    if roi_names is None:
        msg = "roi_names is missing: name the rows of the series, with model.roi_names if they are those in this order"
        raise DataError(msg)
    names = texts(roi_names, "roi_names")
    order, note = spelling.match(names, rois.atlas, rois.names)
    if not np.array_equal(order, np.arange(len(rois))):
        # an array does not say which way its rows were meant: only a table carries its names
        rois.check_order(tuple(rois.names[i] for i in np.argsort(order)))
    if note:
        logger.warning("%s", note)
    return array


def by_names(values_RT: NDArray[np.float64], names: Sequence[str], rois: RoiMetadata) -> NDArray[np.float64]:
    """Rows in the model's order, by their names; a note says what was reordered or assumed.

    Raises
    ------
    DataError
        If the names are not those of the model's ROIs.
    """
    order, note = spelling.match(names, rois.atlas, rois.names)
    if note:
        logger.warning("%s", note)
    if not np.array_equal(order, np.arange(len(order))):
        logger.warning("the series' ROIs are in another order than the model's: reordered by their names")
    return values_RT[order]


def _from_table(table: Any, roi_names: Any, rois: RoiMetadata) -> NDArray[np.float64]:
    columns = texts(list(table.columns), "the table's columns")
    index = getattr(table, "index", None)
    by_row = index is not None and _known(list(index), rois) > _known(columns, rois)
    names = texts(list(index), "the table's index") if by_row and index is not None else columns
    if not by_row and columns and not any(_may_be_name(column) for column in table.columns):
        msg = (
            f"the table's columns have no names of ROIs, the first is {columns[0][:30]!r}: set its columns, or give an "
            "array (ROIs, frames) with roi_names"
        )
        raise DataError(msg)
    if roi_names is not None and sorted(texts(roi_names, "roi_names")) != sorted(names):
        raise DataError("the table has names of its own, other than roi_names: leave roi_names out")
    values = _values(table)
    if values.ndim != 2:
        raise DataError("the table has no rows and columns of numbers: give frames x ROIs")
    return by_names(values if by_row else values.T, names, rois)


def _may_be_name(column: Any) -> bool:
    """Whether it is text that is no number, as the first frame of a file without a header gives columns."""
    if not isinstance(column, str):
        return isinstance(column, bytes | tuple)
    try:
        float(column)
    except ValueError:
        return True
    return False


def _values(table: Any) -> NDArray[np.float64]:
    """Numbers of a table; what is missing in columns of pandas that have a mark for it becomes NaN."""
    if not hasattr(table, "isna"):
        return numbers_of(table.to_numpy(), "the table")
    values = table.to_numpy()
    if values.dtype.kind == "O":
        values = np.where(table.isna().to_numpy(), np.nan, values)
    return numbers_of(values, "the table")


def _known(names: Sequence[Any], rois: RoiMetadata) -> int:
    wanted = set(spelling.keys(rois.names, rois.names))
    return sum(key in wanted for key in spelling.keys([str(name) for name in names], rois.names))


def texts(names: Any, what: str) -> list[str]:
    """Names as a list of text; bytes, as HDF5 and MATLAB files give them, are decoded.

    Raises
    ------
    DataError
        If it is no list of names.
    """
    if isinstance(names, str | bytes) or not hasattr(names, "__iter__") or getattr(names, "ndim", 1) != 1:
        msg = f"{what} {'is one text' if isinstance(names, str | bytes) else 'is no list'}: give a list with a name per ROI"
        raise DataError(msg)
    try:
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    except UnicodeDecodeError as error:
        raise DataError(f"{what} holds bytes that are no UTF-8: decode them") from error


def numbers_of(value: Any, what: str) -> NDArray[np.float64]:
    """Numbers of an array, a tensor on any device, or nested lists, as float64; what is masked becomes NaN.

    Raises
    ------
    DataError
        If they are no real numbers, or rounded so coarsely that little is left of a series.
    """
    if isinstance(value, torch.Tensor):
        check_dense(value, what)
        check_digits(value, what)
        return value.detach().cpu().double().numpy()
    try:
        masked = isinstance(value, np.ma.MaskedArray)
        array = value if masked else np.asarray(value)
        if array.dtype.kind not in "fiuO":
            raise TypeError(f"they are {array.dtype}")
        half, array = array.dtype == np.float16, array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} holds no numbers ({str(error)[:60]}): give an array of numbers") from error
    array = np.ma.filled(array, np.nan) if masked else array
    if half:
        _check_steps(array, _BITS_OF_HALF, what)
    return array


def check_dense(value: torch.Tensor, what: str) -> None:
    """Refuse a tensor of anything but real numbers, all of them there.

    Raises
    ------
    DataError
        If it is complex, boolean, quantized, nested, sparse, or without data.
    """
    numbers_there = not (value.is_complex() or value.dtype == torch.bool or value.is_quantized)
    if not numbers_there or value.is_nested or value.layout != torch.strided or value.is_meta:
        raise DataError(f"{what} is a {value.dtype} tensor: give real numbers in a dense one")


def check_digits(value: torch.Tensor, what: str) -> None:
    """Refuse a tensor of short floats whose steps are coarse beside the spread of its rows, as with a large offset.

    Raises
    ------
    DataError
        With the number of steps.
    """
    if value.is_floating_point() and value.dtype.itemsize < 4:
        bits = 1 - round(math.log2(torch.finfo(value.dtype).eps))
        _check_steps(value.detach().cpu().double().numpy(), bits, what)


def _check_steps(array: NDArray[np.float64], bits: int, what: str) -> None:
    if array.ndim < 2 or not array.size:
        return
    known = array[np.isfinite(array).all(axis=-1)]
    if not known.size:
        return
    step = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(known).max(axis=-1), 1e-30))) + 1 - bits)
    spread = known.std(axis=-1)
    steps = float(np.median(np.where(spread > 0, spread, np.inf) / step))
    if steps < MIN_STEPS_PER_SD:
        msg = f"{what} in half precision has {steps:.2g} steps per standard deviation: give float32, or subtract the means"
        raise DataError(msg)
