"""What one scan says of itself: sidecars by BIDS inheritance, NIfTI headers, and where the two disagree.

The rules of the index and of the preprocessing are the same rules: both call these functions. Needs the
standard library and, where an image is opened, nibabel; so it also imports in the ANTs environment.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bhx_prep import entities

#: Repetition times (s) that a scanner can have; what lies above is nearly always milliseconds.
MIN_TR_S: Final = 0.1
MAX_TR_S: Final = 20.0
#: Times (s) closer than this are the same: converters round.
TR_TOLERANCE_S: Final = 0.005
#: No head fits into a smaller field of view (mm).
MIN_FIELD_OF_VIEW_MM: Final = 100.0

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
        self._folders: dict[Path, list[tuple[dict[str, str], str, Path]]] = {}
        self._contents: dict[Path, dict[str, Any]] = {}

    def facts(self, image: Path) -> tuple[dict[str, Any], Path | None]:
        """Fields that hold for `image`, and the nearest sidecar they came from.

        Parameters
        ----------
        image : Path
            Below the root; need not exist.

        Returns
        -------
        tuple of dict and Path or None
            Nearer sidecars overrule those further up; of two in one folder, the one that names more entities.

        Raises
        ------
        ValueError
            If a sidecar that applies cannot be read as a JSON object.
        """
        image = image.absolute()
        own, suffix = entities.parse(image.name), _suffix(image.name)
        fields: dict[str, Any] = {}
        nearest = None
        for folder in reversed([p for p in image.parents if p == self._root or self._root in p.parents]):
            for wanted, its_suffix, path in self._sidecars_in(folder):
                if its_suffix == suffix and wanted.items() <= own.items():
                    fields.update(self._read(path))
                    nearest = path
        return fields, nearest

    def _sidecars_in(self, folder: Path) -> list[tuple[dict[str, str], str, Path]]:
        if folder not in self._folders:
            found = []
            try:
                with os.scandir(folder) as entries:
                    names = sorted(e.name for e in entries if e.name.endswith(".json"))
            except OSError:  # an unreadable folder shows itself when its images are opened
                names = []
            for name in names:
                found.append((entities.parse(name), _suffix(name), folder / name))
            self._folders[folder] = sorted(found, key=lambda sidecar: len(sidecar[0]))
        return self._folders[folder]

    def _read(self, path: Path) -> dict[str, Any]:
        if path not in self._contents:
            try:
                content = json.loads(path.read_text(encoding="utf-8-sig"))
            except (OSError, ValueError) as error:
                msg = f"sidecar {path.name} cannot be read as JSON: mend or remove it"
                raise ValueError(msg) from error
            if not isinstance(content, dict):
                msg = f"sidecar {path.name} holds no JSON object: mend or remove it"
                raise ValueError(msg)
            self._contents[path] = content
        return self._contents[path]


def _suffix(name: str) -> str:
    return name.split(".", 1)[0].rsplit("_", 1)[-1]


def check_file(path: Path) -> None:
    """Say in one sentence why a file cannot be read, if it cannot.

    Raises
    ------
    ValueError
        If it is absent, a broken link, forbidden, no file, or empty.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        reason = (
            "is a link to a file that is not here (datalad get?)" if path.is_symlink() else "does not exist"
        )
        msg = f"file {reason}"
        raise ValueError(msg) from None
    except OSError as error:
        msg = f"file cannot be read: {error.strerror}"
        raise ValueError(msg) from error
    if not path.is_file():
        msg = "a file is due, this is a folder"
        raise ValueError(msg)
    if not os.access(path, os.R_OK):
        msg = "file cannot be read: permission denied"
        raise ValueError(msg)
    if size == 0:
        msg = "file is empty"
        raise ValueError(msg)


def read_header(path: Path) -> Any:
    """Header of a NIfTI image; the voxels are not read.

    Raises
    ------
    ValueError
        With a sentence if the file is absent, empty or no NIfTI, or if its values are not real numbers.
    """
    import nibabel

    check_file(path)
    try:
        header = nibabel.load(path).header  # pyright: ignore[reportAttributeAccessIssue]
        dtype = header.get_data_dtype()
        header.get_data_shape()
    except Exception as error:  # nibabel raises what zlib, gzip, struct and numpy raise
        msg = f"not a readable NIfTI image ({type(error).__name__})"
        raise ValueError(msg) from error
    if dtype.kind not in "iuf":
        msg = f"the image holds {dtype.name if dtype.names is None else 'RGB'} values: real numbers are due"
        raise ValueError(msg)
    return header


def voxel_sizes(sidecar: Mapping[str, Any], header: Any) -> tuple[float, float, float]:
    """Voxel sizes of an image, from its sidecar where that mends the header.

    A header that was never filled in says 1 x 1 x 1, which is believed only if a head fits into the image. BHX
    reads one field of its own, ``"VoxelSizes": [4, 4, 6]`` (mm, in the order of the array's axes), that overrules
    the header.

    Parameters
    ----------
    sidecar : Mapping
        Fields of the scan's sidecars; may be empty.
    header : nibabel.Nifti1Header

    Returns
    -------
    tuple of float
        x, y, z in mm.

    Raises
    ------
    ValueError
        If the header's sizes cannot be true and the sidecar does not mend them, or its own are no sizes.
    """
    declared = sidecar.get("VoxelSizes")
    if declared is not None:
        if not (
            isinstance(declared, list)
            and len(declared) == 3
            and all(_is_number(v) and v > 0 for v in declared)
        ):
            msg = f"VoxelSizes in the sidecar is {declared!r}: three sizes in mm are due"
            raise ValueError(msg)
        x, y, z = (float(v) for v in declared)
        return x, y, z
    scale = _MILLIMETRES.get(_units(header)[0], 1.0)
    sizes = [float(v) * scale for v in header.get_zooms()[:3]]
    shape = header.get_data_shape()[:3]
    mend = 'give the true ones (mm) as "VoxelSizes": [x, y, z] in the sidecar'
    if len(sizes) < 3 or not all(math.isfinite(v) and v > 0 for v in sizes):
        msg = f"the voxel sizes in the header are {_times(sizes)} mm: {mend}"
        raise ValueError(msg)
    field = [size * n for size, n in zip(sizes, shape, strict=True)]
    if sizes == [1.0, 1.0, 1.0] and max(field[:2]) < MIN_FIELD_OF_VIEW_MM:
        msg = (
            f"field of view {_times(field)} mm is too small for a brain: "
            f"the voxel sizes in the header are wrong; {mend}"
        )
        raise ValueError(msg)
    return sizes[0], sizes[1], sizes[2]


def repetition_time(
    sidecar: Mapping[str, Any],
    header: Any = None,
    *,
    n_frames: int | None = None,
    fallback: float | None = None,
) -> float:
    """Seconds between two frames, by sidecar and header, which must not contradict each other.

    Parameters
    ----------
    sidecar : Mapping
        Fields of the scan's sidecars: ``RepetitionTime``, or ``VolumeTiming`` with even steps.
    header : nibabel.Nifti1Header, optional
        Of a 4D image. One that was never filled in (all sizes 1, or replaced by ``VoxelSizes``) has no say.
    n_frames : int, optional
        Frames of the image, to compare ``VolumeTiming`` with.
    fallback : float, optional
        Used if neither tells it (s).

    Raises
    ------
    ValueError
        If nothing tells it, sidecar and header differ, frames are unevenly spaced, or it cannot be true.
    """
    told = _told_by_sidecar(sidecar, n_frames)
    measured = None if header is None or "VoxelSizes" in sidecar else _told_by_header(header)
    if told is not None and measured is not None and abs(told - measured) > TR_TOLERANCE_S:
        msg = (
            f"repetition time: the sidecar says {told:g} s, the image header {measured:g} s; "
            "mend the wrong one (BIDS wants seconds)"
        )
        raise ValueError(msg)
    if told is not None:
        return told
    if measured is not None:
        return _plausible(measured, "the repetition time in the image header")
    if fallback is None:
        msg = "no repetition time in sidecar or header: add RepetitionTime (s) to the sidecar, or set the cohort's tr_s"
        raise ValueError(msg)
    return fallback


def _told_by_sidecar(sidecar: Mapping[str, Any], n_frames: int | None) -> float | None:
    told = sidecar.get("RepetitionTime")
    if told is not None:
        if not _is_number(told):
            msg = f"RepetitionTime in the sidecar is {told!r}: a number of seconds is due"
            raise ValueError(msg)
        return _plausible(float(told), "RepetitionTime in the sidecar")
    times = sidecar.get("VolumeTiming")
    if times is None:
        return None
    if not (isinstance(times, list) and len(times) > 1 and all(_is_number(v) for v in times)):
        msg = "VolumeTiming in the sidecar is no list of two or more times (s)"
        raise ValueError(msg)
    if n_frames is not None and len(times) != n_frames:
        msg = f"VolumeTiming has {len(times)} times, the image {n_frames} frames"
        raise ValueError(msg)
    steps = sorted(later - earlier for earlier, later in itertools.pairwise(times))
    if steps[-1] - steps[0] > TR_TOLERANCE_S:
        msg = f"frames are not evenly spaced (VolumeTiming has steps of {steps[0]:g} to {steps[-1]:g} s)"
        raise ValueError(msg)
    return _plausible(steps[len(steps) // 2], "the step of VolumeTiming")


def _told_by_header(header: Any) -> float | None:
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


def _plausible(tr_s: float, what: str) -> float:
    if tr_s > MAX_TR_S:
        msg = f"{what} is {tr_s:g}: milliseconds? seconds are due"
        raise ValueError(msg)
    if not tr_s >= MIN_TR_S:  # NaN too
        msg = f"{what} is {tr_s:g} s: no scanner is that fast, {MIN_TR_S:g} to {MAX_TR_S:g} s are due"
        raise ValueError(msg)
    return tr_s


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _units(header: Any) -> tuple[str, str]:
    try:
        space, time = header.get_xyzt_units()
    except KeyError:  # a code that the standard does not know
        return "unknown", "unknown"
    return space, time


def _times(values: list[float]) -> str:
    return " x ".join(f"{v:g}" for v in values)
