"""Whatever bytes a damaged file has, it gives a `DataError` or values, and its scan a row: never another exception."""

from __future__ import annotations

import gzip
import json
import re
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_bids import rows_of, write_subject

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata, repetition_time, table_outline
from bhx_prep.io.stated_axes import StatedAxes


def _nifti(kind) -> bytes:
    image = kind(np.zeros((4, 4, 4, 3), np.int16), np.diag([50, 50, 50, 1]))
    image.header.set_xyzt_units("mm", "sec")
    return image.to_bytes()


def _cifti() -> bytes:
    series = nib.cifti2.SeriesAxis(0, 2, 3, "SECOND")
    parcels = nib.cifti2.ScalarAxis(["a", "b"])
    return nib.Cifti2Image(np.zeros((3, 2), np.float32), (series, parcels)).to_bytes()


def _gifti() -> bytes:
    arrays = [nib.gifti.GiftiDataArray(np.zeros(4, np.float32)) for _ in range(3)]
    return nib.gifti.GiftiImage(darrays=arrays).to_bytes()


def _npy() -> bytes:
    out = pa.BufferOutputStream()
    np.save(out, np.zeros((5, 7), np.float32))
    return out.getvalue().to_pybytes()


def _parquet() -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"label_name": ["a", "b"], "t1": [0.0, 1.0], "t2": [2.0, 3.0]}), out)
    return out.getvalue().to_pybytes()


def _refusal(read, *arguments) -> str | None:
    """What a reader refuses, if it does; any other exception than a DataError passes."""
    try:
        read(*arguments)
    except DataError as error:
        return str(error)
    return None


def _header(path: Path) -> tuple[int, ...]:
    header = metadata.read_header(path)
    metadata.header_repetition_time(header)
    _refusal(metadata.n_frames, header)
    _refusal(metadata.voxel_sizes, {"VoxelSizes": [4, 4, 4]}, header)
    metadata.voxel_sizes({}, header)
    return header.get_data_shape()


READERS = {
    "one.nii": (_nifti(nib.Nifti1Image), _header),
    "two.nii": (_nifti(nib.Nifti2Image), _header),
    "zipped.nii.gz": (gzip.compress(_nifti(nib.Nifti1Image)), _header),
    "x.dtseries.nii": (_cifti(), metadata.read_cifti_series),
    "x.func.gii": (_gifti(), metadata.read_gifti_frames),
    "x.npy": (_npy(), partial(table_outline.read_outline, stated=StatedAxes(None, tuple("abcde"), "n"))),
    "x.parquet": (_parquet(), table_outline.read_outline),
    "x.csv": (b"label_name,t1,t2\na,1,2\nb,3,4\n", table_outline.read_outline),
    "x.csv.gz": (gzip.compress(b"label_name,t1,t2\na,1,2\nb,3,4\n"), table_outline.read_outline),
    "x.tsv": (b"label_name\tt1\tt2\na\t1\t2\nb\t3\t4\n", table_outline.read_outline),
    "x.ptseries.nii": (_cifti(), table_outline.read_outline),
}

OF_TABLE = table_outline.Outline(2)
#: What is in them.
CONTENTS = {
    "one.nii": (4, 4, 4, 3),
    "two.nii": (4, 4, 4, 3),
    "zipped.nii.gz": (4, 4, 4, 3),
    "x.dtseries.nii": (3, 2.0),
    "x.func.gii": 3,
    "x.npy": table_outline.Outline(
        7, note="ROI order taken as given: rows are the ROIs of n, the table names none"
    ),
    "x.parquet": OF_TABLE,
    "x.csv": OF_TABLE,
    "x.csv.gz": OF_TABLE,
    "x.tsv": OF_TABLE,
    "x.ptseries.nii": table_outline.Outline(3, 2.0),
}

#: Bytes to replace (place, value), of which most fall where headers are, and where the file is cut.
DAMAGE = st.tuples(
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=6),
    st.one_of(st.none(), st.integers(0, 1200)),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def _damaged(content: bytes, damage) -> bytes:
    replaced, cut = damage
    content = bytearray(content[:cut])
    for at, value in replaced:
        if content:
            content[at % len(content)] = value
    return bytes(content)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150)
@given(damage=DAMAGE)
def test_damaged_bytes(place, name, damage):
    content, read = READERS[name]
    path = place / name
    path.write_bytes(_damaged(content, damage))
    assert _refusal(read, path) != ""


@pytest.mark.parametrize("name", READERS)
def test_sound_bytes(place, name):
    content, read = READERS[name]
    (place / name).write_bytes(content)
    assert read(place / name) == CONTENTS[name]


@pytest.mark.parametrize(
    ("step", "tr_s"), [(b"x", None), (b"1e308", None), (b"nan", None), (b"1e-400", 0.0), (b"2", 2000.0)]
)
def test_the_step_of_a_cifti_series_may_be_anything(place, step, tr_s):
    path = place / "step.dtseries.nii"
    path.write_bytes(re.sub(rb'SeriesStep="[^"]*"', b'SeriesStep="%b"' % step, _cifti()))
    content = re.sub(rb'SeriesExponent="[^"]*"', b'SeriesExponent="3"', path.read_bytes())
    path.write_bytes(content)
    if step == b"x":
        with pytest.raises(DataError, match="has a damaged CIFTI header: could not convert"):
            metadata.read_cifti_series(path)
    else:
        assert metadata.read_cifti_series(path)[1] == tr_s


#: What a sidecar may hold, of which names that are read.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
FIELDS = st.fixed_dictionaries(
    {}, optional={name: VALUES for name in ("RepetitionTime", "VolumeTiming", "VoxelSizes")}
)


@settings(max_examples=150)
@given(fields=FIELDS, measured=st.none() | st.floats(), frames=st.none() | st.integers(0, 4))
@example(fields={"RepetitionTime": 10**400}, measured=None, frames=None)
@example(fields={"VolumeTiming": [0, 10**400]}, measured=2.0, frames=2)
@example(fields={"VolumeTiming": [-1e308, 1e308, 0]}, measured=2.0, frames=3)
@example(fields={"VoxelSizes": [10**400, 1, 1]}, measured=2.0, frames=3)
def test_sidecars_may_hold_anything(fields, measured, frames):
    header = nib.Nifti1Header()
    for shape in ((4, 4, 4, 3), (4, 4)):
        header.set_data_shape(shape)
        refusal = _refusal(metadata.voxel_sizes, fields, header)
        assert len(refusal or "") < 500
        if refusal is None:
            assert all(size > 0 for size in metadata.voxel_sizes(fields, header))
    refusal = _refusal(lambda: repetition_time.choose(fields, measured, frames=frames))
    assert len(refusal or "") < 500
    if refusal is None:
        assert (
            repetition_time.MIN_TR_S
            <= repetition_time.choose(fields, measured, frames=frames)[0]
            <= repetition_time.MAX_TR_S
        )


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "\x00", '{"RepetitionTime": ' + "9" * 5000 + "}", "[" * 100_000, "\ufeff{}", "{}{}"],
)
def test_sidecars_that_are_no_json_are_a_reason(tmp_path, text):
    bold = write_subject(tmp_path)
    bold.with_name("sub-01_task-rest_bold.json").write_text(text)
    rows = rows_of(tmp_path)
    bold_row = next(row for row in rows if row["modality"] == "bold")
    assert (bold_row["status"] == "ok") == (text == "\ufeff{}")


@settings(max_examples=40)
@given(damage=DAMAGE)
def test_a_damaged_scan_is_a_row(tmp_path_factory, damage):
    root = tmp_path_factory.mktemp("bids")
    bold = write_subject(root)
    bold.write_bytes(gzip.compress(_damaged(gzip.decompress(bold.read_bytes()), damage), mtime=0))
    sidecar = bold.with_name("sub-01_task-rest_bold.json")
    sidecar.write_bytes(_damaged(json.dumps({"RepetitionTime": 2.0}).encode(), damage))
    rows = rows_of(root)
    assert {row["modality"] for row in rows} == {"bold", "t1w"}
    assert all((row["status"] == "ok") == (row["reason"] is None) for row in rows)
