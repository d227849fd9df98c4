"""Read images of any format that nibabel reads, completely; damaged ones raise a `DataError`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO, Final

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.filebasedimages import SerializableImage

from bhx_model.errors import DataError
from bhx_prep.io.reading import reading

#: A byte of a gzip file gives at most so many.
_MOST_INFLATED: Final = 1032


def load_image(path: Path) -> Any:
    """Header of an image of any kind.

    Raises
    ------
    DataError
        If it is none.
    """
    with reading(path, "is no readable image"):
        return nib.load(path)


def open_inflated(path: Path) -> BinaryIO:
    """Open a file that may be gzipped, whatever its name is; a `DataError` if it cannot be opened."""
    with reading(path):
        return igzip.open(path, "rb") if _is_gzip(path) else path.open("rb")  # type: ignore[return-value]


def check_size(path: Path, n_bytes: int) -> None:
    """Refuse a header that promises more than the file can hold, before memory is taken for it.

    Parameters
    ----------
    path : Path
        May be gzipped.
    n_bytes : int
        Size of what it should hold, inflated.

    Raises
    ------
    DataError
        If it is too short for that.
    """
    with reading(path):
        size = path.stat().st_size * (_MOST_INFLATED if _is_gzip(path) else 1)
    if n_bytes > size:
        msg = f"{path.name} is truncated or its header damaged: {n_bytes} bytes are expected, it holds {size} at most"
        raise DataError(msg)


def read_image(path: Path, dtype: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Values of an image of one file, and its affine.

    The file is read to its end: checksum and length of a gzip stand there, and nibabel does not look.

    Parameters
    ----------
    path : Path
        NIfTI or MGH.
    dtype : optional
        Of the values; what the file gives if none.

    Returns
    -------
    values : numpy.ndarray
        As stored, with the header's scale applied.
    affine : numpy.ndarray of shape (4, 4)
        Voxels to mm.

    Raises
    ------
    DataError
        If it is no image of real numbers, truncated or damaged.
    """
    header = load_image(path)
    kind = type(header)
    if not issubclass(kind, SerializableImage):
        raise DataError(f"{path.name} is {kind.__name__}, a NIfTI image is expected")
    stored = header.get_data_dtype()
    if stored.kind not in "iuf":
        raise DataError(f"{path.name} holds {stored} values, real numbers are expected")
    if not header.shape or min(header.shape) < 1:
        raise DataError(f"{path.name} has shape {' x '.join(map(str, header.shape))}: it is empty")
    n_bytes = stored.itemsize * math.prod(map(int, header.shape))
    check_size(path, n_bytes)
    with reading(path), open_inflated(path) as file:
        raw = file.read()
        if len(raw) < n_bytes:
            raise EOFError(f"{n_bytes} bytes are expected, {len(raw)} found")
        image: Any = kind.from_bytes(raw)
        return np.asarray(image.dataobj, dtype=dtype), np.asarray(image.affine, np.float64)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"
