"""Compress arrays of two-byte values as Blosc frames: bytes shuffled, then compressed."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numcodecs import (
    Blosc,
    blosc,  # type: ignore[attr-defined]
)

from bhx_model.errors import DataError

# one thread an array: readers run side by side, and equal input gives equal bytes
blosc.use_threads = False
_CODECS = {
    name: Blosc(name, clevel=5, shuffle=Blosc.SHUFFLE, blocksize=1 << 20) for name in ("lz4hc", "zstd")
}

#: A header that claims more than this is no array of ours (bytes).
LARGEST = 1 << 30


Codec = Literal["lz4hc", "zstd"]


def compress(array: np.ndarray, codec: Codec) -> bytes:
    """Frame around the bytes of an array of uint16. Equal arrays give equal bytes.

    Parameters
    ----------
    array : (...) uint16
    codec : str
        LZ4-HC is read fastest; Zstandard gives fewer bytes.
    """
    return _CODECS[codec].encode(np.ascontiguousarray(array))


def decompress(content: np.ndarray, out: np.ndarray) -> int:
    """Fill `out`, C order, from the frame at the start of `content`, (N,) uint8; the length of the frame.

    Raises
    ------
    DataError
        If there is no frame, a damaged one, or one of another size than `out`.
    """
    n_bytes, length = _sizes(content)
    if n_bytes != out.nbytes or not 16 <= length <= content.size:
        raise DataError("no frame of its size")
    try:
        blosc.decompress(
            content[:length], out
        )  # without the interpreter's lock; the frame says how it was compressed
    except RuntimeError as error:
        raise DataError(str(error)) from error
    return length


def pack(array: np.ndarray, codec: Codec) -> bytes:
    """Compress an array, with its type and shape, as an ``.npy`` in a frame.

    Without BHX, ``numpy.load(io.BytesIO(numcodecs.blosc.decompress(content)))`` gives it back.
    """
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return compress(np.frombuffer(buffer.getbuffer(), np.uint16), codec)


def unpack(content: bytes | np.ndarray) -> np.ndarray:
    """Array that `pack` compressed, in memory of its own.

    Raises
    ------
    DataError
        If it is no frame with an array, or a damaged one.
    """
    content = np.frombuffer(content, np.uint8)
    n_bytes, length = _sizes(content)
    if length != content.size or not 0 < n_bytes <= LARGEST:
        raise DataError("its header is not that of a frame")
    raw = np.empty(n_bytes, np.uint8)
    decompress(content, raw)
    return plain_array(raw)


def _sizes(content: np.ndarray) -> tuple[int, int]:
    """Bytes in a frame and length of the frame, as its header states."""
    if content.size < 16:
        raise DataError("its header is not that of a frame")
    n_bytes, _, length = content[4:16].view("<u4").tolist()
    return n_bytes, length


def plain_array(content: np.ndarray) -> np.ndarray:
    """View the bytes of an ``.npy``, (N,) uint8, as the array they hold, without a copy.

    Raises
    ------
    DataError
        If they are no plain C-ordered array and nothing else: objects are never unpickled.
    """
    shape, dtype, start = npy_header(content)
    if start + dtype.itemsize * int(np.prod(shape)) != content.size:
        raise DataError("no plain C-ordered array of the size its bytes have")
    return content[start:].view(dtype).reshape(shape)


def npy_header(content: np.ndarray) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape and type of the array of an ``.npy`` that starts with these bytes, (N,) uint8, and where its numbers start.

    Raises
    ------
    DataError
        If they are not the start of a plain C-ordered array.
    """
    head = io.BytesIO(content[:1024].tobytes())
    try:
        version = np.lib.format.read_magic(head)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
        else:
            raise DataError(f"an .npy of version {version}")
    except (ValueError, KeyError) as error:
        raise DataError(str(error)) from error
    if dtype.hasobject or fortran:
        raise DataError("no plain C-ordered array")
    return shape, dtype, head.tell()
