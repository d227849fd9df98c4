"""Nipype step: slice timing correction of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from bhx_prep.preproc.embedded.frames import Frames, FrameWriter
from bhx_prep.preproc.embedded.slice_timing import SliceTimes, correct
from bhx_prep.preproc.embedded.step import Step


class _CorrectSliceTimingIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    times_s = traits.List(traits.Float, mandatory=True, desc="of slices 0, 1, ...; none: not known")
    axis = traits.Int(mandatory=True, desc="of the slices")
    tr_s = traits.Float(mandatory=True)
    n_dummies = traits.Int(mandatory=True)


class _CorrectSliceTimingOut(TraitedSpec):
    out_file = File(exists=True, desc="as in_file; itself where there is nothing to correct")
    metadata = traits.Dict(desc="fields of the sidecar")


class CorrectSliceTiming(Step):
    """Interpolate every voxel's series to the middle of the slices' times.

    This comes before the frames are resampled, and motion is estimated on frames as they were acquired, as in fMRIPrep: a
    slice's time belongs to the grid on which it was acquired, and space is still interpolated once.
    """

    input_spec = _CorrectSliceTimingIn
    output_spec = _CorrectSliceTimingOut

    def _compute(self, folder: Path) -> None:
        given = self.inputs
        self._results["out_file"] = given.in_file
        self._results["metadata"] = {"SliceTimingCorrected": False}
        if not given.times_s:
            return
        times = SliceTimes(tuple(given.times_s), given.axis)
        self._results["metadata"]["StartTime"] = times.reference_s
        if times.span_s == 0:  # slices of one time have nothing to correct
            return
        frames = Frames(Path(given.in_file))
        out = folder / "bold.nii"
        with FrameWriter(out, frames.affine, frames.shape) as writer:
            for where, slab in frames.slabs():
                fixed = correct(slab, times, where.start, given.tr_s, given.n_dummies)
                if slab.min() >= 0:  # splines overshoot; BOLD has no negative signal
                    np.maximum(fixed, 0, out=fixed)
                writer.put(where, fixed)
        self._results["out_file"] = str(out)
        self._results["metadata"]["SliceTimingCorrected"] = True
