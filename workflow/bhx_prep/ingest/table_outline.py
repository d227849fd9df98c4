"""Frames and repetition time of a ROI x time table, without reading all of it.

The standard library only is imported at the top: the index calls this for every table of a cohort.
"""

from __future__ import annotations

import json
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata
from bhx_prep.io import axis_labels, text_table
from bhx_prep.io.axis_labels import Axis
from bhx_prep.io.stated_axes import StatedAxes, roi_axis

#: Endings of ROI x time tables.
TABLES: Final = (
    ".tsv", ".tsv.gz", ".csv", ".csv.gz", ".txt", ".1D", ".parquet", ".feather", ".npy", ".ptseries.nii",
)  # fmt: skip


@dataclass(frozen=True)
class Outline:
    """What is known of a table.

    Attributes
    ----------
    n_frames : int or None
    tr_s : float or None
        Repetition time (s).
    note : str or None
        Where the names of an array are from.
    """

    n_frames: int | None = None
    tr_s: float | None = None
    note: str | None = None


def read_outline(path: Path, stated: StatedAxes | None = None, *, sidecar: Path | None = None) -> Outline:
    """Frames and repetition time of a ROI x time table, as far as they are known without reading it.

    Labels decide which axis is time: those that count frames (``t1``, ``timepoint_1``), or names of ROIs. An array has no
    labels: its axes are what the cohort states, or what lies beside it.

    Parameters
    ----------
    path : Path
    stated : StatedAxes, optional
        What the cohort states about tables without names.
    sidecar : Path, optional
        JSON file that applies to the table.

    Raises
    ------
    DataError
        With a sentence if the table cannot be read, is no table, has less than two frames, or is an array without names.
    """
    metadata.check_file(path)
    ending = next((e for e in TABLES if path.name.lower().endswith(e.lower())), None)
    if ending is None:
        msg = f"not a table that BHX reads: {', '.join(TABLES)}"
        raise DataError(msg)
    if ending == ".ptseries.nii":
        return Outline(*metadata.read_cifti_series(path))
    if ending == ".npy":
        return _of_array(path, stated or StatedAxes(), sidecar)
    if ending in (".parquet", ".feather"):
        return _of_arrow(path, ending)
    frames = _frames_by_label(_first_cells(path))
    return Outline(None if frames is None else metadata.check_frames(frames))


def _of_array(path: Path, stated: StatedAxes, sidecar: Path | None) -> Outline:
    import numpy as np

    try:
        array = np.lib.format.open_memmap(path, mode="r", max_header_size=text_table.MAX_HEADER)
    except (OSError, ValueError, SyntaxError, tokenize.TokenError) as error:  # NumPy parses Python there
        if "Python objects" in str(error):
            raise DataError("the array holds Python objects: save it as an array of numbers") from error
        raise _unreadable(error) from error
    if array.dtype.names:  # records have names, see `bhx_prep.io.series_table`
        return Outline()
    if array.ndim != 2:
        msg = f"the array is {array.ndim}D: expected ROI x time"
        raise DataError(msg)
    if array.dtype.kind not in "iuf":
        raise DataError(f"the array has {array.dtype.name[:40]} values: expected real numbers")
    metadata.check_frames(min(array.shape))
    if _counts(array):  # which axis it is decides itself when that is taken out
        return Outline()
    axis, _, said = roi_axis(array.shape, stated, path, sidecar)
    return Outline(int(array.shape[1 - axis]), None, said)


def _counts(array: Any) -> bool:
    """Whether its first row or column is labels; only the first page of the file is read if that suffices."""
    lines = (array[0], array[1]), (array[:, 0], array[:, 1])
    return any(
        (axis_labels.counts(line[:3].tolist()) and axis_labels.counts(line.tolist()))
        or all(axis_labels.are_labels(line[:n].tolist(), beside[:n].tolist()) for n in (5, len(line)))
        for line, beside in lines
    )


def _of_arrow(path: Path, ending: str) -> Outline:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_rows = None
    try:
        if ending == ".parquet":
            file = pq.ParquetFile(path)
            n_rows, schema = file.metadata.num_rows, file.schema_arrow
        else:
            with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as feather:
                schema = feather.schema
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _unreadable(error) from error
    stated = schema.metadata or {}
    index = _json(stated.get(b"pandas")).get("index_columns", [])
    columns = [name for name in schema.names if name not in index]
    frames = _frames_by_label(columns)
    if frames is None and columns and axis_labels.kind(columns[1:]) is Axis.NAMES:
        frames = n_rows
    tr_s = _json(stated.get(b"bhx")).get("tr_s")  # as `bhx parcellate` writes it
    tr_s = float(tr_s) if isinstance(tr_s, int | float) and not isinstance(tr_s, bool) else None
    return Outline(None if frames is None else metadata.check_frames(frames), tr_s)


def _json(raw: bytes | None) -> Mapping[str, Any]:
    try:
        stated = json.loads(raw or b"{}")
    except ValueError:
        return {}
    return stated if isinstance(stated, dict) else {}


def _first_cells(path: Path) -> list[str]:
    line = text_table.first_line(path)
    separator = next((s for s in ("\t", ";", ",") if s in line), None)
    return [axis_labels.clean(cell) for cell in text_table.split([line], separator, path)[0]]


def _frames_by_label(labels: Sequence[str]) -> int | None:
    """Number of labels that count frames, if all but the first do."""
    frames = [axis_labels.is_frame(axis_labels.clean(label)) for label in labels]
    return sum(frames) if len(frames) > 1 and all(frames[1:]) else None


def _unreadable(error: Exception) -> DataError:
    return DataError(
        f"the table cannot be read ({type(error).__name__}): it is truncated, or something else than its name says"
    )
