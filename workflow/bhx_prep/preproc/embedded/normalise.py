"""Registration of a brain to the template's."""

from __future__ import annotations

from pathlib import Path

import ants
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from bhx_prep.preproc.embedded.grids import open_grid
from bhx_prep.preproc.embedded.step import Step, register


class _NormalizeIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="T1w head of even brightness")
    mask = File(exists=True, mandatory=True, desc="its brain mask")
    template = File(exists=True, mandatory=True, desc="head in MNI152NLin2009cAsym")
    template_mask = File(exists=True, mandatory=True, desc="its brain mask")
    resolution_mm = traits.Float(mandatory=True)


class _NormalizeOut(TraitedSpec):
    to_template = File(exists=True, desc="affine and SyN, T1w -> template")
    to_anat = File(exists=True, desc="its inverse")


class Normalize(Step):
    """Register a brain to the template's brain: affine, then SyN.

    Both images are nothing but brain, so the metric sees the border of the cortex everywhere. A mask on SyN would hide
    just that border: with one, the cortex at the vertex stayed millimetres outside the template.
    """

    input_spec = _NormalizeIn
    output_spec = _NormalizeOut

    def _compute(self, folder: Path) -> None:
        grid = open_grid(Path(self.inputs.template), self.inputs.resolution_mm, folder / "grid.nii.gz")
        template = ants.image_read(self.inputs.template)
        inside = ants.image_read(self.inputs.template_mask)
        fixed, moving = folder / "template_brain.nii.gz", folder / "brain.nii.gz"
        ants.image_write(ants.resample_image_to_target(template * inside, grid), str(fixed))
        ants.image_write(
            ants.image_read(self.inputs.in_file) * ants.image_read(self.inputs.mask), str(moving)
        )
        pair = f"{fixed},{moving},1,32"
        # shrink factors count voxels: keep the coarsest level at 8 mm whatever the grid
        coarse = max(1, round(8 / self.inputs.resolution_mm))
        middle = max(1, coarse // 2)
        fine = max(1, coarse // 4)
        affine = [
            "--metric", f"Mattes[{pair},Regular,0.25]", "--transform", "Affine[0.1]",
            "--convergence", "[200x100,1e-6,10]", "--shrink-factors", f"{coarse}x{middle}",
            "--smoothing-sigmas", "4x2mm",
        ]  # fmt: skip
        syn = [
            "--metric", f"Mattes[{pair}]", "--transform", "SyN[0.2,3,0]",
            "--convergence", "[60x40x20,1e-6,8]", "--shrink-factors", f"{coarse}x{middle}x{fine}",
            "--smoothing-sigmas", "4x2x0mm",
        ]  # fmt: skip
        register(affine, syn, start=f"[{fixed},{moving},1]", prefix=folder / "xfm", composite=True)
        self._results["to_template"] = str(folder / "xfmComposite.h5")
        self._results["to_anat"] = str(folder / "xfmInverseComposite.h5")
