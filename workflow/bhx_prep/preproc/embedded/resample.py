"""A run on the standard grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits
from scipy import ndimage

from bhx_model.errors import DataError
from bhx_prep.preproc.embedded.grids import LPS, open_grid, save
from bhx_prep.preproc.embedded.step import Step


class _ResampleIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    matrices = File(exists=True, mandatory=True)
    reference = File(exists=True, mandatory=True)
    bold_to_anat = File(exists=True, mandatory=True)
    anat_to_template = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True)
    template_mask = File(exists=True, mandatory=True)
    spacing_mm = traits.Float(mandatory=True)


class _ResampleOut(TraitedSpec):
    out_file = File(exists=True)
    mask = File(exists=True, desc="brain that is inside the field of view in every frame")
    boldref = File(exists=True, desc="mean over frames")


class Resample(Step):
    """Bring every frame to the standard grid in one interpolation: warp, coregistration and motion together."""

    input_spec = _ResampleIn
    output_spec = _ResampleOut

    def _compute(self, folder: Path) -> None:
        grid = open_grid(Path(self.inputs.template), self.inputs.spacing_mm, folder / "grid.nii.gz")
        drawn: Any = nib.load(folder / "grid.nii.gz")
        affine = drawn.affine
        composed = ants.apply_transforms(
            grid,
            ants.image_read(self.inputs.reference),
            [self.inputs.anat_to_template, self.inputs.bold_to_anat],
            compose=str(folder / "to_bold"),
        )
        shift = ants.image_read(composed).numpy().reshape(-1, 3) * LPS[:3]
        index = np.indices(grid.shape).reshape(3, -1)
        world = (affine[:3, :3] @ index).T + affine[:3, 3] + shift  # where in the reference each voxel lies
        world = np.column_stack([world, np.ones(len(world))]).T

        image: Any = nib.load(self.inputs.in_file)
        frames = np.asanyarray(image.dataobj)
        matrices = np.load(self.inputs.matrices, allow_pickle=False)
        to_voxel = np.linalg.inv(image.affine)
        limit = np.asarray(frames.shape[:3])[:, None] - 1
        half = 0.5  # a voxel reaches half its size beyond its centre
        at = (to_voxel @ world)[:3]
        candidates = np.flatnonzero(np.all((at > -4) & (at < limit + 4), axis=0))
        world = world[:, candidates]
        out = np.zeros((*grid.shape, frames.shape[3]), np.float32)
        flat = out.reshape(-1, frames.shape[3])
        always = np.ones(len(candidates), bool)
        for t in range(frames.shape[3]):
            spline = ndimage.spline_filter(frames[..., t], output=np.float32)  # pyright: ignore[reportArgumentType]
            where = (to_voxel @ matrices[t] @ world)[:3]
            seen = np.all((where >= -half) & (where <= limit + half), axis=0)
            always &= seen
            values = ndimage.map_coordinates(spline, where[:, seen], order=3, mode="nearest", prefilter=False)
            flat[candidates[seen], t] = values
        # cubic interpolation overshoots at sharp borders; BOLD has no negative signal
        if frames.min() >= 0:
            np.maximum(out, 0, out=out)
        inside = ants.resample_image_to_target(
            ants.image_read(self.inputs.template_mask), grid, interp_type="linear"
        ).numpy()
        seen_always = np.zeros(flat.shape[0], bool)
        seen_always[candidates] = always
        mean = out.mean(axis=3)
        mask = (inside > 0.5) & seen_always.reshape(grid.shape)
        # a tenth of the brain's signal is none: dropout, or voxels that were masked before
        mask &= mean > 0.1 * np.median(mean[mask]) if mask.any() else False
        if not mask.any():
            msg = "the run and the T1w image do not overlap: registration went wrong"
            raise DataError(msg)
        nib.Nifti1Image(out, affine).to_filename(folder / "std.nii")
        save(mask.astype(np.uint8), affine, folder / "mask.nii.gz")
        save(mean, affine, folder / "boldref.nii.gz")
        self._results["out_file"] = str(folder / "std.nii")
        self._results["mask"] = str(folder / "mask.nii.gz")
        self._results["boldref"] = str(folder / "boldref.nii.gz")
