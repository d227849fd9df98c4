"""How a T1 volume is stored: the bfloat16 that the model computes with, bit for bit, in a compressed ``.npy``.

A z-scored volume of 160 x 192 x 160 voxels takes 9.8 MB as float16. Of a real head (Colin27, with and without added
noise) these remain, read by one thread (``tests/benchmarks/volumes.py`` measures it again):

- bfloat16, bytes shuffled, LZ4-HC (this module): 2.6 MB, 2 ms, and the input of bfloat16 training does not change.
- the same with Zstandard: 2.4 MB, 5 ms.
- 256 steps between the volume's extremes: 1.7 MB, but errors of 0.015 sd where bfloat16 rounds by 0.0078 at most
  and, near the mean, by a hundredth of that: the model would see it.

A mask of zeros costs next to nothing in any of them. The encoder takes 0.1 s a volume; reading is what is done often.
"""

from __future__ import annotations

import io

import numpy as np
from numcodecs import (
    Blosc,
    blosc,  # type: ignore[attr-defined]
)

# one thread a volume: readers run side by side, and equal input gives equal bytes
blosc.use_threads = False
_CODEC = Blosc(cname="lz4hc", clevel=5, shuffle=Blosc.SHUFFLE, blocksize=1 << 20)

#: A header that claims more than this is no volume (bytes).
LARGEST = 1 << 30


def encode(volume: np.ndarray) -> bytes:
    """Round a volume to bfloat16 and compress it.

    Parameters
    ----------
    volume : (X, Y, Z) float
        Intensities as the model takes them.

    Returns
    -------
    bytes
        Blosc frame of an ``.npy`` of uint16, the bits of the bfloat16 values. Equal volumes give equal bytes.

    Raises
    ------
    ValueError
        If the volume has not three axes, or a value that is no number, or one beyond bfloat16.
    """
    if volume.ndim != 3 or not volume.size:
        raise ValueError(f"a T1 volume has three axes, this one is {' x '.join(map(str, volume.shape))}")
    bits = np.ascontiguousarray(volume, np.float32).view(np.uint32)
    # to nearest, ties to even, as PyTorch rounds; what overflows becomes infinite and is refused below
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    if not np.isfinite(volume).all() or ((rounded & 0x7F80) == 0x7F80).any():
        raise ValueError("the volume holds values that are no numbers")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, rounded, version=(1, 0), allow_pickle=False)
    # shuffling wants to know that values have two bytes
    return _CODEC.encode(np.frombuffer(buffer.getbuffer(), np.uint16))


def decode(content: bytes | np.ndarray) -> np.ndarray:
    """Bits of a stored volume.

    ``torch.from_numpy(bits).view(torch.bfloat16)`` is the volume as a tensor, without a copy.

    Returns
    -------
    (X, Y, Z) uint16

    Raises
    ------
    ValueError
        If it is no stored volume, or a damaged one.
    """
    try:
        # the frame's second word is the length of what is in it
        length = int.from_bytes(content[4:8], "little")
        if len(content) < 16 or not 0 < length <= LARGEST:
            raise ValueError("its header is not that of a volume")
        raw = np.empty(length, np.uint8)
        _CODEC.decode(content, out=raw)
        bits = plain_array(raw)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"no stored T1 volume ({error})") from error
    if bits.dtype != np.uint16 or bits.ndim != 3:
        raise ValueError(f"no stored T1 volume (an array of {bits.dtype} with {bits.ndim} axes)")
    return bits


def to_float32(bits: np.ndarray) -> np.ndarray:
    """Values of the bits that `decode` returns, float32 of the same shape."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def plain_array(content: np.ndarray) -> np.ndarray:
    """View the bytes of an ``.npy``, (N,) uint8, as the array they hold, without a copy.

    Raises
    ------
    ValueError
        If they are no plain C-ordered array and nothing else: objects are never unpickled.
    """
    # the header is parsed by numpy, the numbers stay where they are
    head = io.BytesIO(content[:1024].tobytes())
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
    else:
        raise ValueError(f"an .npy of version {version}")
    if dtype.hasobject or fortran or head.tell() + dtype.itemsize * int(np.prod(shape)) != content.size:
        raise ValueError("no plain C-ordered array of the size its bytes have")
    return content[head.tell() :].view(dtype).reshape(shape)
