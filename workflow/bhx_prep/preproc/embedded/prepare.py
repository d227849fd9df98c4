"""Write a BOLD run with a valid header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from bhx_prep.preproc.embedded.frames import FrameWriter
from bhx_prep.preproc.embedded.grids import clean_affine, clean_values
from bhx_prep.preproc.embedded.series import frames_of
from bhx_prep.preproc.embedded.step import Step


class _PrepareIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    zooms = traits.Tuple(traits.Float, traits.Float, traits.Float, mandatory=True)


class _PrepareOut(TraitedSpec):
    out_file = File(exists=True, desc="float32, not packed: every later step reads it frame by frame")


class Prepare(Step):
    """Give a BOLD run a header to trust, and zeros for NaN in its background."""

    input_spec = _PrepareIn
    output_spec = _PrepareOut

    def _compute(self, folder: Path) -> None:
        out = folder / "bold.nii"
        image: Any = nib.load(self.inputs.in_file, keep_file_open=True)
        affine = clean_affine(image, self.inputs.zooms)
        with FrameWriter(out, affine, image.shape) as writer:
            for frame in frames_of(image):
                writer.append(clean_values(frame))
        self._results["out_file"] = str(out)
