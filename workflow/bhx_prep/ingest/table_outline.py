"""What a ROI x time table states without being read: its frames, and the time between them.

The standard library only is imported at the top: the index calls this for every table of a cohort.
"""

from __future__ import annotations

import csv
import gzip
import re
import tokenize
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata

#: Endings of ROI x time tables.
TABLES: Final = (".tsv", ".csv", ".csv.gz", ".parquet", ".npy", ".ptseries.nii")

# column names that number frames; bare numbers might as well number ROIs
_FRAME = re.compile(r"(t|time|timepoint|frame|volume|vol|tr)[ _-]?\d+", re.IGNORECASE)


def read_table_frames(path: Path) -> tuple[int | None, float | None]:
    """Frames and repetition time (s) of a ROI x time table, as far as they are known without reading it.

    Column names decide which axis is time: names that number frames (``t1``, ``timepoint_1``), or names of ROIs.
    Arrays have no names and are ROI x time.

    Raises
    ------
    DataError
        With a sentence if the table cannot be read, is no table or has less than two frames.
    """
    metadata.check_file(path)
    ending = next((e for e in TABLES if path.name.endswith(e)), None)
    if ending is None:
        msg = f"not a table that BHX reads: {', '.join(TABLES)}"
        raise DataError(msg)
    if ending == ".ptseries.nii":
        return metadata.read_cifti_series(path)
    shape, columns = _table_outline(path, ending)
    if shape is not None and len(shape) != 2:
        msg = f"the array is {len(shape)}D: expected ROI x time"
        raise DataError(msg)
    frames = _frames_by_name(columns)
    if frames is None and shape is not None and not (columns and all(c.isdecimal() for c in columns)):
        frames = shape[0] if columns else shape[1]
    return None if frames is None else metadata.check_frames(frames), None


def _table_outline(path: Path, ending: str) -> tuple[tuple[int, ...] | None, list[str]]:
    """Shape of a table where that costs nothing, and its column names."""
    if ending == ".npy":
        import numpy as np

        try:
            return np.lib.format.open_memmap(path, mode="r").shape, []
        except (OSError, ValueError, SyntaxError, tokenize.TokenError) as error:  # NumPy parses Python there
            raise _unreadable(error) from error
    if ending == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(path)
            return (file.metadata.num_rows, file.metadata.num_columns), file.schema_arrow.names
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise _unreadable(error) from error
    opener = gzip.open if ending.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="latin-1") as file:
            return None, next(csv.reader(file, delimiter="\t" if ending == ".tsv" else ","), [])
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> DataError:
    return DataError(f"the table cannot be read ({type(error).__name__})")


def _frames_by_name(columns: Sequence[str]) -> int | None:
    """Number of columns that number frames, if all but the first do."""
    frames = [bool(_FRAME.fullmatch(c.strip())) for c in columns]
    return sum(frames) if len(frames) > 1 and all(frames[1:]) else None
