"""Metadata of a scan from sidecars (by BIDS inheritance) and headers, and contradictions between the two.

The rules of the index and of the preprocessing are the same rules: both call these functions. Needs the
standard library and, where an image is opened, nibabel; so it also imports in the ANTs environment.

Errors of the libraries that read a file become a `DataError` at the call that reads, and nowhere else.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bhx_model.errors import DataError
from bhx_prep.io import archives, bids_names
from bhx_prep.io.pointers import content_missing, not_fetched

# what it says of headers does not name the file
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_MILLIMETRES = {"mm": 1.0, "meter": 1e3, "micron": 1e-3}


class Sidecars:
    """JSON sidecars below one dataset's root, joined by the BIDS inheritance principle.

    Every folder is listed once and every sidecar read once, so one object serves a whole cohort.

    Parameters
    ----------
    root : Path
        Folder above which nothing is inherited.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._chains: dict[Path, list[Path]] = {}
        self._folders: dict[Path, list[tuple[dict[str, str], str, Path]]] = {}
        self._contents: dict[Path, dict[str, Any]] = {}

    def fields_of(self, image: Path) -> tuple[dict[str, Any], Path | None]:
        """Fields that hold for `image`, and the nearest sidecar they are from.

        Parameters
        ----------
        image : Path
            Below the root; need not exist.

        Returns
        -------
        tuple of dict and Path or None
            Nearer sidecars override those further up; of two in one folder, the one that names more entities.

        Raises
        ------
        DataError
            If a sidecar that applies cannot be read as a JSON object.
        """
        image = image.absolute()
        own, suffix = bids_names.unpadded(bids_names.parse(image.name)), bids_names.suffix(image.name)
        fields: dict[str, Any] = {}
        nearest = None
        for folder in self._chain(image.parent):
            for wanted, its_suffix, path in self._sidecars_in(folder):
                if its_suffix == suffix and wanted.items() <= own.items():
                    fields.update(self._read(path))
                    nearest = path
        return fields, nearest

    def of_bolds(self, table: Path) -> tuple[dict[str, Any], Path | None]:
        """Fields of the sidecars of BOLD images of a table's run, whatever was made of them; the nearest counts.

        Raises
        ------
        DataError
            If a sidecar that applies cannot be read as a JSON object.
        """
        scan = ("sub", *bids_names.SCAN_ENTITIES)
        own = bids_names.unpadded(bids_names.parse(table.name))
        fields: dict[str, Any] = {}
        nearest = None
        for folder in self._chain(table.absolute().parent):
            for wanted, its_suffix, path in self._sidecars_in(folder):
                of_run = {e: v for e, v in wanted.items() if e in scan}
                if its_suffix == "bold" and of_run and of_run.items() <= own.items():
                    fields.update(self._read(path))
                    nearest = path
        return fields, nearest

    def _chain(self, folder: Path) -> list[Path]:
        """The folders from the root down to this one; none for a folder outside of the root."""
        if folder not in self._chains:
            line = [folder, *folder.parents]
            self._chains[folder] = line[line.index(self._root) :: -1] if self._root in line else []
        return self._chains[folder]

    def _sidecars_in(self, folder: Path) -> list[tuple[dict[str, str], str, Path]]:
        if folder not in self._folders:
            found = []
            try:
                with os.scandir(folder) as entries:
                    names = sorted(e.name for e in entries if e.name.endswith(".json"))
            except OSError:  # an unreadable folder shows itself when its images are opened
                names = []
            for name in names:
                found.append(
                    (bids_names.unpadded(bids_names.parse(name)), bids_names.suffix(name), folder / name)
                )
            self._folders[folder] = sorted(found, key=lambda sidecar: len(sidecar[0]))
        return self._folders[folder]

    def _read(self, path: Path) -> dict[str, Any]:
        if path not in self._contents:
            try:
                content = json.loads(path.read_text(encoding="utf-8-sig"))
            except (OSError, ValueError, RecursionError) as error:  # of the text's encoding, of the parser
                msg = f"sidecar {path.name} {not_fetched(path) or 'cannot be read as JSON: fix or remove it'}"
                raise DataError(msg) from error
            if not isinstance(content, dict):
                msg = f"sidecar {path.name} is not a JSON object: fix or remove it"
                raise DataError(msg)
            self._contents[path] = content
        return self._contents[path]


def check_file(path: Path) -> None:
    """Raise if a file cannot be read.

    Raises
    ------
    DataError
        If it is absent, a broken link, forbidden, no file, empty, or a pointer to content that was not fetched.
    """
    try:
        size = path.stat().st_size
    except NotADirectoryError:
        if archives.find(path)[1].file_size == 0:
            msg = "file is empty"
            raise DataError(msg) from None
        return
    except FileNotFoundError:
        reason = (
            "is a link to a file that is not here (datalad get?)" if path.is_symlink() else "does not exist"
        )
        msg = f"file {reason}"
        raise DataError(msg) from None
    except OSError as error:
        msg = f"file cannot be read: {error.strerror}"
        raise DataError(msg) from error
    if not path.is_file():
        msg = "expected a file, this is a folder"
        raise DataError(msg)
    if not os.access(path, os.R_OK):
        msg = "file cannot be read: permission denied"
        raise DataError(msg)
    if size == 0:
        msg = "file is empty"
        raise DataError(msg)
    # an image that is none is found out when its header is read, without opening it twice
    if path.suffix not in (".gz", ".nii") and (pointer := content_missing(path, size)):
        msg = f"file {pointer}"
        raise DataError(msg)


def _no_image(path: Path, error: Exception) -> DataError:
    pointer = content_missing(path, path.stat().st_size) if path.is_file() else None
    return DataError(f"file {pointer}" if pointer else f"not a readable NIfTI image ({type(error).__name__})")


def read_header(path: Path) -> Any:
    """Header of a NIfTI-1 or NIfTI-2 image; the voxels are not read.

    nibabel parses it. Its own `load` makes a whole image first, which takes four times as long.

    Raises
    ------
    DataError
        With a sentence if the file is absent, empty or no NIfTI, or if its values are not real numbers.
    """
    import nibabel
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    check_file(path)
    try:
        if archives.split(path) is not None:
            raw = archives.read_start(path, 540)
        else:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                raw = file.read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise _no_image(path, error) from error
    is_second = 540 in (int.from_bytes(raw[:4], order) for order in ("little", "big"))
    kind = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
    try:
        header: Any = kind(raw[: kind.template_dtype.itemsize])
        dtype = header.get_data_dtype()
        header.get_data_shape()
    except (HeaderDataError, WrapStructError) as error:
        raise _no_image(path, error) from error
    if dtype.kind not in "iuf":
        msg = f"the image has {dtype.name if dtype.names is None else 'RGB'} values: expected real numbers"
        raise DataError(msg)
    return header


def n_frames(header: Any) -> int:
    """Frames of a 4D NIfTI header.

    Raises
    ------
    DataError
        If it is no series: 3D, 5D, no frame or a single one.
    """
    shape = header.get_data_shape()
    if len(shape) != 4:
        msg = f"the image is {len(shape)}D ({_times(shape)}): expected a 4D series"
        raise DataError(msg)
    return check_frames(shape[3])


def read_cifti_series(path: Path) -> tuple[int, float | None]:
    """Frames of a CIFTI series (dtseries, ptseries) and seconds between them, where its header states them.

    Raises
    ------
    DataError
        With a sentence if it is no CIFTI series or has less than two frames.
    """
    from bhx_prep.io import cifti

    check_file(path)
    frames, tr_s = cifti.series_length(path)
    return check_frames(frames), tr_s


def read_gifti_frames(path: Path) -> int | None:
    """Frames of a GIfTI time series, from its first bytes; None where one array holds them all.

    Raises
    ------
    DataError
        With a sentence if it is no GIfTI file or has no array.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(65536)
    except OSError as error:
        msg = f"file cannot be read: {error.strerror}"
        raise DataError(msg) from error
    found = re.search(rb'<GIFTI[^>]*NumberOfDataArrays="(\d{1,9})"', start)
    if found is None:
        msg = "not a readable GIfTI file"
        raise DataError(msg)
    n = int(found.group(1))
    return None if n == 1 else check_frames(n)


def check_frames(frames: int) -> int:
    """Number of frames, if it is a series.

    Raises
    ------
    DataError
        If there are less than two.
    """
    if frames < 2:
        msg = f"there is {'no frame' if frames == 0 else 'one frame only'}: expected a series"
        raise DataError(msg)
    return frames


def voxel_sizes(sidecar: Mapping[str, Any], header: Any) -> tuple[float, float, float]:
    """Voxel sizes (mm) of an image by the rule of `nifti_header.voxel_sizes`, in the header's unit.

    Parameters
    ----------
    sidecar : Mapping
        Fields of the scan's sidecars; may be empty. ``"VoxelSizes": [4, 4, 6]`` (mm) overrides the header.
    header : nibabel.Nifti1Header

    Raises
    ------
    DataError
        If no brain fits into the field of view that they make.
    """
    from bhx_prep.io import nifti_header

    scale = _MILLIMETRES.get(_units(header)[0], 1.0)
    zooms = [float(v) * scale for v in header.get_zooms()[:3]]
    sizes, reason = nifti_header.voxel_sizes(zooms, header.get_data_shape()[:3], sidecar)
    if reason is not None:
        raise DataError(reason)
    return sizes


def header_repetition_time(header: Any) -> float | None:
    """Seconds between two frames by a 4D NIfTI header, or None if it was never filled in."""
    zooms = [float(v) for v in header.get_zooms()]
    if len(zooms) < 4 or all(v == 1 for v in zooms):
        return None
    unit = _units(header)[1]
    if unit not in _SECONDS and unit != "unknown":  # hertz and the like
        return None
    step = zooms[3] * _SECONDS.get(unit, 1.0)
    # 0 and, without a unit, 1 are what programs write that do not know it
    if step == 0 or (unit == "unknown" and step == 1):
        return None
    return step


def _units(header: Any) -> tuple[str, str]:
    try:
        space, time = header.get_xyzt_units()
    except KeyError:  # a code that the standard does not know
        return "unknown", "unknown"
    return space, time


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{v:g}" for v in values)
