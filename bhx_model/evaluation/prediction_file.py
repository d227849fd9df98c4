"""``predictions.parquet``: the predictions of one method for every subject of one split. Needs no torch."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import DataError

#: Columns and what is in them: name, and type as PyArrow calls it.
COLUMNS: Final = {
    "subject": "string",
    "cohort": "string",
    "split": "string",
    "truth": "double",
    "prediction": "double",
    "score": "double",
    "probabilities": "list<element: float>",
}


@dataclasses.dataclass(frozen=True)
class PredictionTable:
    """Subjects of all splits, in the order of the split file."""

    subject: np.ndarray
    """(n,) str, labels within the cohort."""
    cohort: np.ndarray
    """(n,) str."""
    split: np.ndarray
    """(n,) train, val or test."""
    truth: np.ndarray
    """(n,) float64, class numbers or values."""
    prediction: np.ndarray
    """(n,) float64."""
    scores: np.ndarray
    """(n, classes) probabilities or (n, 1) values, float64."""

    @property
    def people(self) -> np.ndarray:
        """Who they are, over cohorts: (n,) str, `cohort/subject`."""
        return np.array([f"{c}/{s}" for c, s in zip(self.cohort, self.subject, strict=True)], str)

    def of(self, split: str) -> np.ndarray:
        """Which subjects are in `split`: (n,) bool."""
        return self.split == split


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one row per subject.

    Parameters
    ----------
    path : Path
    rows : sequence of mappings
        The names of `COLUMNS`: subject, cohort, split, truth, prediction, score (probability of class 1, of the predicted
        class if there are more than two, or the value) and probabilities (of all classes; empty for a regression).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"string": pa.string(), "double": pa.float64()}
    schema = pa.schema([(name, types.get(of, pa.list_(pa.float32()))) for name, of in COLUMNS.items()])
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    with atomic_write(path) as part:
        pq.write_table(table, part)


def read(path: Path) -> PredictionTable:
    """Read what `write` wrote.

    Raises
    ------
    DataError
        If it is no such file.
    OSError
        If it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            table = pq.read_table(file)
    except pa.ArrowException as error:
        msg = f"{path} is no Parquet file, or a broken one: evaluate again"
        raise DataError(msg) from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing or not table.num_rows:
        msg = f"{path} has no {', '.join(missing) or 'rows'}, these are no predictions: evaluate again"
        raise DataError(msg)
    column = {name: table.column(name).to_pylist() for name in COLUMNS}
    of_classes = bool(column["probabilities"][0])
    return PredictionTable(
        subject=np.array(column["subject"], str),
        cohort=np.array(column["cohort"], str),
        split=np.array(column["split"], str),
        truth=np.array(column["truth"], np.float64),
        prediction=np.array(column["prediction"], np.float64),
        scores=np.array(column["probabilities"], np.float64)
        if of_classes
        else np.array(column["score"], np.float64)[:, None],
    )


def people_sha256(people: Iterable[str]) -> str:
    """Hash of who they are, in whatever order.

    Parameters
    ----------
    people : iterable of str
        `cohort/subject`.
    """
    return hashlib.sha256("\n".join(sorted(people)).encode()).hexdigest()
