"""CIFTI-2 files: their header, their rows, and the labels of a label file.

The file is a NIfTI-2 image whose XML, an extension of the header, names the rows. Files of one study share that XML, and
parsing it costs more than reading the data: it is parsed once for all of them. Rows are mapped into memory.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import nibabel as nib
import numpy as np

from bhx_model.errors import DataError
from bhx_prep.io.reading import reading

#: CIFTI's names of the two hemispheres, left first.
CORTEX: Final[tuple[str, str]] = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")

#: Bytes of a NIfTI-2 header, and of the flags after it.
_HEADER, _FLAGS = 540, 4
#: Code of the extension that holds the XML.
_XML_CODE: Final = 32


@dataclass(frozen=True)
class Surface:
    """Rows on a hemisphere.

    Attributes
    ----------
    structure : str
        One of `CORTEX`.
    offset : int
        Row ``offset + i`` belongs to vertex ``vertices[i]``.
    vertices : numpy.ndarray of int64, shape (n,)
    n_vertices : int
        Of the mesh.
    """

    structure: str
    offset: int
    vertices: np.ndarray
    n_vertices: int


@dataclass(frozen=True)
class Axes:
    """What the XML states about columns and rows.

    Attributes
    ----------
    n_frames : int
        Length of the series axis; 0 without one.
    tr_s : float or None
        Step of the series axis (s).
    surfaces : tuple of Surface
        Rows on the cortex.
    voxels : tuple of (offset, (n, 3) voxel indices)
        Rows in the volume.
    grid : tuple of int, and (4, 4) affine (mm), or None
        On which the voxels are counted.
    parcels : tuple of str
        Names of the rows of a parcellated series.
    labels : dict of int to str
        Names of the labels of a label file's first map.
    """

    n_frames: int
    tr_s: float | None
    surfaces: tuple[Surface, ...]
    voxels: tuple[tuple[int, np.ndarray], ...]
    grid: tuple[tuple[int, ...], np.ndarray] | None
    parcels: tuple[str, ...]
    labels: dict[int, str]


@dataclass(frozen=True)
class _Head:
    """The NIfTI-2 header, and the unparsed XML of the file."""

    n_columns: int
    n_rows: int
    dtype: np.dtype
    offset: int
    slope: float
    inter: float
    xml: bytes


def series_length(path: Path) -> tuple[int, float | None]:
    """Frames of a series (dense or parcellated), and seconds between them where its header specifies them.

    The XML is searched, not parsed: that would take longer than to read the data.

    Raises
    ------
    DataError
        If it is no CIFTI file of a series.
    """
    head = _read_head(path)
    found = {key: value for key, value in re.findall(rb'Series(Step|Unit|Exponent)="([^"]*)"', head.xml)}
    with reading(path, "has a damaged CIFTI header"):
        return head.n_columns, _seconds(
            found.get(b"Unit", b"").decode("latin-1"),
            found.get(b"Step", b"nan").decode("latin-1"),
            found.get(b"Exponent", b"0").decode("latin-1"),
        )


def read_series(path: Path) -> tuple[Axes, np.ndarray]:
    """Axes and rows of a series, without copying them.

    Returns
    -------
    axes : Axes
    rows : numpy.ndarray of shape (N, T)
        Mapped into memory: CIFTI keeps the frames of a row together on disk.

    Raises
    ------
    DataError
        If the file is no CIFTI series of two frames or more, or shorter than its header says.
    """
    head, axes = _read(path)
    if axes.n_frames != head.n_columns or head.n_columns < 2:
        msg = f"{path.name}: {head.n_columns} frames in its header, {axes.n_frames} in its series axis"
        raise DataError(msg)
    if head.dtype.kind != "f":
        msg = f"{path.name} holds {head.dtype} values: a dense or parcellated series of floats is expected"
        raise DataError(msg)
    return axes, _rows(path, head)


def read_labels(path: Path) -> tuple[Axes, np.ndarray]:
    """Axes and labels of a file with one map: a ``.dlabel.nii``, or a ``.dscalar.nii`` of whole numbers.

    Returns
    -------
    axes : Axes
    labels : numpy.ndarray of int64, shape (N,)
        A label per row.

    Raises
    ------
    DataError
        If it is no CIFTI file with one map.
    """
    head, axes = _read(path)
    if head.n_columns != 1 or axes.n_frames or head.dtype.kind not in "iuf":
        raise DataError(f"{path.name} is no CIFTI label file with one map")
    values = _rows(path, head)[:, 0]
    if not np.isfinite(values).all():
        raise DataError(f"{path.name} holds labels that are no numbers")
    return axes, values.astype(np.int64)


def _read(path: Path) -> tuple[_Head, Axes]:
    """Header and axes of a file that is as long as they say."""
    head = _read_head(path)
    try:
        axes = _parse(hashlib.sha256(head.xml).digest(), head.xml)
    except DataError as error:  # the same for all files of this header
        raise DataError(f"{path.name}: {error}") from error
    with reading(path):
        size = path.stat().st_size
    missing = head.offset + head.n_rows * head.n_columns * head.dtype.itemsize - size
    if missing > 0:
        raise DataError(f"{path.name} is {missing} bytes too short: it is truncated, fetch it again")
    for offset, n in [(s.offset, s.vertices.size) for s in axes.surfaces] + [
        (offset, len(index)) for offset, index in axes.voxels
    ]:
        if offset < 0 or offset + n > head.n_rows:
            msg = f"{path.name}: its brain models end in row {offset + n}, the file has {head.n_rows} rows"
            raise DataError(msg)
    return head, axes


def _rows(path: Path, head: _Head) -> np.ndarray:
    with reading(path):
        rows = np.memmap(path, head.dtype, "r", head.offset, (head.n_rows, head.n_columns))
    return rows if (head.slope, head.inter) == (1, 0) else rows * head.slope + head.inter


def _read_head(path: Path) -> _Head:
    with reading(path), path.open("rb") as file:
        raw = file.read(_HEADER + _FLAGS)
        if len(raw) < _HEADER + _FLAGS or raw[:4] not in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c"):
            raise DataError(f"{path.name} is no CIFTI-2 file")
        header = nib.Nifti2Header(raw[:_HEADER])
        shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), int(header["vox_offset"])
        slope, inter = header.get_slope_inter()
        # CIFTI keeps its two axes, columns first, in dimensions five and six
        if len(shape) != 6 or min(shape) < 1:
            msg = f"{path.name} is no CIFTI series: it has shape {' x '.join(map(str, shape))}"
            raise DataError(msg)
        if offset > path.stat().st_size:
            msg = f"{path.name} is {offset - path.stat().st_size} bytes too short: it is truncated, fetch it again"
            raise DataError(msg)
        xml = _xml(file.read(max(0, offset - _HEADER - _FLAGS)), "<" if raw[0] == 0x1C else ">", path)
    return _Head(
        math.prod(shape[:5]), int(shape[5]), dtype, offset, 1.0 if slope is None else slope, inter or 0.0, xml
    )


def _xml(extensions: bytes, order: str, path: Path) -> bytes:
    position = 0
    while position + 8 <= len(extensions):
        size, code = (int(n) for n in np.frombuffer(extensions, f"{order}i4", 2, position))
        if size < 8:
            break
        if code == _XML_CODE:
            return extensions[position + 8 : position + size].rstrip(b"\x00")
        position += size
    raise DataError(f"{path.name} has no CIFTI header")


@lru_cache(maxsize=16)
def _parse(_digest: bytes, xml: bytes) -> Axes:
    """Parse the XML once for all files that share it."""
    try:
        root = ElementTree.fromstring(xml)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the last two for an unknown encoding
        raise DataError(f"its CIFTI header is no XML: {error}") from error
    try:
        return _axes(root)
    except (ValueError, OverflowError) as error:  # of numbers that are none
        if isinstance(error, DataError):
            raise
        raise DataError(f"its CIFTI header is damaged: {error}") from error


def _axes(root: ElementTree.Element) -> Axes:
    surfaces, voxels, grid, n_frames, tr_s, labels = [], [], None, 0, None, {}
    for index_map in root.iter("MatrixIndicesMap"):
        dimensions = index_map.get("AppliesToMatrixDimension", "")
        if index_map.get("IndicesMapToDataType") == "CIFTI_INDEX_TYPE_SERIES":
            if "0" not in dimensions.split(","):
                raise DataError(
                    "its series axis is not the first one: a series (dtseries, ptseries) is expected"
                )
            n_frames = int(index_map.get("NumberOfSeriesPoints", "0"))
            tr_s = _seconds(
                index_map.get("SeriesUnit", ""),
                index_map.get("SeriesStep", "nan"),
                index_map.get("SeriesExponent", "0"),
            )
        for model in index_map.iter("BrainModel"):
            structure = model.get("BrainStructure", "")
            offset = int(model.get("IndexOffset", "0"))
            if structure in CORTEX:
                vertices, n = (
                    _integers(model, "VertexIndices"),
                    int(model.get("SurfaceNumberOfVertices", "0")),
                )
                if vertices.size and not 0 <= vertices.min() <= vertices.max() < n:
                    raise DataError(f"its CIFTI header is damaged: {structure} names vertices beyond its {n}")
                surfaces.append(Surface(structure, offset, vertices, n))
            elif model.get("ModelType") == "CIFTI_MODEL_TYPE_VOXELS":
                voxels.append((offset, _integers(model, "VoxelIndicesIJK").reshape(-1, 3)))
        for volume in index_map.iter("Volume"):
            grid = _grid(volume) or grid
        for table in index_map.iter("LabelTable"):
            labels = labels or {int(label.get("Key", "0")): label.text or "" for label in table}
    for _, index in voxels:
        if grid and index.size and not ((index >= 0) & (index < grid[0])).all():
            raise DataError(f"its CIFTI header is damaged: it names voxels beyond its grid {grid[0]}")
    parcels = tuple(parcel.get("Name", "") for parcel in root.iter("Parcel"))
    return Axes(n_frames, tr_s, tuple(surfaces), tuple(voxels), grid, parcels, labels)


def _integers(model: ElementTree.Element, name: str) -> np.ndarray:
    return np.array((model.findtext(name) or "").split(), np.int64)


def _grid(volume: ElementTree.Element) -> tuple[tuple[int, ...], np.ndarray] | None:
    matrix = volume.find("TransformationMatrixVoxelIndicesIJKtoXYZ")
    if matrix is None:
        return None
    affine = np.array((matrix.text or "").split(), np.float64).reshape(4, 4)
    affine[:3] *= 10.0 ** (int(matrix.get("MeterExponent", "-3")) + 3)
    shape = tuple(map(int, volume.get("VolumeDimensions", "").split(",")))
    if len(shape) != 3:
        raise DataError(f"its CIFTI header is damaged: its voxels have {len(shape)} dimensions")
    return shape, affine


def _seconds(unit: str, step: str, exponent: str) -> float | None:
    """Step of a series axis (s); None where it is not in seconds, or no number."""
    if unit != "SECOND":
        return None
    value = float(step) * 10.0 ** int(exponent)
    return value if math.isfinite(value) else None
