"""Store a T1 volume compactly: in steps of 1/128 sd, each plane as its difference from the previous one.

A step is what bfloat16, in which the model computes, distinguishes between 1 and 2 sd. From 1 sd on, a stored value is
the bfloat16 of the intensity, bit for bit; below, it is off by at most 1/256 sd, as bfloat16 is at 1 to 2 sd. Every
stored value is a bfloat16, so that the model's input is what is stored. ``docs/adr/0008`` has the numbers.

Voxels of a plane differ from those of the plane before by noise and edges, which fit into one byte mostly: that byte
hardly gets smaller, the other nearly vanishes. LZ4 does that as fast as memory is copied. Planes are compressed a
few at once, so that they are added up in the processor's cache.

A member is a header of eight uint16 (little-endian): the volume's shape (3), the corner (2) and the size (2) of the
box in x and y outside of which all is 0, and the planes of a slab; then the Blosc frames of the slabs, one after the
other, each with uint16 differences along x, plus 128.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bhx_model.data import frames
from bhx_model.errors import DataError

#: Steps of a standard deviation of the brain's intensities.
STEPS_PER_SD = 128
#: Added to differences, so that the upper byte of small ones is 0 whatever their sign.
BIAS = 128
#: Planes that are compressed together: a megabyte at 1 mm.
_SLAB = 16
#: Length of the header (bytes).
_HEADER = 16


def encode(volume: np.ndarray) -> bytes:
    """Round a volume and compress it.

    Parameters
    ----------
    volume : (X, Y, Z) float
        Intensities as the model takes them: in sd, background 0.

    Returns
    -------
    bytes
        Equal volumes give equal bytes.

    Raises
    ------
    DataError
        If the volume has not three axes, or a value that is no number, or one beyond 255 sd.
    """
    if volume.ndim != 3 or not volume.size or max(volume.shape) > 0xFFFF:
        raise DataError(f"a T1 volume has three axes, this one is {' x '.join(map(str, volume.shape))}")
    volume = np.ascontiguousarray(volume, np.float32)
    if not (np.abs(volume) < 255).all():
        raise DataError("the volume holds values that are no numbers or lie beyond 255 sd")
    codes = np.rint(np.where(np.abs(volume) < 1, volume, _bfloat16(volume)) * STEPS_PER_SD).astype(np.int16)
    first, last = _box(codes)
    box = codes[first[0] : last[0], first[1] : last[1]].view(np.uint16)
    steps = np.diff(box, axis=0, prepend=np.uint16(0)) + np.uint16(BIAS)
    header = np.array([*codes.shape, *first, *steps.shape[:2], _SLAB], "<u2")
    slabs = [steps[start : start + _SLAB] for start in range(0, len(steps), _SLAB)]
    return header.tobytes() + b"".join(frames.compress(slab, "lz4hc") for slab in slabs)


def decode(content: bytes | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Values of a stored volume, in steps; divided by `STEPS_PER_SD` they are the model's input.

    Parameters
    ----------
    content : bytes or (N,) uint8
    out : (X, Y, Z) int16, optional
        Where to put them, C order; new memory without it.

    Returns
    -------
    (X, Y, Z) int16

    Raises
    ------
    DataError
        If it is no stored volume, a damaged one, or `out` has another shape.
    """
    content = np.frombuffer(content, np.uint8)
    box = read_box(content)
    shape, (x, y), (n_x, n_y) = box.shape, box.corner, box.size
    if out is None:
        if 2 * np.prod(shape, dtype=np.int64) > frames.LARGEST:
            raise DataError("no stored T1 volume (its header claims more than a gigabyte)")
        out = np.empty(shape, np.int16)
    elif out.shape != shape:
        raise _of_another_grid(shape, out.shape)
    out[:x] = out[x + n_x :] = 0
    out[x : x + n_x, :y] = out[x : x + n_x, y + n_y :] = 0
    lines = out.view(np.uint16).reshape(shape[0], -1)[x : x + n_x, y * shape[2] : (y + n_y) * shape[2]]
    slab = _scratch.planes(min(box.planes, n_x), lines.shape[1])
    before, place = np.zeros(lines.shape[1], np.uint16), _HEADER
    for start in range(0, n_x, box.planes):
        planes = lines[start : start + box.planes]
        steps = slab[: len(planes)]
        place += _decompress(content[place:], steps)
        before = _add_up(steps, before, planes)
    _check_end(content, place)
    return out


class Box(NamedTuple):
    """Header of a stored volume."""

    shape: tuple[int, int, int]
    corner: tuple[int, int]
    """First voxel in x and y of the box outside of which all is 0."""
    size: tuple[int, int]
    planes: int
    """Planes of a slab."""

    @property
    def voxels(self) -> int:
        """Voxels of the box."""
        return self.size[0] * self.size[1] * self.shape[2]


def read_box(content: np.ndarray) -> Box:
    """Header of a stored volume, (N,) uint8.

    Raises
    ------
    DataError
        If it is none.
    """
    if content.size < _HEADER:
        raise DataError("no stored T1 volume (it has no header)")
    *shape, x, y, n_x, n_y, n_planes = content[:_HEADER].view("<u2").tolist()
    if not n_planes or x + n_x > shape[0] or y + n_y > shape[1] or 0 in shape:
        raise DataError("no stored T1 volume (its header is none)")
    return Box(tuple(shape), (x, y), (n_x, n_y), n_planes)


def decompress(content: np.ndarray, shape: tuple[int, ...], out: np.ndarray) -> Box:
    """Decompress the differences of a stored volume, for `bhx_model.data.batch` to add up on a GPU.

    Each call takes the interpreter's lock some ten times, `decode` two hundred times: threads would wait for each other.

    Parameters
    ----------
    content : (N,) uint8
    shape : (3,)
        Of the volume.
    out : (N,) uint16
        At least as many as the volume has voxels; as many are filled as its box has.

    Returns
    -------
    Box
        Where the differences belong.

    Raises
    ------
    DataError
        See `decode`.
    """
    box = read_box(content)
    if box.shape != shape:
        raise _of_another_grid(box.shape, shape)
    place, slab, line = _HEADER, box.planes, box.size[1] * box.shape[2]
    steps = out[: box.voxels].reshape(box.size[0], line)
    for start in range(0, box.size[0], slab):
        place += _decompress(content[place:], steps[start : start + slab])
    _check_end(content, place)
    return box


def _decompress(content: np.ndarray, steps: np.ndarray) -> int:
    try:
        return frames.decompress(content, steps)
    except DataError as error:
        raise DataError(f"no stored T1 volume ({error})") from error


def _check_end(content: np.ndarray, end: int) -> None:
    if end != content.size:
        raise DataError("no stored T1 volume (it is longer than its header says)")


def _of_another_grid(found: Sequence[int], wanted: Sequence[int]) -> DataError:
    return DataError(
        f"it has {tuple(found)} voxels, expected {tuple(wanted)}: all cohorts need one features.t1w_shape"
    )


def _add_up(steps: np.ndarray, before: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Put planes into `out`, given their differences, which are overwritten, and the plane before; returns the last."""
    np.subtract(steps, np.uint16(BIAS), out=steps)  # at once: each call takes the interpreter's lock
    for step, plane in zip(steps, out, strict=True):
        np.add(before, step, out=plane)
        before = plane
    return before


class _Scratch(threading.local):
    """Memory that a thread decompresses into, kept: to ask the system for it takes as long as to decompress."""

    memory = np.empty(0, np.uint16)

    def planes(self, n: int, size: int) -> np.ndarray:
        """Planes of `size` values, with whatever was in them."""
        if self.memory.size < n * size:
            self.memory = np.empty(n * size, np.uint16)
        return self.memory[: n * size].reshape(n, size)


_scratch = _Scratch()


def to_float32(steps: np.ndarray) -> np.ndarray:
    """Intensities in sd, float32, of what `decode` returns, in its shape."""
    return steps.astype(np.float32) / STEPS_PER_SD


def _box(codes: np.ndarray) -> tuple[list[int], list[int]]:
    """First and last + 1 index in x and y of what is not 0; one line of voxels of an empty volume."""
    filled = (np.flatnonzero(codes.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    ends = [(int(h[0]), int(h[-1]) + 1) if h.size else (0, 1) for h in filled]
    return [e[0] for e in ends], [e[1] for e in ends]


def _bfloat16(values: np.ndarray) -> np.ndarray:
    """Finite float32 to the nearest bfloat16, ties to even, as PyTorch rounds; kept as float32."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) & 0xFFFF0000).view(np.float32)
