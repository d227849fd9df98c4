"""Assign field maps to runs by their sidecars, never by guessing.

A field map that says neither by ``IntendedFor`` nor by ``B0FieldIdentifier`` what it is for is not used. A run that is not
corrected has a note that says why.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata
from bhx_prep.io import bids_names
from bhx_prep.io.notes import Kind, note, short
from bhx_prep.preproc.embedded.series import DAMAGED, damaged

_SUFFIXES = ("phasediff", "phase1", "phase2", "fieldmap", "epi", "magnitude", "magnitude1", "magnitude2")
#: Longest readout (s) and difference of echo times (s) that there is; what is above is in another unit.
MOST_READOUT_S = 0.5
LONGEST_ECHO_S = 0.1
#: Hz per unit of a field.
UNITS = {"Hz": 1.0, "rad/s": 1 / (2 * math.pi), "T": 42.577478518e6}


@dataclass(frozen=True)
class Epi:
    """An echo-planar image of a field map: path, ``PhaseEncodingDirection``, ``TotalReadoutTime`` (s)."""

    path: str
    direction: str
    readout_s: float


@dataclass(frozen=True)
class FieldMap:
    """What a run's distortion is corrected by.

    Attributes
    ----------
    kind : str
        ``phasediff``, ``phases``, ``fieldmap`` or ``epi``.
    direction, readout_s : str and float
        Of the run: ``PhaseEncodingDirection``, ``TotalReadoutTime`` (s).
    images : tuple of str
        The difference of the phases, two phases, or the field.
    magnitude : str
        Of these images; empty for ``epi``.
    scale : float
        Seconds between the echoes, or Hz per unit of the field.
    epis : tuple of Epi
        Of ``epi``: at least one of the opposite direction of the run's.
    """

    kind: str
    direction: str
    readout_s: float
    images: tuple[str, ...] = ()
    magnitude: str = ""
    scale: float = 1.0
    epis: tuple[Epi, ...] = ()

    def fields(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @property
    def sources(self) -> list[str]:
        """Paths of its images."""
        return [*self.images, *([self.magnitude] if self.magnitude else []), *(epi.path for epi in self.epis)]


@dataclass(frozen=True)
class _Image:
    path: Path
    suffix: str
    group: tuple[tuple[str, str], ...]  # entities but for the direction and the part
    fields: dict[str, Any]


class _Unusable(Exception):
    """Why a run is not corrected."""


def find_field_map(
    root: Path, run: Path, sidecar: Mapping[str, Any], shape: Sequence[int], sidecars: metadata.Sidecars
) -> tuple[FieldMap | None, str | None]:
    """The field map of a run, or the note that says why there is none.

    Parameters
    ----------
    root : Path
        Raw BIDS dataset.
    run : Path
        BOLD image in it.
    sidecar : mapping
        Its fields.
    shape : sequence of int
        Its voxels.
    sidecars : Sidecars
        Of the dataset.

    Returns
    -------
    field_map : FieldMap or None
    note : str or None
    """
    try:
        images = _images(root, run, sidecars)
        chosen = _meant(root, run, sidecar, images)
        direction, readout_s = _encoding(sidecar, shape, "its")
        return _one_of(chosen, direction, readout_s), None
    except (_Unusable, DataError) as error:
        return None, note(Kind.DISTORTION, str(error))


def _images(root: Path, run: Path, sidecars: metadata.Sidecars) -> list[_Image]:
    found = []
    entities = bids_names.parse(run.name)
    subject = root / f"sub-{entities['sub']}"
    folders = [subject / "fmap"] if "ses" not in entities else []
    folders += [subject / f"ses-{entities['ses']}" / "fmap"] if "ses" in entities else []
    for folder in folders:
        for path in sorted([*folder.glob("*.nii"), *folder.glob("*.nii.gz")]):
            suffix = bids_names.suffix(path.name)
            if suffix in _SUFFIXES:
                fields, _ = sidecars.fields_of(path)
                own = {
                    k: v for k, v in bids_names.parse(path.name).items() if k not in ("dir", "part", "echo")
                }
                found.append(_Image(path, suffix, tuple(sorted(own.items())), fields))
    if not found:
        msg = "there is no field map of its session" if "ses" in entities else "there is no field map"
        raise _Unusable(msg)
    return found


def _texts(value: object) -> list[str]:
    given = value if isinstance(value, list) else [value]
    return [text for text in given if isinstance(text, str)]


def _meant(root: Path, run: Path, sidecar: Mapping[str, Any], images: list[_Image]) -> list[_Image]:
    """The images that are for this run, and the magnitudes that belong to them."""
    wanted = _texts(sidecar.get("B0FieldSource"))
    if wanted:
        chosen = [i for i in images if set(_texts(i.fields.get("B0FieldIdentifier"))) & set(wanted)]
        if not chosen:
            msg = f"its B0FieldSource is {short(', '.join(wanted))}, which is the B0FieldIdentifier of no field map"
            raise _Unusable(msg)
    else:
        intended = [i for i in images if _texts(i.fields.get("IntendedFor"))]
        chosen = [i for i in intended if any(_is(root, run, t) for t in _texts(i.fields["IntendedFor"]))]
        if not chosen:
            raise _Unusable(_why_none(root, run, images, intended))
    groups = {image.group for image in chosen}
    return [
        *chosen,
        *(i for i in images if i not in chosen and i.suffix.startswith("magnitude") and i.group in groups),
    ]


def _is(root: Path, run: Path, text: str) -> bool:
    return any(place == run for place in _places(root, run, text))


def _places(root: Path, run: Path, text: str) -> list[Path]:
    """What an entry of ``IntendedFor`` may name: a BIDS URI, a path below the subject or below the dataset."""
    if text.startswith("bids:"):
        dataset, _, rest = text.removeprefix("bids:").partition(":")
        return [root / rest.lstrip("/")] if not dataset else []
    subject = root / f"sub-{bids_names.parse(run.name)['sub']}"
    return [subject / text.lstrip("/"), root / text.lstrip("/")]


def _why_none(root: Path, run: Path, images: list[_Image], intended: list[_Image]) -> str:
    measured = [i for i in images if not i.suffix.startswith("magnitude")]
    silent = [i for i in measured if i not in intended and not _texts(i.fields.get("B0FieldIdentifier"))]
    if measured and len(silent) == len(measured):
        return f"{short(silent[0].path.name)} has no IntendedFor and no B0FieldIdentifier: what it is for is not known"
    texts = [text for image in intended for text in _texts(image.fields["IntendedFor"])]
    absent = [text for text in texts if not any(_exists(place) for place in _places(root, run, text))]
    if absent:
        return f"IntendedFor of a field map names {short(absent[0])}, which does not exist"
    return "no field map is intended for it"


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # no file can have that name
        return False


def _encoding(fields: Mapping[str, Any], shape: Sequence[int], whose: str) -> tuple[str, float]:
    """``PhaseEncodingDirection`` and the total readout time, s."""
    direction = fields.get("PhaseEncodingDirection")
    if direction is None:
        raise _Unusable(f"{whose} PhaseEncodingDirection is missing")
    if direction not in ("i", "j", "k", "i-", "j-", "k-"):
        msg = f"{whose} PhaseEncodingDirection is {short(str(direction))}: expected i, j or k, perhaps with a minus"
        raise _Unusable(msg)
    readout_s, name = fields.get("TotalReadoutTime"), "TotalReadoutTime"
    if readout_s is None and (step_s := _number(fields.get("EffectiveEchoSpacing"))) is not None:
        lines = _number(fields.get("ReconMatrixPE")) or shape["ijk".index(direction[0])]
        readout_s, name = step_s * (lines - 1), "EffectiveEchoSpacing"
    if readout_s is None:
        raise _Unusable(f"{whose} TotalReadoutTime is missing")
    if (seconds := _number(readout_s)) is None:
        raise _Unusable(f"{whose} {name} is {reprlib.repr(readout_s)}: expected a number of seconds")
    if not 0 < seconds <= MOST_READOUT_S:
        msg = f"{whose} {name} makes a readout of {seconds:g} s: expected seconds, above 0 and below {MOST_READOUT_S}"
        raise _Unusable(msg)
    return direction, seconds


def _check_image(path: Path) -> Any:
    """Header of an image that was read to its end and is not constant.

    Raises
    ------
    DataError
        If it cannot be a field map's.
    """
    name = short(path.name)
    try:
        header = metadata.read_header(path)
        metadata.voxel_sizes({}, header)
        values = np.asanyarray(nib.load(path).dataobj)  # pyright: ignore[reportAttributeAccessIssue]
    except DataError as error:  # a ValueError as well
        raise DataError(f"{name}: {error}") from error
    except DAMAGED as error:
        raise DataError(f"{name}: {damaged(error)}") from error
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() == finite.max():
        raise DataError(f"{name}: all voxels are the same")
    return header


def _check_same_grid(path: Path, other: Path) -> None:
    """Check two images of a field map, which are on one grid.

    Raises
    ------
    DataError
        If one cannot be used, or they differ.
    """
    first, second = (_check_image(one).get_data_shape()[:3] for one in (path, other))
    if first != second:
        sizes = " and ".join("x".join(map(str, shape)) for shape in (first, second))
        raise DataError(f"{short(path.name)} and {short(other.name)} differ in their voxels ({sizes})")


def _number(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    # JSON has whole numbers of any length
    return float(value) if abs(value) <= sys.float_info.max else None


def _one_of(chosen: list[_Image], direction: str, readout_s: float) -> FieldMap:
    """The best that the images make: a measured field, then opposite images."""
    why = None
    by_suffix: dict[str, list[_Image]] = {}
    for image in chosen:
        by_suffix.setdefault(image.suffix, []).append(image)
    for make in (_phases, _field, _opposite):
        try:
            found = make(by_suffix, direction, readout_s)
        except (_Unusable, DataError) as error:
            why = why or error
            continue
        if found is not None:
            return found
    raise why or _Unusable(f"{short(chosen[0].path.name)} alone makes no field map")


def _magnitude(by_suffix: dict[str, list[_Image]], of: _Image) -> str:
    for suffix in ("magnitude1", "magnitude", "magnitude2"):
        for image in by_suffix.get(suffix, []):
            if image.group == of.group:
                _check_same_grid(image.path, of.path)
                return str(image.path)
    raise _Unusable(f"{short(of.path.name)} has no magnitude image beside it")


def _phases(by_suffix: dict[str, list[_Image]], direction: str, readout_s: float) -> FieldMap | None:
    if by_suffix.get("phasediff"):
        kind, images = "phasediff", by_suffix["phasediff"][:1]
        times = [_number(images[0].fields.get(f"EchoTime{i}")) for i in (1, 2)]
    elif by_suffix.get("phase1") and by_suffix.get("phase2"):
        kind, images = "phases", [by_suffix["phase1"][0], by_suffix["phase2"][0]]
        times = [_number(image.fields.get("EchoTime")) for image in images]
    else:
        return None
    name = short(images[0].path.name)
    first, second = times
    if first is None or second is None:
        raise _Unusable(f"{name} states no two echo times (EchoTime1 and EchoTime2, in seconds)")
    if not 0 < second - first <= LONGEST_ECHO_S or max(times[0] or 0, times[1] or 0) > 10 * LONGEST_ECHO_S:
        msg = f"the echo times of {name} are {first:g} and {second:g}: expected seconds, the second above the first"
        raise _Unusable(msg)
    for image in images:
        _check_same_grid(image.path, images[0].path)
    paths = tuple(str(image.path) for image in images)
    return FieldMap(kind, direction, readout_s, paths, _magnitude(by_suffix, images[0]), second - first)


def _field(by_suffix: dict[str, list[_Image]], direction: str, readout_s: float) -> FieldMap | None:
    if not by_suffix.get("fieldmap"):
        return None
    image = by_suffix["fieldmap"][0]
    unit = image.fields.get("Units")
    if not isinstance(unit, str) or unit not in UNITS:
        msg = f"Units of {short(image.path.name)} is {short(str(unit))}: expected Hz, rad/s or T"
        raise _Unusable(msg)
    magnitude = _magnitude(by_suffix, image)
    return FieldMap("fieldmap", direction, readout_s, (str(image.path),), magnitude, UNITS[unit])


def _opposite(by_suffix: dict[str, list[_Image]], direction: str, readout_s: float) -> FieldMap | None:
    if not by_suffix.get("epi"):
        return None
    epis = []
    for image in by_suffix["epi"]:
        header = _check_image(image.path)
        own, own_s = _encoding(image.fields, header.get_data_shape(), f"{short(image.path.name)}:")
        epis.append(Epi(str(image.path), own, own_s))
    turned = direction[0] if direction.endswith("-") else f"{direction}-"
    opposite = [epi for epi in epis if epi.direction == turned]
    if not opposite:
        msg = f"no image of its field map has the opposite phase-encoding direction {turned}"
        raise _Unusable(msg)
    same = [epi for epi in epis if epi.direction == direction]
    return FieldMap("epi", direction, readout_s, epis=(*same[:1], opposite[0]))
