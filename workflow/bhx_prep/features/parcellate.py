"""Mean series per parcel of a BOLD run: volumes in one streaming pass, surfaces and CIFTI by their labels.

A volume is inflated once, one frame at a time, into one buffer; the labelled voxels are gathered in the order of
their parcels and summed. Nothing else of the file is kept, so memory does not grow with the run, and the time is
that of inflating it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree
from xml.parsers.expat import ExpatError

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.filebasedimages import ImageFileError, SerializableImage
from nibabel.spatialimages import HeaderDataError

from bhx_model.contract import roi_sha256
from bhx_model.errors import DataError
from bhx_prep.atlas.templates import GRAYORDINATES_MM
from bhx_prep.io import bids_names

#: What reading a damaged image may raise, besides ValueError.
READ_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, ImageFileError, HeaderDataError, ExpatError)

#: Share of the parcels that must have a voxel on a run's grid; below it the atlas lies in another space.
MIN_PARCELS_ON_GRID = 0.5

#: CIFTI's names of the two hemispheres.
CORTEX = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")


@dataclass(frozen=True)
class Parcellated:
    """Series of one run.

    Attributes
    ----------
    series : (R, T) float32
        Mean over the voxels (vertices) with signal of each parcel; rows of NaN where coverage is too low.
    coverage : (R,) float32
        Share of each parcel's voxels (vertices) with signal, inside the brain mask where there is one.
    """

    series: np.ndarray
    coverage: np.ndarray


@dataclass(frozen=True)
class _Groups:
    """Positions of an array's elements sorted by parcel: parcel `parcels[i]` owns `order[starts[i]:starts[i + 1]]`."""

    order: np.ndarray
    starts: np.ndarray
    parcels: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, inside: np.ndarray | None = None) -> _Groups:
        """Group the elements of flat `labels` (0 = none, parcel r + 1), those `inside` only."""
        wanted = labels > 0 if inside is None else (labels > 0) & inside
        index = np.flatnonzero(wanted)
        order = index[np.argsort(labels[index], kind="stable")]
        parcels, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
        return cls(order, starts, parcels - 1, sizes)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums of gathered `values` (elements,) per group: small integers exactly, others in double precision."""
        if not self.starts.size:
            return np.zeros(0)
        exact = values.dtype.kind in "iub" and values.itemsize < 8
        return np.add.reduceat(values, self.starts, dtype=np.int64 if exact else np.float64)


@dataclass
class Templates:
    """The atlas in its spaces, as `bhx_prep.atlas.templates` writes them; resampled grids are kept for later runs."""

    folder: Path
    label: str
    names: tuple[str, ...]
    hemisphere: tuple[int, ...]
    space: str
    n_subcortical: int = 0  # so many of the first parcels are in the subcortex, which no surface has
    _grids: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)
    _volume: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)
    _surfaces: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    @property
    def n_rois(self) -> int:
        """Number of parcels, R."""
        return len(self.names)

    @property
    def roi_sha256(self) -> str:
        """Hash of the atlas and its order of parcels."""
        return roi_sha256(self.label, self.names)

    def volume(self) -> tuple[np.ndarray, np.ndarray]:
        """Label volume (X, Y, Z) int16, 0 or r + 1, and its affine (4, 4)."""
        if self._volume is None:
            path = self._existing("atlas_volume.nii.gz", self.space)
            image = _load(path)
            labels = np.asarray(image.dataobj)
            self._check_labels(labels, path)
            self._volume = labels.astype(np.int16), np.asarray(image.affine)
        return self._volume

    def surface(self, mesh: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels of the `left` and `right` vertices of ``fsLR`` or ``fsaverage5``."""
        if mesh not in self._surfaces:
            path = self._existing(f"atlas_{mesh}.npz", mesh)
            with np.load(path, allow_pickle=False) as arrays:
                left, right = arrays["left"], arrays["right"]
            self._check_labels(np.concatenate([left, right]), path, first=self.n_subcortical + 1)
            self._surfaces[mesh] = left, right
        return self._surfaces[mesh]

    def voxels(self) -> np.ndarray:
        """Labels of the subcortex on the voxels of the 91k grayordinates, (91, 109, 91)."""
        with np.load(self.folder / "atlas_fsLR.npz", allow_pickle=False) as arrays:
            return arrays["voxels"]

    def on_grid(self, shape: tuple[int, ...], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Atlas on another grid.

        Parameters
        ----------
        shape : (X, Y, Z)
        affine : (4, 4) float64, mm

        Returns
        -------
        labels : (X * Y * Z,) int16
            In Fortran order, as NIfTI files store voxels. The label of the nearest atlas voxel.
        in_view : (R,) float64
            Share of each parcel that lies inside the grid.

        Raises
        ------
        ValueError
            If fewer than half of the parcels have a voxel there.
        """
        key = np.asarray(shape, np.int64).tobytes() + np.round(affine, 5).tobytes()
        if key not in self._grids:
            atlas, atlas_affine = self.volume()
            labels = _nearest(atlas, np.linalg.inv(atlas_affine) @ affine, shape)
            present = np.bincount(labels, minlength=self.n_rois + 1)[1:] > 0
            if present.mean() < MIN_PARCELS_ON_GRID:
                msg = (
                    f"only {present.sum()} of the atlas's {self.n_rois} parcels have a voxel in the image: it is not"
                    f" in {self.space}, its header has a wrong affine, or its voxels are too large"
                )
                raise DataError(msg)
            self._grids[key] = (
                labels,
                _share_in_view(atlas, np.linalg.inv(affine) @ atlas_affine, shape, self.n_rois),
            )
        return self._grids[key]

    def _existing(self, name: str, where: str) -> Path:
        if not (self.folder / name).exists():
            msg = (
                f"the atlas {self.label} is not there on {where} ({name}): name its labels in section `atlas`"
            )
            raise DataError(msg)
        return self.folder / name

    def _check_labels(self, labels: np.ndarray, path: Path, first: int = 1) -> None:
        found, n = np.unique(labels[labels != 0]), self.n_rois - first + 1
        if found.size != n or found[0] != first or found[-1] != self.n_rois:
            there = f"{found.size} labels ({found.min()}..{found.max()})" if found.size else "no labels"
            msg = f"{path}: {there} where {n} ({first}..{self.n_rois}) are due: make the templates again for this atlas"
            raise DataError(msg)


def load_templates(folder: Path) -> Templates:
    """Read the description of the atlas in `folder`; its arrays are read when first used.

    Raises
    ------
    ValueError
        If the folder holds no atlas.
    """
    path = folder / "atlas.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        names, hemisphere = tuple(metadata["names"]), tuple(metadata["hemisphere"])
        label, space = metadata["label"], metadata["space"]
    except (OSError, KeyError, json.JSONDecodeError) as error:
        msg = f"{path} describes no atlas ({error!r}): run `python -m bhx_prep.atlas.templates` first"
        raise DataError(msg) from error
    if len(names) != len(hemisphere) or len(set(names)) != len(names):
        msg = f"{path}: {len(names)} names, {len(hemisphere)} hemispheres, or a name twice"
        raise DataError(msg)
    return Templates(folder, label, names, hemisphere, space, metadata.get("subcortical", 0))


def parcellate_file(
    path: Path,
    templates: Templates,
    *,
    path_right: Path | None = None,
    mask: Path | None = None,
    min_coverage: float = 0.5,
) -> Parcellated:
    """Mean series per parcel of a BOLD run of any kind.

    Parameters
    ----------
    path : Path
        NIfTI volume series, CIFTI ``.dtseries.nii``, or the left hemisphere's GIfTI or MGH file.
    templates : Templates
        The atlas.
    path_right : Path, optional
        Right hemisphere of a surface pair.
    mask : Path, optional
        Brain mask on the grid of a volume series.
    min_coverage : float
        Parcels with a smaller share of voxels with signal become rows of NaN.

    Raises
    ------
    ValueError
        With a sentence about what is wrong with the file.
    """
    try:
        if path.name.endswith(".dtseries.nii"):
            result = parcellate_cifti(path, templates)
        elif path.name.endswith((".func.gii", ".gii", ".mgz", ".mgh")):
            if path_right is None:
                msg = f"{path.name}: the right hemisphere is missing"
                raise DataError(msg)
            result = parcellate_surface(path, path_right, templates)
        elif path.name.endswith((".nii", ".nii.gz")):
            result = parcellate_volume(path, templates, mask)
        else:
            msg = f"{path.name}: neither NIfTI, CIFTI dtseries, GIfTI nor MGH"
            raise DataError(msg)
    except READ_ERRORS as error:
        msg = f"{path.name} cannot be read, it is truncated or damaged: {error}"
        raise DataError(msg) from error
    return _uncovered_to_nan(result, path, min_coverage)


def _uncovered_to_nan(result: Parcellated, path: Path, min_coverage: float) -> Parcellated:
    if not (result.coverage > 0).any():
        msg = f"{path.name} holds no signal: every voxel of the atlas is constant, or not a number"
        raise DataError(msg)
    covered = (result.coverage > 0) & (result.coverage >= min_coverage)
    empty = ~np.isfinite(result.series[covered]).any(axis=0)
    if covered.any() and empty.any():
        msg = f"{path.name}: frame {np.flatnonzero(empty)[0]} (counted from 0) holds no finite value"
        raise DataError(msg)
    covered &= np.isfinite(result.series).all(axis=1)
    refuse_blank_frames(result.series[covered], path)
    return Parcellated(np.where(covered[:, None], result.series, np.float32(np.nan)), result.coverage)


def refuse_blank_frames(series: np.ndarray, path: Path) -> None:
    """Refuse a run in which a frame was lost, or blanked by censoring: all its parcels then have one value.

    Parameters
    ----------
    series : (R, T)
        Of the covered parcels.
    path : Path
        Where they are from.

    Raises
    ------
    ValueError
        If there is such a frame.
    """
    if len(series) > 1 and (blank := series.min(axis=0) == series.max(axis=0)).any():
        msg = (
            f"{path.name}: frame {np.flatnonzero(blank)[0]} (counted from 0) has the same value in every parcel: it was"
            " lost or blanked; cut it off with its row of the confounds, or interpolate it"
        )
        raise DataError(msg)


# --- volumes ------------------------------------------------------------------------------------------------------


def parcellate_volume(path: Path, templates: Templates, mask: Path | None = None) -> Parcellated:
    """Mean series per parcel of a NIfTI volume series, in one pass over the file.

    A voxel has signal if its value is finite at least once and not the same in all frames; others count neither
    in the mean nor in the coverage. Where a voxel is NaN in some frames, the mean is over the others.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``, integer or floating point, (X, Y, Z, T).
    templates : Templates
        The atlas, in the space of the image.
    mask : Path, optional
        Brain mask on the same grid.

    Raises
    ------
    ValueError
        If the image is no volume series of real numbers, is truncated, or lies in another space.
    """
    image = _load(path)
    shape, dtype = _check_series(image, path, templates)
    grid, n_frames = shape[:3], shape[3]
    labels, in_view = templates.on_grid(grid, np.asarray(image.affine))
    groups = _Groups.of(labels, None if mask is None else _read_mask(mask, grid, np.asarray(image.affine)))
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

    series = np.full((templates.n_rois, n_frames), np.nan, np.float32)
    series[groups.parcels] = means.T
    on_grid = np.bincount(labels, minlength=templates.n_rois + 1)[1:]
    coverage = np.zeros(templates.n_rois, np.float32)
    coverage[groups.parcels] = n_alive / on_grid[groups.parcels] * in_view[groups.parcels]
    return Parcellated(series, coverage)


class _Signal:
    """Which voxels differ between frames. Only those that did not yet are looked at, soon few."""

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
    with _open(path) as file:
        file.seek(offset)
        for frame in range(n_frames):
            done = 0
            while done < len(view):
                n = file.readinto(view[done:])  # type: ignore[attr-defined]
                if not n:
                    msg = f"{path.name} ends in frame {frame} of {n_frames}: it is truncated, fetch it again"
                    raise DataError(msg)
                done += n
            yield buffer
        while file.read(1 << 20):
            pass


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return igzip.open(path, "rb") if compressed else path.open("rb")  # type: ignore[return-value]


def _load(path: Path) -> Any:
    """Header of an image; a ValueError instead of nibabel's own errors."""
    try:
        return nib.load(path)
    except (*READ_ERRORS, ValueError) as error:
        msg = f"{path.name} is no readable image: {error}"
        raise DataError(msg) from error


def read_whole(path: Path, dtype: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Values of an image of one file, and its affine.

    The file is read to its end: checksum and length of a gzip stand there, and nibabel does not look.

    Parameters
    ----------
    path : Path
        NIfTI or MGH.
    dtype : optional
        Of the values; what the file gives if none.

    Raises
    ------
    ValueError
        If it is no image of real numbers, truncated or damaged.
    """
    kind = type(_load(path))
    if not issubclass(kind, SerializableImage):
        msg = f"{path.name} is {kind.__name__}, a NIfTI image is due"
        raise DataError(msg)
    try:
        with _open(path) as file:
            image: Any = kind.from_bytes(file.read())
        if image.get_data_dtype().kind not in "iuf":
            msg = f"{path.name} holds {image.get_data_dtype()} values, real numbers are due"
            raise DataError(msg)
        return np.asarray(image.dataobj, dtype=dtype), np.asarray(image.affine, np.float64)
    except (*READ_ERRORS, OSError) as error:
        msg = f"{path.name} cannot be read, it is truncated or damaged: {error}"
        raise DataError(msg) from error


def _check_series(image: Any, path: Path, templates: Templates) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and stored type of a volume series, after everything that its header alone tells was checked."""
    shape, dtype = tuple(int(n) for n in image.shape), image.get_data_dtype()
    if not isinstance(image, nib.Nifti1Pair) or image.header["magic"].item()[:2] not in (b"n+", b"n\x00"):
        msg = f"{path.name} is {type(image).__name__}, a NIfTI image is due"
        raise DataError(msg)
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "RGB" if dtype.fields else str(dtype)
        msg = f"{path.name} holds {kind} values, real numbers are due: is it a magnitude image?"
        raise DataError(msg)
    if len(shape) != 4 or shape[3] < 2:
        frames = shape[3] if len(shape) == 4 else 1
        what = (
            f"{frames} frame{'s' if frames != 1 else ''}" if len(shape) <= 4 else f"{len(shape)} dimensions"
        )
        msg = f"{path.name} has shape {' x '.join(map(str, shape))} ({what}): a series of volumes is due"
        raise DataError(msg)
    if min(shape) < 1:
        msg = f"{path.name} has shape {' x '.join(map(str, shape))}: it is empty"
        raise DataError(msg)
    affine = np.asarray(image.affine)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        msg = f"{path.name}: the affine of its header cannot be inverted, so its place in {templates.space} is unknown"
        raise DataError(msg)
    space = bids_names.parse(path.name).get("space")
    if space not in (None, templates.space):
        msg = f"{path.name} is in {space}, the atlas in {templates.space}: take BOLD and atlas in one space"
        raise DataError(msg)
    return shape, dtype


def _read_mask(path: Path, grid: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Brain mask as flat bool in Fortran order."""
    values, its_affine = read_whole(path)
    if values.shape[:3] != tuple(grid) or not np.allclose(its_affine, affine, atol=1e-2):
        msg = f"{path.name} (brain mask) has another grid than the BOLD series"
        raise DataError(msg)
    if values.ndim > 3:
        values = values[..., 0]
    return (np.nan_to_num(values) > 0.5).ravel(order="F")


def _nearest(labels: np.ndarray, to_atlas: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Label of the atlas voxel nearest to each voxel, flat in Fortran order; halves go up, outside is 0."""
    index, inside = _voxels(to_atlas, np.ogrid[tuple(map(slice, shape))], labels.shape)
    return np.where(inside, labels[tuple(index)], 0).astype(np.int16).ravel(order="F")


def _share_in_view(
    atlas: np.ndarray, to_image: np.ndarray, shape: tuple[int, ...], n_rois: int
) -> np.ndarray:
    labelled = atlas > 0
    ends = [np.flatnonzero(labelled.any(axis=others))[[0, -1]] for others in ((1, 2), (0, 2), (0, 1))]
    if _voxels(to_image, np.ix_(*ends), shape)[
        1
    ].all():  # the grid is convex: what lies between is in it, too
        return np.ones(n_rois)
    index = np.nonzero(labelled)
    labels = atlas[index]
    _, inside = _voxels(to_image, index, shape)
    return (
        np.bincount(labels[inside], minlength=n_rois + 1)[1:] / np.bincount(labels, minlength=n_rois + 1)[1:]
    )


def _voxels(
    matrix: np.ndarray, index: Sequence[np.ndarray], shape: tuple[int, ...]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Voxel indices on another grid, clipped to it, and which of them exist there.

    Three indices that broadcast against each other; grids whose axes are parallel are compared axis by axis.
    """
    out, inside = [], np.array(True)
    for row, n in zip(matrix, shape, strict=False):
        terms = [weight * i for weight, i in zip(row, index, strict=False) if abs(weight) * i.max() > 1e-6]
        # rounded first: a 2 mm voxel often lies exactly between two of 1 mm, and then the last bit would decide
        place = np.floor(np.round(sum(terms, start=row[3]), 4) + 0.5)
        inside = inside & (place >= 0) & (place < n)
        out.append(np.clip(place, 0, n - 1).astype(np.intp))
    return out, np.broadcast_to(inside, np.broadcast_shapes(*(i.shape for i in index)))


# --- surfaces -----------------------------------------------------------------------------------------------------

#: Vertices per hemisphere -> mesh.
MESHES = {10242: "fsaverage5", 32492: "fsLR"}


def parcellate_surface(left: Path, right: Path, templates: Templates) -> Parcellated:
    """Mean series per parcel of a pair of surface files (GIfTI, or FreeSurfer's MGH).

    Raises
    ------
    ValueError
        If the meshes are unknown, or the hemispheres have different numbers of frames.
    """
    hemispheres = [_read_surface(left), _read_surface(right)]
    (n_left, frames_left), (n_right, frames_right) = (h.shape for h in hemispheres)
    if n_left != n_right or n_left not in MESHES:
        meshes = " or ".join(f"{n} ({mesh})" for n, mesh in MESHES.items())
        msg = f"{left.name}: {n_left} and {n_right} vertices left and right, the atlas is known on {meshes}"
        raise DataError(msg)
    if frames_left != frames_right:
        msg = f"{left.name}: {frames_left} frames left, {frames_right} right: one file is truncated"
        raise DataError(msg)
    if frames_left < 2:
        msg = f"{left.name} has {frames_left} frame: a series is due"
        raise DataError(msg)
    series = np.full((templates.n_rois, frames_left), np.nan, np.float32)
    coverage = np.zeros(templates.n_rois, np.float32)
    for values, labels in zip(hemispheres, templates.surface(MESHES[n_left]), strict=True):
        _mean_rows(values, labels, series, coverage)
    return Parcellated(series, coverage)


def _read_surface(path: Path) -> np.ndarray:
    """Series on one hemisphere, (V, T)."""
    image = _load(path)
    if isinstance(image, nib.GiftiImage):
        arrays = [np.asarray(a.data) for a in image.darrays]
        if not arrays or len({a.shape for a in arrays}) != 1 or arrays[0].ndim > 2:
            msg = f"{path.name} holds no series: its data arrays are missing or of different shapes"
            raise DataError(msg)
        values = arrays[0] if arrays[0].ndim == 2 else np.stack(arrays, axis=1)
    else:
        values, _ = read_whole(path)
        values = values.reshape(int(np.prod(values.shape[:3])), -1, order="F")
    if values.dtype.kind not in "iuf":
        msg = f"{path.name} holds {values.dtype} values, real numbers are due"
        raise DataError(msg)
    return values


def _mean_rows(values: np.ndarray, labels: np.ndarray, series: np.ndarray, coverage: np.ndarray) -> None:
    """Fill `series` (R, T) and `coverage` (R,) from `values` (V, T) with `labels` (V,), a few parcels at a time."""
    groups = _Groups.of(labels)
    for i, parcel in enumerate(groups.parcels):
        rows = np.asarray(values[groups.order[groups.starts[i] : groups.starts[i] + groups.sizes[i]]])
        high, low = rows.max(axis=1), rows.min(axis=1)
        finite = np.isfinite(high) & np.isfinite(low)  # both are NaN where one value is
        whole = finite.all()
        if not whole:
            finite = np.isfinite(rows)
            high = np.where(finite, rows, -np.inf).max(axis=1)
            low = np.where(finite, rows, np.inf).min(axis=1)
        alive = high > low
        coverage[parcel] = alive.mean()
        if not alive.any():
            continue
        if whole:
            # a choice of all rows would copy them
            series[parcel] = (rows if alive.all() else rows[alive]).mean(axis=0, dtype=np.float64)
        else:
            count = finite[alive].sum(axis=0)
            total = np.where(finite[alive], rows[alive], 0).sum(axis=0, dtype=np.float64)
            series[parcel] = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


# --- CIFTI --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CiftiAxes:
    """What a CIFTI header tells of a series.

    Attributes
    ----------
    n_frames : int
    tr_s : float or None
        Step of the series axis (s).
    models : tuple of (structure, offset, vertices, n_vertices)
        Brain models on surfaces: rows ``offset + i`` belong to vertex ``vertices[i]``.
    voxels : tuple of (offset, (n, 3) voxel indices)
        Brain models in the volume.
    grid : tuple of int, and (4, 4) affine (mm), or None
        On which they are counted.
    parcels : tuple of str
        Names of the rows of a parcellated series.
    """

    n_frames: int
    tr_s: float | None
    models: tuple[tuple[str, int, np.ndarray, int], ...]
    voxels: tuple[tuple[int, np.ndarray], ...]
    grid: tuple[tuple[int, ...], np.ndarray] | None
    parcels: tuple[str, ...]


def parcellate_cifti(path: Path, templates: Templates) -> Parcellated:
    """Mean series per parcel of a dense series (``.dtseries.nii``) on fsLR-32k.

    Raises
    ------
    ValueError
        If it has no such series.
    """
    axes, rows = read_cifti(path)
    labels = np.zeros(rows.shape[0], np.int16)
    total = np.zeros(templates.n_rois + 1, np.int64)
    left, right = templates.surface("fsLR")
    for structure, offset, vertices, n_vertices in axes.models:
        atlas = right if structure.endswith("RIGHT") else left
        if n_vertices != atlas.size or vertices.max(initial=0) >= atlas.size:
            msg = f"{path.name}: {structure} is a mesh of {n_vertices} vertices, fsLR-32k has {atlas.size}"
            raise DataError(msg)
        labels[offset : offset + vertices.size] = atlas[vertices]
        total += np.bincount(atlas, minlength=total.size)
    if not axes.models:
        msg = f"{path.name} has no cortical surface among its brain models"
        raise DataError(msg)
    if templates.n_subcortical and axes.grid:
        atlas, (shape, affine) = templates.voxels(), axes.grid
        if shape != atlas.shape or not np.allclose(affine, GRAYORDINATES_MM):
            msg = f"{path.name}: its voxels are not those of the 91k grayordinates, on which the subcortex is known"
            raise DataError(msg)
        for offset, index in axes.voxels:
            labels[offset : offset + len(index)] = atlas[tuple(index.T)]
        total += np.bincount(atlas.ravel(), minlength=total.size)
    series = np.full((templates.n_rois, rows.shape[1]), np.nan, np.float32)
    coverage = np.zeros(templates.n_rois, np.float32)
    _mean_rows(rows, labels, series, coverage)
    # vertices of a parcel that the file leaves out lower its coverage
    held = np.bincount(labels, minlength=total.size)
    coverage *= (held / np.maximum(total, 1))[1:].astype(np.float32)
    return Parcellated(series, coverage)


def read_cifti(path: Path) -> tuple[CiftiAxes, np.ndarray]:
    """Axes and rows of a CIFTI series, without copying them.

    Returns
    -------
    axes : CiftiAxes
    rows : (N, T) memory map
        CIFTI keeps the frames of a row together on disk.

    Raises
    ------
    ValueError
        If the file is no CIFTI series or shorter than its header says.
    """
    with path.open("rb") as file:
        head = file.read(544)
        if len(head) < 544 or head[:4] not in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c"):
            msg = f"{path.name} is no CIFTI-2 file"
            raise DataError(msg)
        header = nib.Nifti2Header(head[:540])
        offset = int(header["vox_offset"])
        xml = _cifti_xml(file.read(offset - 544), "<" if head[0] == 0x1C else ">")
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if len(shape) != 6 or dtype.kind != "f":
        msg = f"{path.name}: shape {shape}, type {dtype}: a dense or parcellated series of floats is due"
        raise DataError(msg)
    axes = _cifti_axes(hashlib.sha256(xml).digest(), xml)
    n_frames, n_rows = int(shape[4]), int(shape[5])
    if axes.n_frames != n_frames or n_frames < 2:
        msg = f"{path.name}: {n_frames} frames in its header, {axes.n_frames} in its series axis"
        raise DataError(msg)
    missing = offset + n_rows * n_frames * dtype.itemsize - path.stat().st_size
    if missing > 0:
        msg = f"{path.name} is {missing} bytes too short: it is truncated, fetch it again"
        raise DataError(msg)
    return axes, np.memmap(path, dtype, "r", offset, (n_rows, n_frames))


def _cifti_xml(extensions: bytes, order: str) -> bytes:
    position = 0
    while position + 8 <= len(extensions):
        size, code = np.frombuffer(extensions, f"{order}i4", 2, position)
        if code == 32:
            return extensions[position + 8 : position + size].rstrip(b"\x00")
        if size < 8:
            break
        position += int(size)
    raise DataError("the file has no CIFTI header")


@lru_cache(maxsize=16)
def _cifti_axes(_digest: bytes, xml: bytes) -> CiftiAxes:
    """Parse a header. Files of one study share theirs, and its XML costs more than the data: parse it once."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        msg = f"the CIFTI header is no XML: {error}"
        raise DataError(msg) from error
    models, voxels, grid, n_frames, tr_s = [], [], None, 0, None
    for index_map in root.iter("MatrixIndicesMap"):
        if index_map.get("IndicesMapToDataType") == "CIFTI_INDEX_TYPE_SERIES":
            n_frames = int(index_map.get("NumberOfSeriesPoints", "0"))
            if index_map.get("SeriesUnit") == "SECOND":
                tr_s = float(index_map.get("SeriesStep", "nan")) * 10.0 ** int(
                    index_map.get("SeriesExponent", "0")
                )
        for model in index_map.iter("BrainModel"):
            structure = model.get("BrainStructure", "")
            if structure in CORTEX:
                vertices = np.array((model.findtext("VertexIndices") or "").split(), np.int64)
                models.append(
                    (
                        structure,
                        int(model.get("IndexOffset", "0")),
                        vertices,
                        int(model.get("SurfaceNumberOfVertices", "0")),
                    )
                )
            elif model.get("ModelType") == "CIFTI_MODEL_TYPE_VOXELS":
                index = np.array((model.findtext("VoxelIndicesIJK") or "").split(), np.int64).reshape(-1, 3)
                voxels.append((int(model.get("IndexOffset", "0")), index))
        for volume in index_map.iter("Volume"):
            matrix = volume.find("TransformationMatrixVoxelIndicesIJKtoXYZ")
            if matrix is not None:
                affine = np.array((matrix.text or "").split(), np.float64).reshape(4, 4)
                affine[:3] *= 10.0 ** (int(matrix.get("MeterExponent", "-3")) + 3)
                grid = tuple(map(int, volume.get("VolumeDimensions", "").split(","))), affine
    parcels = tuple(parcel.get("Name", "") for parcel in root.iter("Parcel"))
    return CiftiAxes(n_frames, tr_s, tuple(models), tuple(voxels), grid, parcels)
