"""Bias field correction of a T1w image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from bhx_prep.preproc.embedded.brain_mask import head_mask
from bhx_prep.preproc.embedded.grids import clean, save, thin_out
from bhx_prep.preproc.embedded.step import Step

#: What finer grids would cost, in time and memory, nothing here could use: standard space has 1 mm at most.
WORK_MM = 1.0


class _CorrectBiasIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    zooms = traits.Tuple(traits.Float, traits.Float, traits.Float, mandatory=True)


class _CorrectBiasOut(TraitedSpec):
    out_file = File(exists=True, desc="RAS, float32, of even brightness, voxels of at least 1 mm")


class CorrectBias(Step):
    """Bring a T1w image to RAS, to 1 mm and to a header that ITK accepts, and take its bias field out (N4)."""

    input_spec = _CorrectBiasIn
    output_spec = _CorrectBiasOut

    def _compute(self, folder: Path) -> None:
        image: Any = nib.as_closest_canonical(clean(nib.load(self.inputs.in_file), self.inputs.zooms))
        image = thin_out(image, WORK_MM)
        raw, out = folder / "ras.nii.gz", folder / "n4.nii.gz"
        image.to_filename(raw)
        head = ants.image_read(str(raw))
        inside = head_mask(head.numpy())
        # a bias field is smooth: 5 mm voxels show all of it, and knots 200 mm apart, halved twice, can follow it
        corrected = ants.n4_bias_field_correction(
            head,
            mask=head.new_image_like(inside.astype(np.float32)),
            shrink_factor=max(1, round(5 / min(image.header.get_zooms()[:3]))),
            convergence={"iters": [30, 30, 20], "tol": 1e-5},
            spline_param=200,
        )
        save(np.maximum(corrected.numpy(), 0), image.affine, out)
        self._results["out_file"] = str(out)
