"""Small DICOM series as scanners of three vendors write them: T1w, and BOLD with slice times where the header has them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED = "1.2.840.10008.5.1.4.1.1.4.1"


@dataclass(frozen=True)
class Visit:
    """A patient in the scanner: all that must not come out."""

    patient: str = "PAT-004711"
    name: str = "Mustermann^Erika"
    birth: str = "19610304"
    date: str = "20190827"
    accession: str = "ACC998877"

    @property
    def secrets(self) -> list[str]:
        """What identifies the patient, as it might be found in a file."""
        words = [*self.name.split("^"), self.patient, self.birth, self.date, self.accession]
        dates = [f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in (self.birth, self.date)]
        return [*words, *dates, "Klinikum Irgendwo", "SN-98765", "Dr. Frankenstein"]


def _common(visit: Visit, number: int, description: str, protocol: str, vendor: str) -> Dataset:
    found = Dataset()
    found.PatientID, found.PatientName, found.PatientBirthDate = visit.patient, visit.name, visit.birth
    found.PatientSex, found.PatientAge, found.PatientWeight = "F", "058Y", "61"
    found.StudyDate = found.SeriesDate = found.AcquisitionDate = found.ContentDate = visit.date
    found.StudyTime = found.SeriesTime = found.AcquisitionTime = found.ContentTime = "091500.000"
    found.AccessionNumber, found.StudyID = visit.accession, "4711"
    found.ReferringPhysicianName = "Dr. Frankenstein"
    found.InstitutionName, found.InstitutionAddress = "Klinikum Irgendwo", "Irgendwo 1"
    found.DeviceSerialNumber, found.StationName = "SN-98765", "MRC98765"
    found.Manufacturer, found.Modality = vendor, "MR"
    found.StudyInstanceUID = generate_uid(entropy_srcs=[visit.patient, visit.date])
    found.SeriesInstanceUID = generate_uid(entropy_srcs=[visit.patient, visit.date, str(number)])
    found.FrameOfReferenceUID = generate_uid(entropy_srcs=[visit.patient, "frame"])
    found.SeriesNumber, found.SeriesDescription, found.ProtocolName = number, description, protocol
    found.ImageComments = f"scan of {visit.name}"
    found.PatientPosition, found.MRAcquisitionType = "HFS", "2D"
    found.MagneticFieldStrength, found.ImagedNucleus = 3, "1H"
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation = 16, 12, 11, 0
    return found


def _pixels(dataset: Dataset, image: np.ndarray, size_mm: float, thickness_mm: float) -> None:
    dataset.Rows, dataset.Columns = image.shape[-2:]
    dataset.PixelSpacing, dataset.SliceThickness = [size_mm, size_mm], thickness_mm
    dataset.PixelData = np.ascontiguousarray(image, "<u2").tobytes()


def _save(dataset: Dataset, path: Path, kind: str = MR) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.SOPClassUID = kind
    dataset.SOPInstanceUID = generate_uid(
        entropy_srcs=[dataset.SeriesInstanceUID, str(dataset.get("InstanceNumber", 0))]
    )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(kind), dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), dataset, preamble=b"\0" * 128, file_meta=meta)
    pydicom.dcmwrite(path, file, enforce_file_format=True)
    return path


def _image(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(100, 2000, shape).astype(np.uint16)


def t1w(
    folder: Path,
    visit: Visit,
    number: int = 2,
    description: str = "t1_mprage_sag_iso",
    vendor: str = "SIEMENS",
    image: np.ndarray | None = None,
    size_mm: float = 12.0,
) -> list[Path]:
    """A T1w in one file per slice, axial; `image` is slice x row x column."""
    image = _image(number, 12, 16, 16) if image is None else image
    files = []
    for n, plane in enumerate(image):
        one = _common(visit, number, description, description, vendor)
        one.ScanningSequence, one.SequenceVariant, one.ScanOptions = ["GR", "IR"], ["SP", "MP"], ["IR"]
        one.MRAcquisitionType, one.ImageType = "3D", ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]
        one.RepetitionTime, one.EchoTime, one.InversionTime, one.FlipAngle = 2300, 2.98, 900, 9
        one.InstanceNumber, one.SpacingBetweenSlices = n + 1, size_mm
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        corner = -size_mm * np.array([image.shape[2], image.shape[1]]) / 2
        one.ImagePositionPatient = [*map(float, corner), float(n * size_mm)]
        one.SliceLocation = float(n * size_mm)
        _pixels(one, plane, size_mm, size_mm)
        files.append(_save(one, folder / f"{number:03d}" / f"IM{n + 1:04d}.dcm"))
    return files


def _csa(values: dict[str, tuple[str, Sequence[str]]]) -> bytes:
    """Siemens' own header: names with lists of texts."""
    found = b"SV10\x04\x03\x02\x01" + struct.pack("<II", len(values), 77)
    for name, (kind, texts) in values.items():
        found += struct.pack(
            "<64si4siii", name.encode(), len(texts), kind.encode(), 6, max(len(texts), 6), 77
        )
        for n in range(max(len(texts), 6)):
            text = texts[n].encode() + b"\0" if n < len(texts) else b""
            found += struct.pack("<iiii", len(text), len(text), 77, len(text))
            found += text + b"\0" * (-len(text) % 4)
    return found


def siemens_bold(
    folder: Path,
    visit: Visit,
    number: int = 3,
    description: str = "ep2d_bold_rest",
    frames: int = 4,
    times_ms: Sequence[float] = (0.0, 1000.0, 500.0, 1500.0),
) -> list[Path]:
    """BOLD of Siemens: a mosaic per frame, with the slices' times in Siemens' private fields."""
    side, size = 2, 16
    files = []
    for frame in range(frames):
        one = _common(visit, number, description, description, "SIEMENS")
        one.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        one.ScanningSequence, one.SequenceVariant, one.ScanOptions = "EP", "SK", "FS"
        one.RepetitionTime, one.EchoTime, one.FlipAngle, one.EchoTrainLength = 2000, 30, 80, 1
        one.InstanceNumber, one.AcquisitionNumber = frame + 1, frame + 1
        one.SoftwareVersions, one.InPlanePhaseEncodingDirection = "syngo MR E11", "COL"
        one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-96.0, -96.0, 0.0]
        one.SpacingBetweenSlices = 30.0
        one.AcquisitionMatrix = [size, 0, 0, size]
        block = one.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0A, "US", len(times_ms))
        block.add_new(0x29, "FD", list(times_ms))
        block.add_new(0x28, "FD", 30.0)
        csa = one.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        csa.add_new(0x08, "CS", "IMAGE NUM 4")
        csa.add_new(
            0x10,
            "OB",
            _csa(
                {
                    "NumberOfImagesInMosaic": ("US", [str(len(times_ms))]),
                    "SliceNormalVector": ("FD", ["0.0", "0.0", "1.0"]),
                    "PhaseEncodingDirectionPositive": ("IS", ["1"]),
                    "BandwidthPerPixelPhaseEncode": ("FD", ["30.0"]),
                    "MosaicRefAcqTimes": ("FD", [f"{t:.8f}" for t in times_ms]),
                    "PatientName": ("LO", [visit.name]),
                }
            ),
        )
        image = _image(100 * number + frame, len(times_ms), size, size)
        mosaic = np.zeros((side * size, side * size), np.uint16)
        for n, plane in enumerate(image):
            row, column = divmod(n, side)
            mosaic[row * size : (row + 1) * size, column * size : (column + 1) * size] = plane
        _pixels(one, mosaic, 12.0, 30.0)
        files.append(_save(one, folder / f"{number:03d}" / f"IM{frame + 1:04d}.dcm"))
    return files


def ge_bold(
    folder: Path,
    visit: Visit,
    number: int = 4,
    description: str = "fMRI rest",
    frames: int = 4,
    slices: int = 4,
    protocol: str = "",
) -> list[Path]:
    """BOLD of GE: a file per slice and frame, with the slice's time as its trigger time.

    `protocol` are the lines of GE's private protocol block, from which slice times can be told; none when empty.
    """
    image = _image(number, frames, slices, 16, 16)
    times = [0.0, 1000.0, 500.0, 1500.0]
    files = []
    for frame in range(frames):
        for n in range(slices):
            one = _common(visit, number, description, description, "GE MEDICAL SYSTEMS")
            one.ImageType, one.ScanningSequence, one.SequenceVariant = (
                ["ORIGINAL", "PRIMARY", "EPI"],
                ["EP", "GR"],
                "SS",
            )
            one.ScanOptions = "EPI_GEMS"
            one.RepetitionTime, one.EchoTime, one.FlipAngle = 2000, 30, 77
            one.TriggerTime = times[n]
            one.InstanceNumber = frame * slices + n + 1
            one.TemporalPositionIdentifier, one.NumberOfTemporalPositions = frame + 1, frames
            one.ImagesInAcquisition = slices
            one.InPlanePhaseEncodingDirection = "COL"
            one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            one.ImagePositionPatient = [-96.0, -96.0, 30.0 * n]
            one.SliceLocation, one.SpacingBetweenSlices = 30.0 * n, 30.0
            block = one.private_block(0x0019, "GEMS_ACQU_01", create=True)
            block.add_new(0x9C, "LO", "epi")
            relation = one.private_block(0x0021, "GEMS_RELA_01", create=True)
            relation.add_new(0x5E, "FL", times[n] * 10)
            if protocol:
                one.SoftwareVersions = ["27", "LX", "MR Software release:DV26.0_R03_1831.b"]
                series = one.private_block(0x0025, "GEMS_SERS_01", create=True)
                packed = gzip.compress(protocol.encode(), mtime=0)
                series.add_new(0x1B, "OB", struct.pack("<I", len(protocol)) + packed)
            _pixels(one, image[frame, n], 12.0, 30.0)
            files.append(_save(one, folder / f"{number:03d}" / f"IM{frame * slices + n + 1:04d}.dcm"))
    return files


def philips_bold(
    folder: Path,
    visit: Visit,
    number: int = 5,
    description: str = "FE_EPI rest",
    frames: int = 4,
    slices: int = 4,
) -> list[Path]:
    """BOLD of Philips: one enhanced file with all frames; slice times are not in its header."""
    one = _common(visit, number, description, description, "Philips Medical Systems")
    one.ImageType, one.InstanceNumber = ["ORIGINAL", "PRIMARY", "M", "NONE"], 1
    one.NumberOfFrames = frames * slices
    one.AcquisitionDateTime = f"{visit.date}091500.00"
    organization = generate_uid(entropy_srcs=[visit.patient, "organization"])
    one.DimensionOrganizationSequence = Items([_item(DimensionOrganizationUID=organization)])
    one.DimensionIndexSequence = Items(
        [
            _item(
                DimensionOrganizationUID=organization,
                DimensionIndexPointer=0x00209056,
                FunctionalGroupPointer=0x00209111,
            ),
            _item(
                DimensionOrganizationUID=organization,
                DimensionIndexPointer=0x00209128,
                FunctionalGroupPointer=0x00209111,
            ),
        ]
    )
    timing = _item(
        RepetitionTime=2000.0,
        FlipAngle=80.0,
        EchoTrainLength=1,
        RFEchoTrainLength=0,
        GradientEchoTrainLength=1,
    )
    geometry = _item(InPlanePhaseEncodingDirection="COLUMN")
    one.SharedFunctionalGroupsSequence = Items(
        [
            _item(
                MRTimingAndRelatedParametersSequence=Items([timing]),
                MRFOVGeometrySequence=Items([geometry]),
                PlaneOrientationSequence=Items([_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]),
                PixelMeasuresSequence=Items(
                    [_item(PixelSpacing=[12.0, 12.0], SliceThickness=30.0, SpacingBetweenSlices=30.0)]
                ),
            )
        ]
    )
    groups = []
    for frame in range(frames):
        for n in range(slices):
            content = _item(
                StackID="1",
                InStackPositionNumber=n + 1,
                TemporalPositionIndex=frame + 1,
                DimensionIndexValues=[n + 1, frame + 1],
                FrameAcquisitionDateTime=f"{visit.date}0915{frame * 2:02d}.00",
            )
            groups.append(
                _item(
                    FrameContentSequence=Items([content]),
                    PlanePositionSequence=Items([_item(ImagePositionPatient=[-96.0, -96.0, 30.0 * n])]),
                    MREchoSequence=Items([_item(EffectiveEchoTime=30.0)]),
                    PixelValueTransformationSequence=Items(
                        [_item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")]
                    ),
                )
            )
    one.PerFrameFunctionalGroupsSequence = Items(groups)
    one.Rows = one.Columns = 16
    one.PixelData = _image(number, frames * slices, 16, 16).tobytes()
    return [_save(one, folder / f"{number:03d}" / "IM0001.dcm", ENHANCED)]


def _item(**values: Any) -> Dataset:
    found = Dataset()
    for name, value in values.items():
        setattr(found, name, value)
    return found


def two_echoes(files: Sequence[Path]) -> None:
    """Give a series a second echo, with files of its own."""
    for echo, time_ms in ((1, 4.92), (2, 7.38)):
        for file in files:
            one = pydicom.dcmread(file)
            one.EchoTime, one.EchoNumbers, one.ScanningSequence = time_ms, echo, "GR"
            one.InstanceNumber = int(one.InstanceNumber) + (echo - 1) * len(files)
            one.SOPInstanceUID = generate_uid(entropy_srcs=[one.SOPInstanceUID, str(echo)])
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
            one.save_as(file.with_name(f"{echo}{file.name}"))
    for file in files:
        file.unlink()
