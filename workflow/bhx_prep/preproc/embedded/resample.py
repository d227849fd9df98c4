"""A run on the standard grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits
from scipy import ndimage

from bhx_model.errors import DataError
from bhx_prep.preproc.embedded.frames import Frames, FrameWriter
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
    displacement = File(exists=True, desc="by distortion, voxels along `axis`, on the grid of the reference")
    axis = traits.Int(desc="along which phase was encoded")


class _ResampleOut(TraitedSpec):
    out_file = File(exists=True)
    mask = File(exists=True, desc="brain that is inside the field of view in every frame")
    boldref = File(exists=True, desc="mean over frames")


class Resample(Step):
    """Bring every frame to the standard grid in one interpolation: warp, coregistration, distortion and motion together.

    The field moves with the head; its displacement is along the phase-encoding axis of the scanner.
    """

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

        frames = Frames(Path(self.inputs.in_file))
        matrices = np.load(self.inputs.matrices, allow_pickle=False)
        to_voxel = np.linalg.inv(frames.affine)
        limit = np.asarray(frames.shape[:3])[:, None] - 1
        half = 0.5  # a voxel reaches half its size beyond its centre
        at = (to_voxel @ world)[:3]
        candidates = np.flatnonzero(np.all((at > -4) & (at < limit + 4), axis=0))
        world = world[:, candidates]
        displacement, along = self._displacement(at[:, candidates])
        always = np.ones(len(candidates), bool)
        total = np.zeros(int(np.prod(grid.shape)))
        with FrameWriter(folder / "std.nii", affine, (*grid.shape, len(frames))) as writer:
            for t, frame in enumerate(frames):
                spline = ndimage.spline_filter(frame, output=np.float32)  # pyright: ignore[reportArgumentType]
                where = (to_voxel @ matrices[t] @ world)[:3]
                where[along] += displacement
                seen = np.all((where >= -half) & (where <= limit + half), axis=0)
                always &= seen
                values = ndimage.map_coordinates(
                    spline, where[:, seen], order=3, mode="nearest", prefilter=False
                )
                # cubic interpolation overshoots at sharp borders; BOLD has no negative signal
                if frame.min() >= 0:
                    np.maximum(values, 0, out=values)
                out = np.zeros(total.size, np.float32)
                out[candidates[seen]] = values
                total += out
                writer.append(out.reshape(grid.shape))
        inside = ants.resample_image_to_target(
            ants.image_read(self.inputs.template_mask), grid, interp_type="linear"
        ).numpy()
        seen_always = np.zeros(total.size, bool)
        seen_always[candidates] = always
        mean = (total / len(frames)).astype(np.float32).reshape(grid.shape)
        mask = (inside > 0.5) & seen_always.reshape(grid.shape)
        # a tenth of the brain's signal is none: dropout, or voxels that were masked before
        mask &= mean > 0.1 * np.median(mean[mask]) if mask.any() else False
        if not mask.any():
            msg = "the run and the T1w image do not overlap: registration went wrong"
            raise DataError(msg)
        save(mask.astype(np.uint8), affine, folder / "mask.nii.gz")
        save(mean, affine, folder / "boldref.nii.gz")
        self._results["out_file"] = str(folder / "std.nii")
        self._results["mask"] = str(folder / "mask.nii.gz")
        self._results["boldref"] = str(folder / "boldref.nii.gz")

    def _displacement(self, at: np.ndarray) -> tuple[np.ndarray | float, int]:
        """By distortion, at voxels of the reference (3, N), and the axis that it is along."""
        if not isdefined(self.inputs.displacement):
            return 0.0, 0
        volume: Any = nib.load(self.inputs.displacement)
        values = np.asarray(volume.dataobj, np.float32)
        return ndimage.map_coordinates(values, at, order=1, mode="nearest"), self.inputs.axis
