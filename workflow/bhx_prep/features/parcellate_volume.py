"""Mean series per parcel of a NIfTI volume series, in one pass over the file.

A volume is inflated once, one frame at a time, into one buffer; the labelled voxels are gathered in the order of
their parcels and summed. Nothing else of the file is kept, so memory does not grow with the run, and the time is
that of inflating it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.features.parcel_means import Groups, Parcellated
from bhx_prep.io import bids_names
from bhx_prep.io.images import check_size, load_image, open_inflated, read_image
from bhx_prep.io.notes import short
from bhx_prep.io.reading import reading
from bhx_prep.io.spaces import space_of


def parcellate_volume(path: Path, atlas: Atlas, mask: Path | None = None) -> Parcellated:
    """Mean series per parcel of a NIfTI volume series, in one pass over the file.

    A voxel has signal if its value is finite at least once and not the same in all frames; others count neither
    in the mean nor in the coverage. Where a voxel is NaN in some frames, the mean is over the others.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``, integer or floating point, (X, Y, Z, T).
    atlas : Atlas
        In the space of the image.
    mask : Path, optional
        Brain mask on the same grid.

    Raises
    ------
    DataError
        If the image is no volume series of real numbers, is truncated, or lies in another space.
    """
    image = load_image(path)
    shape, dtype = _check_series(image, path, atlas)
    grid, n_frames = shape[:3], shape[3]
    check_size(path, math.prod(shape) * dtype.itemsize)
    labels, in_view = atlas.on_grid(grid, np.asarray(image.affine))
    groups = Groups.of(labels, None if mask is None else _read_mask(mask, grid, np.asarray(image.affine)))
    slope, inter = image.dataobj.slope, image.dataobj.inter

    sums = np.empty((n_frames, groups.starts.size))
    signal = _Signal()
    gaps: dict[
        int, np.ndarray
    ] = {}  # frame -> which voxels are finite in it, packed; only frames with others
    gathered = np.empty(groups.order.size, dtype)
    for frame, volume in enumerate(_frames(path, image.dataobj.offset, grid, n_frames, dtype)):
        np.take(volume, groups.order, out=gathered, mode="clip")  # unbuffered, unlike the default
        signal.see(gathered)
        sums[frame] = groups.sum(gathered)
        if not np.isfinite(sums[frame]).all():
            finite = np.isfinite(gathered)
            gaps[frame] = np.packbits(finite)
            sums[frame] = groups.sum(np.where(finite, gathered, 0))

    # voxels without signal are taken out of the sums again: their value is known, the same in all their frames
    dead = np.where(signal.alive | ~np.isfinite(signal.first), 0, signal.first)
    n_alive = groups.sum(signal.alive)
    counts = np.broadcast_to(n_alive, sums.shape)
    sums -= groups.sum(dead)
    if gaps:
        counts = counts.copy()
        for frame, packed in gaps.items():
            finite = np.unpackbits(packed, count=dead.size).astype(bool)
            counts[frame] = groups.sum(signal.alive & finite)
            sums[frame] += groups.sum(np.where(finite, 0, dead))
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    means = means * slope + inter

    series = np.full((atlas.n_rois, n_frames), np.nan, np.float32)
    series[groups.parcels] = means.T
    on_grid = np.bincount(labels, minlength=atlas.n_rois + 1)[1:]
    coverage = np.zeros(atlas.n_rois, np.float32)
    coverage[groups.parcels] = n_alive / on_grid[groups.parcels] * in_view[groups.parcels]
    return Parcellated(series, coverage)


class _Signal:
    """Which voxels vary over time. Only voxels without a difference so far are compared; these are soon few."""

    first: np.ndarray
    alive: np.ndarray

    def __init__(self) -> None:
        self._still: np.ndarray | None = None

    def see(self, values: np.ndarray) -> None:
        """Take in the values (voxels,) of the next frame."""
        if self._still is None:
            self.first, self.alive = values.copy(), np.zeros(values.size, bool)
            self._still = np.arange(values.size)
            return
        now, first = values[self._still], self.first[self._still]
        unknown = ~np.isfinite(first)
        if unknown.any():
            self.first[self._still[unknown]] = now[unknown]
        differs = (now != first) & ~unknown & np.isfinite(now)
        self.alive[self._still[differs]] = True
        self._still = self._still[~differs]


def _frames(
    path: Path, offset: int, grid: tuple[int, ...], n_frames: int, dtype: np.dtype
) -> Iterator[np.ndarray]:
    """Yield every frame as a flat array, the same buffer each time; read to the end, so that checksums are checked."""
    buffer = np.empty(int(np.prod(grid)), dtype)
    view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
    with open_inflated(path) as file:
        with reading(path):
            file.seek(offset)
        for frame in range(n_frames):
            done = 0
            while done < len(view):
                with reading(path):
                    n = file.readinto(view[done:])  # type: ignore[attr-defined]
                if not n:
                    msg = f"{short(path.name)} ends in frame {frame} of {n_frames}: it is truncated, fetch it again"
                    raise DataError(msg)
                done += n
            yield buffer
        with reading(path):
            while file.read(1 << 20):
                pass


def _check_series(image: Any, path: Path, atlas: Atlas) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and stored type of a volume series, after everything that its header alone shows was checked."""
    shape, dtype = tuple(int(n) for n in image.shape), image.get_data_dtype()
    if not isinstance(image, nib.Nifti1Pair) or image.header["magic"].item()[:2] not in (b"n+", b"n\x00"):
        msg = f"{short(path.name)} is {type(image).__name__}, a NIfTI image is expected"
        raise DataError(msg)
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "RGB" if dtype.fields else str(dtype)
        msg = f"{short(path.name)} holds {kind} values, real numbers are expected: is it a magnitude image?"
        raise DataError(msg)
    if len(shape) != 4 or shape[3] < 2:
        frames = shape[3] if len(shape) == 4 else 1
        what = (
            f"{frames} frame{'s' if frames != 1 else ''}" if len(shape) <= 4 else f"{len(shape)} dimensions"
        )
        msg = f"{short(path.name)} has shape {' x '.join(map(str, shape))} ({what}): a series of volumes is expected"
        raise DataError(msg)
    if min(shape) < 1:
        msg = f"{short(path.name)} has shape {' x '.join(map(str, shape))}: it is empty"
        raise DataError(msg)
    affine = np.asarray(image.affine)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        msg = f"{short(path.name)}: the affine of its header cannot be inverted, so its place in {atlas.space} is unknown"
        raise DataError(msg)
    space = space_of(bids_names.parse(path.name))
    if space not in (None, atlas.space):
        msg = (
            f"{short(path.name)} is in {space}, the atlas in {atlas.space}: take BOLD and atlas in one space"
        )
        raise DataError(msg)
    return shape, dtype


def _read_mask(path: Path, grid: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Brain mask as flat bool in Fortran order."""
    values, its_affine = read_image(path)
    if values.shape[:3] != tuple(grid) or not np.allclose(its_affine, affine, atol=1e-2):
        msg = f"{short(path.name)} (brain mask) has another grid than the BOLD series"
        raise DataError(msg)
    if values.ndim > 3:
        values = values.reshape(*values.shape[:3], -1)[..., 0]
    return (np.nan_to_num(values) > 0.5).ravel(order="F")
