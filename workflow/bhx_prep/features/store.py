"""Arrays passed from features to shards: an Arrow file with one record per sample.

They are in the form that a shard carries already (`bhx_model.data.timeseries`, `bhx_model.data.volumes`), so that packing
maps the file into memory and copies; a checksum finds bytes that went bad since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
from isal import isal_zlib

from bhx_model import contract
from bhx_model.errors import DataError

_SAMPLE = {
    "key": pa.string(),
    "subject": pa.string(),
    "session": pa.string(),
    "synthetic": pa.bool_(),
    "crc32": pa.uint32(),
    "content": pa.large_binary(),
}

#: Columns of a modality's file.
COLUMNS = {
    "bold": _SAMPLE
    | {
        "task": pa.string(),
        "run": pa.string(),
        "anat": pa.string(),
        "tr_s": pa.float64(),
        "n_frames": pa.int64(),
        "segments": pa.list_(pa.list_(pa.int64())),
    },
    "t1w": _SAMPLE
    | {
        "shape": pa.list_(pa.int64()),
        "zooms_mm": pa.list_(pa.float64()),
        "affine": pa.list_(pa.list_(pa.float64())),
    },
}


class Writer:
    """Write a modality's file one sample at a time: a batch need not fit into memory. Equal input, equal bytes."""

    def __init__(self, path: Path, modality: str, metadata: Mapping[str, Any]) -> None:
        self._schema = pa.schema(COLUMNS[modality], metadata={b"bhx": contract.canonical_json(metadata)})
        self._file = pa.OSFile(str(path), "wb")
        self._records = pa.ipc.new_file(self._file, self._schema)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._records.close()
        finally:
            self._file.close()

    def add(self, row: Mapping[str, Any], content: bytes) -> None:
        """Append a sample; of `row` the columns count, and what else it holds does not."""
        row = {**row, "content": content, "crc32": isal_zlib.crc32(content)}
        known = {name: row[name] for name in self._schema.names}
        self._records.write_batch(pa.RecordBatch.from_pylist([known], self._schema))


@dataclass(frozen=True)
class Sample:
    """A sample of a file.

    Attributes
    ----------
    row : dict
        Its columns.
    content : memoryview
        Its array, mapped into memory; `check` before use.
    """

    row: dict[str, Any]
    content: memoryview
    _crc32: int
    _path: Path

    def check(self) -> None:
        """Refuse a content whose bytes went bad since it was written.

        Raises
        ------
        DataError
            If they did.
        """
        if isal_zlib.crc32(self.content) != self._crc32:
            raise _unreadable(self._path, f"the content of {self.row['key']} has another checksum")


def read(path: Path) -> tuple[dict[str, Any], list[Sample]]:
    """Metadata of a file, and every sample in it.

    Raises
    ------
    DataError
        If the file is gone, damaged, or none of these.
    """
    try:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
            metadata = json.loads((file.schema.metadata or {})[b"bhx"])
            batches = [file.get_batch(number) for number in range(file.num_record_batches)]
        rows = [batch.drop_columns(["content"]).to_pylist()[0] for batch in batches]
        # the last buffer of a record's content is its bytes where they are mapped; a scalar would be a copy
        contents = [memoryview(batch["content"].buffers()[-1]) for batch in batches]
        samples = [Sample(row, c, row.pop("crc32"), path) for row, c in zip(rows, contents, strict=True)]
    except (OSError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error
    return metadata, samples


def _unreadable(path: Path, why: object) -> DataError:
    return DataError(f"{path} cannot be read ({why}): extract the features of this batch again")
