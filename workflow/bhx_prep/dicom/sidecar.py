"""JSON sidecars of converted images: fields that BIDS and the methods need, none that identify a person or a date."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from bhx_prep.dicom import identity

#: What may stand in a sidecar, of the scanner, the sequence and the conversion. Everything else is dropped: names, ids,
#: dates and times, the hospital, free text typed at the scanner, and whatever a later dcm2niix may add.
ALLOWED: Final = frozenset(
    (
        "Modality", "MagneticFieldStrength", "ImagingFrequency", "Manufacturer", "ManufacturersModelName",
        "SoftwareVersions", "ReceiveCoilName", "ReceiveCoilActiveElements", "CoilString", "MRAcquisitionType",
        "ScanningSequence", "SequenceVariant", "ScanOptions", "SequenceName", "PulseSequenceType", "PulseSequenceDetails",
        "ImageType", "NonlinearGradientCorrection", "PatientPosition", "EchoNumber", "EchoTime", "EchoTime1", "EchoTime2",
        "RepetitionTime", "RepetitionTimeExcitation", "RepetitionTimeInversion", "InversionTime", "FlipAngle",
        "SliceThickness", "SpacingBetweenSlices", "SliceTiming", "SliceEncodingDirection", "NumberOfAverages", "SAR",
        "NumberOfVolumesDiscardedByScanner", "DelayTime", "AcquisitionDuration", "PartialFourier", "PartialFourierDirection",
        "PercentPhaseFOV", "PercentSampling", "EchoTrainLength", "PhaseEncodingSteps", "PhaseEncodingStepsNoPartialFourier",
        "AcquisitionMatrixPE", "ReconMatrixPE", "BaseResolution", "ShimSetting", "TxRefAmp", "PhaseResolution",
        "ReceiveCoilInputImpedance", "BandwidthPerPixelPhaseEncode", "ParallelReductionFactorInPlane",
        "ParallelReductionFactorOutOfPlane", "ParallelAcquisitionTechnique", "MultibandAccelerationFactor",
        "AccelFactPE", "AccelFactSlice", "EffectiveEchoSpacing", "EstimatedEffectiveEchoSpacing",
        "DerivedVendorReportedEchoSpacing", "TotalReadoutTime", "EstimatedTotalReadoutTime", "WaterFatShift",
        "PixelBandwidth",
        "DwellTime", "PhaseEncodingDirection", "PhaseEncodingAxis", "PhaseEncodingPolarityGE",
        "InPlanePhaseEncodingDirectionDICOM",
        "ImageOrientationPatientDICOM", "VariableFlipAngle", "MatrixCoilMode", "MTState", "SpoilingState",
        "PhilipsRWVSlope", "PhilipsRWVIntercept", "PhilipsRescaleSlope", "PhilipsRescaleIntercept", "PhilipsScaleSlope",
        "UsePhilipsFloatNotDisplayScaling", "RawImage", "Units", "ConversionSoftware", "ConversionSoftwareVersion",
    )
)  # fmt: skip

#: Of these, the ones that hold codes of the standard and of vendors, in which a short name would be found by chance.
_CODES: Final = frozenset(
    (
        "Modality", "MRAcquisitionType", "ScanningSequence", "SequenceVariant", "ScanOptions", "ImageType",
        "PatientPosition", "PhaseEncodingDirection", "PhaseEncodingAxis", "InPlanePhaseEncodingDirectionDICOM", "Units",
    )
)  # fmt: skip


def clean(sidecar: Mapping[str, Any], identifying: Collection[str]) -> dict[str, Any]:
    """Keep only allowed fields of a sidecar that identify nobody.

    Texts that are no ASCII are dropped: programs garble them, so that a name in them could not be recognised.

    Parameters
    ----------
    sidecar : mapping
        As dcm2niix writes it.
    identifying : collection of str
        Words of `identity.words`.

    Returns
    -------
    dict
    """
    long = [word for word in identifying if len(word) >= identity.INSIDE]
    return {
        key: value
        for key, value in sidecar.items()
        if key in ALLOWED
        and all(text.isascii() for text in _texts(value))
        and not any(
            identity.identifies(text, long if key in _CODES else identifying) for text in _texts(value)
        )
    }


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else []
