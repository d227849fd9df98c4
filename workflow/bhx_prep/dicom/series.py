"""Group a folder of DICOM files into series, each of one patient, one visit and one acquisition."""

from __future__ import annotations

import logging
import os
import struct
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import pydicom
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from bhx_model.errors import ConfigError
from bhx_prep.dicom import identity

# its warnings quote what stands in headers
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
#: MR images, classic, enhanced, and enhanced in colour.
MR_IMAGES: Final = tuple(f"1.2.840.10008.5.1.4.1.1.4{more}" for more in ("", ".1", ".3"))
#: Pictures of a screen, whose pixels may hold a name.
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
#: A DICOMDIR of another name.
_INDEX: Final = "1.2.840.10008.1.3.10"
#: What pydicom raises where a header is damaged.
_MALFORMED: Final = (ValueError, KeyError, AttributeError, NotImplementedError, TypeError, struct.error)
#: Names of files that are an index or a note beside the images.
_BESIDE: Final = ("DICOMDIR", "LOCKFILE", "VERSION", "README")
_ARCHIVES: Final = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
_TAGS: Final = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "ProtocolName", "ImageType", "InstanceNumber", "Modality", "Manufacturer", "PatientAge", "PatientSex",
    "AcquisitionNumber", "AcquisitionTime", "ContentTime", "EchoTime", "ImagePositionPatient", "TemporalPositionIdentifier",
    "BurnedInAnnotation", "Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    *identity.KEYWORDS,
)  # fmt: skip
#: Which image of a series a file is: two files that agree in all of them are one image.
_IMAGE: Final = (
    "InstanceNumber", "AcquisitionNumber", "AcquisitionTime", "ContentTime", "EchoTime", "ImagePositionPatient",
    "ImageType", "TemporalPositionIdentifier",
)  # fmt: skip


@dataclass
class Series:
    """One series as its headers describe it; only its numbers may be shown unchanged.

    Attributes
    ----------
    patient, name : str
        Of the headers, `PatientID` and `PatientName`.
    study, uid : str
        UIDs of the study and of the series.
    date : str
        Of the study, YYYYMMDD; empty where there is none.
    number : int or None
    description, protocol, vendor, age, sex : str
        As they stand there.
    image_type : frozenset of str
    files : dict
        UID of an instance -> its file, the first of several.
    instances : list of int
        `InstanceNumber` of each file.
    places : dict
        UID of an instance -> which image it is: values of the header in the order of `_IMAGE`.
    frames : list of tuple of str
        Frames of enhanced files, as `places`; only echo, position and kind are stated.
    in_stack : set of int
        Numbers of slices of enhanced files in their stacks.
    n_images : int
        Images in its files: of an enhanced one, its frames.
    lost : int
        Images that seem to be missing, by their numbers.
    identifying : frozenset of str
        Words that must come out nowhere.
    faults : list of str
        Why it cannot be converted.
    images : bool
        Whether it holds MR images at all.
    """

    patient: str
    name: str
    study: str
    uid: str
    date: str
    number: int | None
    description: str
    protocol: str
    vendor: str
    age: str
    sex: str
    image_type: frozenset[str]
    images: bool
    files: dict[str, Path] = field(default_factory=dict)
    instances: list[int] = field(default_factory=list)
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    frames: list[tuple[str, ...]] = field(default_factory=list)
    in_stack: set[int] = field(default_factory=set)
    n_images: int = 0
    lost: int = 0
    identifying: frozenset[str] = frozenset()
    faults: list[str] = field(default_factory=list)

    @property
    def shown(self) -> tuple[str, str]:
        """Description and protocol without what is known to identify the patient."""
        return identity.without(self.description, self.identifying), identity.without(
            self.protocol, self.identifying
        )


@dataclass
class Found:
    """What a folder holds.

    Attributes
    ----------
    series : list of Series
        By patient, day and number.
    others, archives : int
        Files that are no DICOM images.
    broken : list of Path
        Files that cannot be read; not to be shown.
    """

    series: list[Series]
    others: int = 0
    archives: int = 0
    broken: list[Path] = field(default_factory=list)


def read_folder(folder: Path) -> Found:
    """Read the headers of all files below a folder, or of one file.

    Raises
    ------
    ConfigError
        If there is no DICOM file, or a folder may not be read.
    """
    found, by_key = Found([]), {}
    for path in _files(folder):
        if path.suffix.lower() in _ARCHIVES:
            found.archives += 1
            continue
        try:
            header, fault = _header(path)
        except InvalidDicomError:
            found.others += 1
            continue
        except (EOFError, OSError, *_MALFORMED):
            found.broken.append(path)
            continue
        if header is None and not _is_stub(path):
            found.others += 1
            continue
        if header is None or not header.get("SeriesInstanceUID"):
            found.broken.append(path)  # all that is stored has one
            continue
        _add(by_key, path, header, fault)
    found.series = sorted(by_key.values(), key=lambda s: (s.patient, s.date, s.study, s.number or 0, s.uid))
    if not found.series:
        hint = ": unpack the archives first" if found.archives else ": name the folder that holds them"
        raise ConfigError(f"{folder} holds no DICOM file ({found.others} other files){hint}")
    _check(found.series, {path.parent for path in found.broken})
    return found


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}")

    def refuse(error: OSError) -> None:  # its path may name a patient
        msg = f"a folder below {folder} may not be read ({error.strerror}): change its permissions"
        raise ConfigError(msg) from None

    paths = [Path(place, name) for place, _, names in os.walk(folder, onerror=refuse) for name in names]
    for path in sorted(paths):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.name.upper() not in _BESIDE:
            yield path


def _is_stub(path: Path) -> bool:
    """Whether a file is named as one of DICOM, and ends before it could be one."""
    return path.suffix.lower() in (".dcm", ".ima") and path.stat().st_size <= 132


def _header(path: Path) -> tuple[FileDataset | None, str]:
    """Header of a file, and what is wrong with its pixels; no header for what has none of DICOM."""
    with path.open("rb") as file:
        start = file.read(132)
        if start[128:] != b"DICM" and start[:2] not in (b"\x08\x00", b"\x02\x00"):
            return None, ""
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(
                file, stop_before_pixels=True, specific_tags=list(_TAGS), force=start[128:] != b"DICM"
            )
            if getattr(header, "file_meta", {}).get("MediaStorageSOPClassUID") == _INDEX:
                return None, ""
            return header, _fault(file, header, path.stat().st_size)


def _fault(file: BinaryIO, header: FileDataset, size: int) -> str:
    """What is wrong with the pixels, which begin where reading the header has stopped."""
    if str(header.get("SOPClassUID", "")) not in MR_IMAGES:
        return ""
    meta = getattr(header, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID", ImplicitVRLittleEndian) if meta else ImplicitVRLittleEndian
    if syntax == DeflatedExplicitVRLittleEndian:
        return ""
    at = file.tell()
    order = "<" if syntax.is_little_endian else ">"
    start = file.read(12)
    if len(start) < 8 or struct.unpack(f"{order}HH", start[:4])[0] != 0x7FE0:
        return "cut off"
    short = syntax.is_implicit_VR
    length = struct.unpack(f"{order}I", start[4:8] if short else start[8:12])[0]
    if length == 0xFFFFFFFF:  # compressed: its end is marked
        file.seek(max(size - 4096, 0))
        return "" if b"\xfe\xff\xdd\xe0" in file.read() else "cut off"
    values = [header.get(name) for name in ("Rows", "Columns", "BitsAllocated")]
    expected = int(header.get("NumberOfFrames") or 1) * int(header.get("SamplesPerPixel") or 1)
    for value in values:
        expected *= int(value or 0)
    if at + (8 if short else 12) + length > size or expected // 8 > length or not expected:
        return "cut off"
    return ""


def _add(by_key: dict[Any, Series], path: Path, header: FileDataset, fault: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values are checked as they are read
        _add_quietly(by_key, path, header, fault)


def _add_quietly(by_key: dict[Any, Series], path: Path, header: FileDataset, fault: str) -> None:
    def text(keyword: str) -> str:
        return str(header.get(keyword) or "").strip()

    key = text("PatientID"), text("StudyInstanceUID"), text("SeriesInstanceUID")
    kind = text("SOPClassUID")
    series = by_key.get(key)
    if series is None:
        number = text("SeriesNumber")
        series = by_key[key] = Series(
            patient=key[0],
            name=text("PatientName"),
            study=key[1],
            uid=key[2],
            date=text("StudyDate"),
            number=int(number) if number.lstrip("-").isdecimal() else None,
            description=text("SeriesDescription"),
            protocol=text("ProtocolName"),
            vendor=text("Manufacturer"),
            age=text("PatientAge"),
            sex=text("PatientSex"),
            image_type=_image_type(header.get("ImageType")),
            images=kind in MR_IMAGES,
        )
    series.identifying |= identity.words({k: header.get(k) for k in identity.KEYWORDS})
    if fault:
        series.faults.append(fault)
    if text("BurnedInAnnotation").upper() == "YES" or kind == SECONDARY_CAPTURE:
        series.faults.append("burned in")
    instance, place = text("SOPInstanceUID"), tuple(text(keyword) for keyword in _IMAGE)
    if not instance:
        series.faults.append("no UID")
    if instance not in series.files:
        series.files[instance] = path
        series.n_images += int(header.get("NumberOfFrames") or 1)
        series.places[instance] = place
        if (number := text("InstanceNumber")).isdecimal():
            series.instances.append(int(number))
        try:
            _add_frames(series, header)
        except _MALFORMED:
            series.faults.append("cut off")
    elif series.places[instance] != place:
        series.faults.append("shared UID")


def _add_frames(series: Series, header: FileDataset) -> None:
    """Add where the frames of an enhanced file lie."""
    for group in header.get("PerFrameFunctionalGroupsSequence") or ():

        def value(sequence: str, keyword: str, group: Any = group) -> str:
            items = group.get(sequence) or ({},)
            return str(items[0].get(keyword) or "")

        position = value("PlanePositionSequence", "ImagePositionPatient")
        kind = value("MRImageFrameTypeSequence", "FrameType")
        series.frames.append(
            ("", "", "", "", value("MREchoSequence", "EffectiveEchoTime"), position, kind, "")
        )
        if (number := value("FrameContentSequence", "InStackPositionNumber")).isdecimal():
            series.in_stack.add(int(number))


def _image_type(value: Any) -> frozenset[str]:
    values = [value] if isinstance(value, str) else value or ()  # a single value is no list
    return frozenset(str(one).upper() for one in values)


def _check(series: list[Series], broken: set[Path]) -> None:
    """Replace notes on single files by sentences, and find faults that only a comparison of series shows.

    `broken` are folders with files whose series is not known, because they cannot be read.
    """
    patients = defaultdict(set)
    for one in series:
        patients[one.uid].add(one.patient)
    for one in series:
        cut, burned, shared = (one.faults.count(fault) for fault in ("cut off", "burned in", "shared UID"))
        nameless = "no UID" in one.faults
        one.faults = []
        if cut:
            one.faults.append(f"{cut} of {len(one.files)} files end before their pixels do: copy them again")
        if burned:
            one.faults.append(
                "its pixels may hold text (BurnedInAnnotation, or a picture of a screen), which cannot be taken out"
            )
        if broken & {path.parent for path in one.files.values()}:
            one.faults.append(
                "a file in its folder cannot be read and may be one of its images: copy it again"
            )
        if not one.patient:
            one.faults.append("its files have no PatientID")
        if len(patients[one.uid]) > 1:
            one.faults.append(f"its files name {len(patients[one.uid])} patients: ask for a new export")
        if nameless:
            one.faults.append("its files have no SOPInstanceUID: export it again")
        elif shared:
            one.faults.append(
                f"{shared} of its files have the SOPInstanceUID of another image: export it again"
            )
        known = [place for place in one.places.values() if place[0].isdecimal()]
        if twice := len(known) - len(set(known)):
            one.faults.append(f"{twice} of its images are there twice, under other UIDs: remove the copies")
        one.lost = missing(one.instances) or lacking([*one.places.values(), *one.frames])
        one.lost = one.lost or missing(list(one.in_stack))


def missing(instances: list[int]) -> int:
    """Number of gaps in the numbers of a series' images, from 1 on, where these are otherwise one after the other.

    Some exports number images in steps, or from elsewhere; only a series that has most numbers lacks the others.
    """
    distinct = set(instances)
    if len(distinct) < 3 or len(distinct) < len(instances):
        return 0
    lost = max(distinct) - min(*distinct, 1) + 1 - len(distinct)
    return lost if lost <= len(distinct) // 2 else 0


def lacking(places: Iterable[tuple[str, ...]]) -> int:
    """Number of slices that some volumes of a series lack, less than a whole volume.

    Numbers do not tell if the last images of a series are lost. With more than a volume the positions would rather
    follow the head from frame to frame.

    Parameters
    ----------
    places : iterable of tuple of str
        Of images, in the order of `_IMAGE`.
    """
    counts = defaultdict(Counter)
    for _, _, _, _, echo, position, kind, _ in places:
        if position:
            counts[echo, kind][position] += 1
    lost = 0
    for at in counts.values():
        few = max(at.values()) * len(at) - at.total()
        lost += few if few < len(at) else 0
    return lost
