"""Registration of a run to the T1w image."""

from __future__ import annotations

from pathlib import Path

import ants
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec

from bhx_prep.preproc.embedded.step import Step, register


class _CoregisterIn(BaseInterfaceInputSpec):
    boldref = File(exists=True, mandatory=True)
    anat = File(exists=True, mandatory=True)
    anat_mask = File(exists=True, mandatory=True)


class _CoregisterOut(TraitedSpec):
    to_anat = File(exists=True, desc="rigid, BOLD reference -> T1w")


class Coregister(Step):
    """Rigid registration of the BOLD reference to the brain of the T1w image.

    Tried from the scanner's own coordinates and from common centres of mass; the better end is taken.
    """

    input_spec = _CoregisterIn
    output_spec = _CoregisterOut

    def _compute(self, folder: Path) -> None:
        head, mask = ants.image_read(self.inputs.anat), ants.image_read(self.inputs.anat_mask)
        # BOLD shows nothing finer than this
        spacing = [max(2.0, s) for s in head.spacing]
        head = ants.resample_image(head, spacing, use_voxels=False, interp_type=0)
        mask = ants.resample_image_to_target(mask, head, interp_type="nearestNeighbor")
        brain, near = head * mask, ants.iMath(mask, "MD", max(1, round(4 / min(head.spacing))))
        bold = ants.image_read(self.inputs.boldref)
        bold = ants.n4_bias_field_correction(
            bold, shrink_factor=2, convergence={"iters": [20, 20], "tol": 1e-4}
        )
        for name, image in (("brain", brain), ("near", near), ("bold", bold)):
            ants.image_write(image, str(folder / f"{name}.nii.gz"))
        pair = f"{folder / 'brain.nii.gz'},{folder / 'bold.nii.gz'},1"
        coarse = max(1, round(6 / min(head.spacing)))
        fine = max(1, coarse // 2)
        stage = [
            "--metric", f"Mattes[{pair},32,Regular,0.5]", "--transform", "Rigid[0.1]",
            "--convergence", "[200x100,1e-6,10]", "--shrink-factors", f"{coarse}x{fine}",
            "--smoothing-sigmas", "3x1.5mm", "--masks", f"[{folder / 'near.nii.gz'},NA]",
        ]  # fmt: skip
        ends = []
        for name, start in (("scanner", "Identity"), ("centres", f"[{pair}]")):
            register(stage, start=start, prefix=folder / name, composite=False)
            found = str(folder / f"{name}0GenericAffine.mat")
            moved = ants.apply_transforms(brain, bold, [found])
            unlike = ants.image_similarity(brain, moved, "MattesMutualInformation", fixed_mask=near)
            ends.append((unlike, found))
        self._results["to_anat"] = min(ends)[1]
