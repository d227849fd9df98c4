"""Quality measures of a T1w image's registration to the template, and the limits that exclude it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from bhx_prep.preproc.embedded.grids import open_grid, save
from bhx_prep.preproc.embedded.step import Step
from bhx_prep.quality import report, t1w

#: Grid on which heads are compared with the template (mm): no number needs a finer one.
COMPARED_MM = 2.0


class _CheckAnatIn(BaseInterfaceInputSpec):
    name = traits.Str(mandatory=True, desc="of the image, for the report")
    file = traits.Str(mandatory=True, desc="where the numbers are written, JSON")
    keep = traits.Bool(False, usedefault=True, desc="by a decision, whatever limits it fails")
    anat = File(exists=True, mandatory=True, desc="T1w head of even brightness")
    mask = File(exists=True, mandatory=True, desc="its brain mask")
    to_template = File(exists=True, mandatory=True)
    to_anat = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True, desc="head in MNI152NLin2009cAsym")
    template_mask = File(exists=True, mandatory=True, desc="its brain mask")


class _CheckAnatOut(TraitedSpec):
    mask = File(exists=True, desc="as it came: what follows depends on the check")
    to_template = File(exists=True, desc="as it came")
    to_anat = File(exists=True, desc="as it came")
    standard = File(exists=True, desc="T1w head in the template's space, at 2 mm")
    standard_mask = File(exists=True, desc="its brain mask there")


class CheckAnat(Step):
    """Measure how a T1w image fits the template; one that fails a limit ends its branch."""

    input_spec = _CheckAnatIn
    output_spec = _CheckAnatOut

    def _compute(self, folder: Path) -> None:
        given = self.inputs
        grid = open_grid(Path(given.template), COMPARED_MM, folder / "grid.nii.gz")
        drawn: Any = nib.load(folder / "grid.nii.gz")
        moved = {
            name: ants.apply_transforms(
                grid, ants.image_read(path), [given.to_template], interpolator="linear"
            ).numpy()
            for name, path in (("standard", given.anat), ("standard_mask", given.mask))
        }
        for name, values in moved.items():
            save(values, drawn.affine, folder / f"{name}.nii.gz")
            self._results[name] = str(folder / f"{name}.nii.gz")
        template, template_mask = (
            ants.resample_image_to_target(ants.image_read(path), grid).numpy()
            for path in (given.template, given.template_mask)
        )
        head, mask = (nib.load(path) for path in (given.anat, given.mask))
        numbers = t1w.of_head(np.asarray(head.dataobj), np.asarray(mask.dataobj) > 0, head.affine)  # type: ignore[attr-defined]
        numbers |= t1w.of_standard(
            moved["standard"],
            moved["standard_mask"] > 0.5,
            t1w.Template(template, template_mask > 0.5, drawn.affine),
        )
        for name in ("mask", "to_template", "to_anat"):
            self._results[name] = getattr(given, name)
        report.judge(given.name, numbers, "t1w", Path(given.file), keep=given.keep)
