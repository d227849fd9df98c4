"""Nipype step: head motion of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits
from scipy import ndimage

from bhx_prep.io import motion
from bhx_prep.preproc.embedded.frames import Frames
from bhx_prep.preproc.embedded.grids import save
from bhx_prep.preproc.embedded.realign import realign, typical_frame
from bhx_prep.preproc.embedded.step import Step


class _RealignIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    n_dummies = traits.Int(mandatory=True)


class _RealignOut(TraitedSpec):
    matrices = File(exists=True, desc="(T, 4, 4), world of the reference -> world of the frame, RAS mm")
    movement = File(exists=True, desc="(T, 6), fMRIPrep's six parameters")
    rmsd = File(exists=True, desc="(T,), displacement from the frame before, mm")
    reference = File(exists=True, desc="the frame that the others are brought to")
    boldref = File(exists=True, desc="mean of the realigned steady frames")


class Realign(Step):
    """Rigid motion of every frame towards the most typical one."""

    input_spec = _RealignIn
    output_spec = _RealignOut

    def _compute(self, folder: Path) -> None:
        frames = Frames(Path(self.inputs.in_file))
        n, affine = len(frames), frames.affine
        first = typical_frame(frames.frame, n, self.inputs.n_dummies)
        reference = frames.frame(first)
        matrices = realign(frames.frame, n, affine, reference, frames.zooms)
        centre = np.asarray(ndimage.center_of_mass(reference))
        movement = motion.parameters(matrices, affine, reference.shape, centre)
        deviation = motion.rms_deviation(matrices, affine, reference.shape)

        mean = np.zeros(reference.shape)
        index = np.indices(reference.shape).reshape(3, -1)
        index = np.vstack([index, np.ones(index.shape[1])])
        steady = range(self.inputs.n_dummies, n)
        for t in steady:
            where = (np.linalg.inv(affine) @ matrices[t] @ affine @ index)[:3]
            mean += ndimage.map_coordinates(frames.frame(t), where, order=1, mode="nearest").reshape(
                mean.shape
            )
        for name, array in (("matrices", matrices), ("movement", movement), ("rmsd", deviation)):
            np.save(folder / f"{name}.npy", array)
            self._results[name] = str(folder / f"{name}.npy")
        for name, volume in (("reference", reference), ("boldref", mean / len(steady))):
            save(volume.astype(np.float32), affine, folder / f"{name}.nii.gz")
            self._results[name] = str(folder / f"{name}.nii.gz")
