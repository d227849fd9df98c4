"""Correct the reference of a run for susceptibility distortion; yields the displacement of its voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits
from scipy import ndimage

from bhx_model.errors import DataError
from bhx_prep.io import nifti_header
from bhx_prep.io.notes import Kind, note
from bhx_prep.preproc.embedded import distortion
from bhx_prep.preproc.embedded.grids import clean, save
from bhx_prep.preproc.embedded.series import DAMAGED, damaged
from bhx_prep.preproc.embedded.step import Step, register

Floats = distortion.Floats


class _EstimateDistortionIn(BaseInterfaceInputSpec):
    boldref = File(exists=True, mandatory=True)
    field_map = traits.Dict(mandatory=True, desc="FieldMap.fields()")
    sources = traits.List(traits.Str, desc="BIDS URIs of its images, for the sidecar")


class _EstimateDistortionOut(TraitedSpec):
    boldref = File(exists=True, desc="without distortion")
    displacement = File(exists=True, desc="voxels along the phase-encoding axis, on the grid of boldref")
    axis = traits.Int(desc="that axis")
    metadata = traits.Dict(desc="fields of the sidecar")


class EstimateDistortion(Step):
    """Displacement of a run's voxels by a measured field or by images of opposite phase-encoding directions.

    The field map is brought to the run rigidly: images of the run's own direction as they are; magnitude images, which have
    no distortion, to the corrected reference, twice.
    A correction that the images contradict is not made. The signal is not multiplied with the volume change.
    """

    input_spec = _EstimateDistortionIn
    output_spec = _EstimateDistortionOut

    def _compute(self, folder: Path) -> None:
        given = self.inputs.field_map
        boldref: Any = nib.load(self.inputs.boldref)
        volume = np.asarray(boldref.dataobj, np.float32)
        readout = distortion.Readout.of(given["direction"], given["readout_s"])
        estimate = self._from_opposite if given["kind"] == "epi" else self._from_field
        displacement, reference = estimate(given, folder, boldref, volume, readout)
        size = float(np.linalg.norm(boldref.affine[:3, readout.axis]))
        head = distortion.head_of(reference)
        far = head & (np.abs(displacement) * size > distortion.FAR_MM)
        fields = {
            "DistortionCorrection": given["kind"],
            "DistortionSources": self.inputs.sources if isdefined(self.inputs.sources) else [],
            "DistortionDisplacement95": round(float(np.percentile(np.abs(displacement[head]), 95)) * size, 2),
        }
        if distortion.contradicts(volume, reference, displacement, readout.axis, far):
            said = "its field map makes the run less like the head, the opposite would not: check PhaseEncodingDirection"
            fields = {"DistortionCorrection": "none", "DistortionNote": note(Kind.DISTORTION, said)}
            displacement = np.zeros_like(displacement)
        fixed = np.maximum(distortion.move_along(volume, displacement, readout.axis), 0)
        save(fixed.astype(np.float32), boldref.affine, folder / "corrected.nii.gz")
        save(displacement.astype(np.float32), boldref.affine, folder / "displacement.nii.gz")
        self._results["boldref"] = str(folder / "corrected.nii.gz")
        self._results["displacement"] = str(folder / "displacement.nii.gz")
        self._results["axis"] = readout.axis
        self._results["metadata"] = fields

    def _from_field(
        self, given: dict[str, Any], folder: Path, boldref: Any, volume: Floats, readout: distortion.Readout
    ) -> tuple[Floats, Floats]:
        magnitude = _read(given["magnitude"])
        images = [_read(path) for path in given["images"]]
        if any(image.shape != magnitude.shape for image in images):
            msg = "the images of the field map differ in their voxels"
            raise DataError(msg)
        values = [np.asarray(image.dataobj) for image in images]
        head = distortion.head_of(np.asarray(magnitude.dataobj))
        if given["kind"] == "fieldmap":
            field = values[0].astype(np.float64) * given["scale"]
        else:
            phases = [distortion.to_radians(value) for value in values]
            phase = phases[0] if len(phases) == 1 else phases[1] - phases[0]
            field = distortion.field_of_phase(phase, given["scale"], head)
        zooms = np.linalg.norm(magnitude.affine[:3, :3], axis=0)
        field = distortion.smooth_everywhere(field, head, zooms)
        save(field.astype(np.float32), magnitude.affine, folder / "field.nii.gz")
        save(np.asarray(magnitude.dataobj, np.float32), magnitude.affine, folder / "magnitude.nii.gz")
        displacement = np.zeros(volume.shape)
        for turn in ("first", "second"):
            target = distortion.move_along(volume, displacement, readout.axis)
            save(np.maximum(target, 0).astype(np.float32), boldref.affine, folder / f"{turn}.nii.gz")
            moved = _align(folder / f"{turn}.nii.gz", folder / "magnitude.nii.gz", folder / turn)
            displacement = _bring(folder / "field.nii.gz", moved, boldref) * readout.seconds
        return displacement, _bring(folder / "magnitude.nii.gz", moved, boldref)

    def _from_opposite(
        self, given: dict[str, Any], folder: Path, boldref: Any, volume: Floats, readout: distortion.Readout
    ) -> tuple[Floats, Floats]:
        *same, opposite = given["epis"]
        ratio = opposite["readout_s"] / (same[0]["readout_s"] if same else abs(readout.seconds))
        if same:
            first: Any = _read(same[0]["path"])
            own_s = np.copysign(same[0]["readout_s"], readout.seconds)
        else:
            first, own_s = boldref, readout.seconds
        second = _on_grid_of(first, _read(opposite["path"]))
        values = np.asarray(first.dataobj, np.float32)
        displacement = distortion.opposite_displacement(values, second, readout.axis, ratio)
        middle = distortion.move_along(second, -ratio * displacement, readout.axis, order=1)
        if not same:
            return displacement, middle
        save((displacement / own_s).astype(np.float32), first.affine, folder / "field.nii.gz")
        save(values, first.affine, folder / "same.nii.gz")
        save(middle.astype(np.float32), first.affine, folder / "middle.nii.gz")
        moved = _align(Path(self.inputs.boldref), folder / "same.nii.gz", folder / "same")
        field = _bring(folder / "field.nii.gz", moved, boldref)
        return field * readout.seconds, _bring(folder / "middle.nii.gz", moved, boldref)


def _read(path: str) -> Any:
    """A field map's image with a header to trust: the mean of its frames.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    try:
        image: Any = nib.load(path)
        values = np.asanyarray(image.dataobj)
    except DAMAGED as error:
        raise DataError(f"field map {Path(path).name}: {damaged(error)}") from error
    zooms = [float(z) for z in image.header.get_zooms()[:3]]
    sizes, reason = nifti_header.voxel_sizes(zooms, image.shape[:3], {})
    if reason is not None:
        raise DataError(f"field map {Path(path).name}: {reason}")
    fixed = clean(nib.Nifti1Image(values, image.affine), sizes)
    values = np.asarray(fixed.dataobj)
    return nib.Nifti1Image(values.mean(axis=3) if values.ndim == 4 else values, fixed.affine)


def _on_grid_of(first: Any, second: Any) -> Floats:
    """Values of the second image at the voxels of the first."""
    if first.shape == second.shape and np.allclose(first.affine, second.affine, atol=1e-3):
        return np.asarray(second.dataobj, np.float32)
    matrix = np.linalg.inv(second.affine) @ first.affine
    return ndimage.affine_transform(
        np.asarray(second.dataobj, np.float32), matrix[:3, :3], matrix[:3, 3], first.shape, order=1
    )


def _align(fixed: Path, moving: Path, prefix: Path) -> str:
    """Rigid transform of one head's image to another of it, from the scanner's coordinates."""
    pair = f"{fixed},{moving},1"
    least = min(ants.image_read(str(fixed)).spacing)
    coarse = max(1, round(8 / least))
    stage = [
        "--metric", f"Mattes[{pair},32,Regular,0.5]", "--transform", "Rigid[0.1]",
        "--convergence", "[100x100,1e-6,10]", "--shrink-factors", f"{coarse}x{max(1, coarse // 2)}",
        "--smoothing-sigmas", "4x2mm", "--masks", "[NA,NA]",
    ]  # fmt: skip
    register(stage, start="Identity", prefix=prefix, composite=False)
    return f"{prefix}0GenericAffine.mat"


def _bring(field: Path, transform: str, boldref: Any) -> Floats:
    """A field map's image at the voxels of the reference, (X, Y, Z)."""
    image = ants.image_read(str(field))
    target = ants.image_read(boldref.get_filename())
    moved = ants.apply_transforms(target, image, [transform], interpolator="linear")
    return np.asarray(moved.numpy(), np.float64)
