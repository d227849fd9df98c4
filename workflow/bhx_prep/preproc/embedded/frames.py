"""Read and write runs on disk frame by frame, so that a run is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from numpy.typing import NDArray

Floats = NDArray[np.floating]

#: Bytes of a part of a run that is in memory at a time.
PART_BYTES = 2**27
_START = 352  # bytes before the first voxel: NIfTI-1's header and four zeros


class Frames:
    """A run as `write_frames` leaves it: float32, uncompressed, frame after frame.

    Parameters
    ----------
    path : Path
        Of the NIfTI file.

    Attributes
    ----------
    shape : tuple of four ints
        X, Y, Z, T.
    affine : array, (4, 4)
        Voxel indices -> world coordinates, mm.
    zooms : array, (3,)
        Voxel sizes, mm.

    Raises
    ------
    ValueError
        If `write_frames` has not written the file.
    """

    def __init__(self, path: Path) -> None:
        image: Any = nib.load(path)
        self.path = path
        self.shape: tuple[int, int, int, int] = image.shape
        self.affine: Floats = image.affine
        self.zooms = np.asarray(image.header.get_zooms()[:3], np.float64)
        if image.get_data_dtype() != np.float32 or image.dataobj.offset != _START:
            msg = f"{path} was not written by write_frames"
            raise ValueError(msg)
        self._file = path.open("rb")

    def __len__(self) -> int:
        return self.shape[3]

    def __iter__(self) -> Iterator[Floats]:
        return map(self.frame, range(len(self)))

    def frame(self, t: int) -> Floats:
        """Frame `t`, (X, Y, Z), float32."""
        size = int(np.prod(self.shape[:3]))
        self._file.seek(_START + 4 * size * t)
        return np.fromfile(self._file, np.float32, size).reshape(self.shape[:3], order="F")

    def slabs(self) -> Iterator[tuple[slice, Floats]]:
        """Parts of the run along the third axis, all frames of each: its voxels, and (X, Y, n, T), float32."""
        plane = self.shape[0] * self.shape[1]
        thick = max(1, PART_BYTES // (4 * plane * len(self)))
        for first in range(0, self.shape[2], thick):
            n = min(thick, self.shape[2] - first)
            values = np.empty((plane * n, len(self)), np.float32)
            for t in range(len(self)):
                self._file.seek(_START + 4 * plane * (self.shape[2] * t + first))
                values[:, t] = np.fromfile(self._file, np.float32, plane * n)
            shape = (self.shape[0], self.shape[1], n, len(self))
            # order="F" of the first three axes only, so that a voxel's series stays contiguous
            yield (
                slice(first, first + n),
                values.reshape(shape[2], shape[1], shape[0], -1).transpose(2, 1, 0, 3),
            )


class FrameWriter:
    """Writes a run frame by frame (`append`) or slab by slab (`put`); a context manager.

    Parameters
    ----------
    path : Path
        ``.nii``, or ``.nii.gz`` for frames only.
    affine : array, (4, 4)
        Voxel indices -> world coordinates, mm.
    shape : tuple of four ints
        X, Y, Z, T.
    tr_s : float, optional
        Seconds from frame to frame, for the header.
    code : int
        Of both forms of the affine: 1 scanner, 4 MNI.
    limits : tuple of two floats, optional
        Least and greatest value. With them values are packed as int16, 1/65535 of the range apart; else float32.
    """

    def __init__(
        self,
        path: Path,
        affine: Floats,
        shape: tuple[int, ...],
        *,
        tr_s: float = 0.0,
        code: int = 1,
        limits: tuple[float, float] | None = None,
    ) -> None:
        header = nib.Nifti1Header()
        header.set_data_shape(shape)
        header.set_data_dtype(np.float32 if limits is None else np.int16)
        header.set_zooms((*np.linalg.norm(affine[:3, :3], axis=0), tr_s))
        header.set_xyzt_units("mm", "sec")
        # both forms: programs differ in which they believe
        header.set_sform(affine, code)
        header.set_qform(affine, code)
        header["magic"], header["vox_offset"] = b"n+1", _START
        self.slope, self.inter = 1.0, 0.0
        if limits is not None:
            low, high = limits
            self.slope, self.inter = max(high - low, 1e-30) / 65534, (low + high) / 2
        header.set_slope_inter(self.slope, self.inter)
        self.shape, self._packed = shape, limits is not None
        self._file: Any = ImageOpener(str(path), "wb")  # its gzip names no time: equal values, equal bytes
        self._file.write(header.binaryblock + bytes(4))

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._file.close()

    def append(self, frame: Floats) -> None:
        """Write the next frame, (X, Y, Z).

        Raises
        ------
        ValueError
            If it is of another shape than the run.
        """
        if frame.shape != tuple(self.shape[:3]):
            msg = f"a frame has shape {frame.shape}, the run {self.shape}"
            raise ValueError(msg)
        if self._packed:
            values = np.rint((frame - np.float32(self.inter)) / np.float32(self.slope)).clip(-32767, 32767)
            self._file.write(values.astype(np.int16).tobytes(order="F"))
        else:
            self._file.write(np.asarray(frame, np.float32).tobytes(order="F"))

    def put(self, where: slice, slab: Floats) -> None:
        """Write a slab of `Frames.slabs`, (X, Y, n, T), all its frames."""
        plane = self.shape[0] * self.shape[1]
        for t in range(self.shape[3]):
            self._file.seek(_START + 4 * plane * (self.shape[2] * t + where.start))
            self._file.write(np.asarray(slab[..., t], np.float32).tobytes(order="F"))
