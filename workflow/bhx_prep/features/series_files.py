"""Read the series of a cohort's batches (``timeseries.parquet``): the list of runs, and one run at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.errors import DataError
from bhx_prep.features.fingerprint import N_PROJECTIONS

FILE = "timeseries.parquet"


@dataclass(frozen=True)
class StoredRun:
    """A run in a file of series.

    Attributes
    ----------
    key, subject : str
    tr_s : float
        Repetition time (s).
    n_rois, n_frames : int
    file : Path
    row : int
        Its row in the file.
    """

    key: str
    subject: str
    tr_s: float
    n_rois: int
    n_frames: int
    file: Path
    row: int

    def series(self) -> np.ndarray:
        """Series (R, T) float32, NaN where an ROI has no coverage.

        Raises
        ------
        DataError
            If the file changed or cannot be read.
        """
        try:
            with pq.ParquetFile(self.file) as file:
                first = 0
                for group in range(file.num_row_groups):
                    n = file.metadata.row_group(group).num_rows
                    if self.row < first + n:
                        table = file.read_row_group(group, columns=["series"])
                        values = table["series"].combine_chunks()[self.row - first].values
                        return values.to_numpy(zero_copy_only=False).reshape(self.n_rois, self.n_frames)
                    first += n
        except (OSError, pa.ArrowException, ValueError) as error:
            raise _unreadable(self.file, error) from error
        raise _unreadable(self.file, f"it has no row {self.row}")


@dataclass(frozen=True)
class StoredRuns:
    """All runs of some files.

    Attributes
    ----------
    runs : list of StoredRun
    fingerprints : ndarray, (N, 2 * N_PROJECTIONS) float32
        See `bhx_prep.features.fingerprint`.
    atlas : str
        Its label; empty if there is no file.
    roi_sha256 : str
        Hash of the atlas and its order.
    """

    runs: list[StoredRun]
    fingerprints: np.ndarray
    atlas: str
    roi_sha256: str


def list_runs(files: Sequence[Path]) -> StoredRuns:
    """List the runs of files of one atlas, in the order of the files.

    Raises
    ------
    DataError
        If a file cannot be read, is of another atlas, or was made before runs had fingerprints.
    """
    runs: list[StoredRun] = []
    fingerprints = [np.empty((0, 2 * N_PROJECTIONS), np.float32)]
    atlas = roi_sha256 = ""
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                metadata = json.loads((file.schema_arrow.metadata or {})[b"bhx"])
                columns = ["key", "subject", "tr_s", "n_frames", "fingerprint"]
                table = file.read(columns=[name for name in columns if name in file.schema_arrow.names])
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise _unreadable(path, error) from error
        if "fingerprint" not in table.column_names:
            raise _unreadable(path, "an earlier version wrote it")
        if roi_sha256 and metadata["roi_sha256"] != roi_sha256:
            raise _unreadable(path, f"it is not of {atlas}, or in another order of ROIs")
        atlas, roi_sha256 = metadata["atlas"], metadata["roi_sha256"]
        n_rois = len(metadata["names"])
        for row, (key, subject, tr_s, n) in enumerate(
            zip(*(table[name].to_pylist() for name in columns[:4]), strict=True)
        ):
            runs.append(StoredRun(key, subject, tr_s, n_rois, n, path, row))
        flat = table["fingerprint"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        fingerprints.append(flat.reshape(-1, 2 * N_PROJECTIONS))
    return StoredRuns(runs, np.concatenate(fingerprints), atlas, roi_sha256)


def _unreadable(path: Path, why: object) -> DataError:
    return DataError(f"{path} cannot be read ({why}): extract the features of this batch again")
