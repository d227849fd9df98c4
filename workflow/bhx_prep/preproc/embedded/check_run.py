"""Quality measures of a run's registration to its T1w image, and the limits that exclude it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from bhx_prep.preproc.embedded.check_anat import COMPARED_MM
from bhx_prep.preproc.embedded.grids import open_grid
from bhx_prep.preproc.embedded.step import Step
from bhx_prep.quality import bold, report


class _CheckRunIn(BaseInterfaceInputSpec):
    name = traits.Str(mandatory=True, desc="of the run, for the report")
    file = traits.Str(mandatory=True, desc="where the numbers are written, JSON")
    keep = traits.Bool(False, usedefault=True, desc="by a decision, whatever limits it fails")
    boldref = File(exists=True, mandatory=True, desc="mean of the realigned frames")
    to_anat = File(exists=True, mandatory=True, desc="rigid, BOLD reference -> T1w")
    to_template = File(exists=True, mandatory=True, desc="T1w -> template")
    standard = File(exists=True, mandatory=True, desc="T1w head in the template's space")
    standard_mask = File(exists=True, mandatory=True, desc="its brain mask there")
    template = File(exists=True, mandatory=True, desc="head in MNI152NLin2009cAsym")
    template_mask = File(exists=True, mandatory=True, desc="its brain mask")


class _CheckRunOut(TraitedSpec):
    to_anat = File(exists=True, desc="as it came: what follows depends on the check")


class CheckRun(Step):
    """Measure how a run fits its T1w image and the template; one that fails a limit ends its branch."""

    input_spec = _CheckRunIn
    output_spec = _CheckRunOut

    def _compute(self, folder: Path) -> None:
        given = self.inputs
        grid = open_grid(Path(given.template), COMPARED_MM, folder / "grid.nii.gz")
        drawn: Any = nib.load(folder / "grid.nii.gz")
        picture = ants.apply_transforms(
            grid, ants.image_read(given.boldref), [given.to_template, given.to_anat], interpolator="linear"
        ).numpy()
        standard: Any = nib.load(given.standard)
        standard_mask: Any = nib.load(given.standard_mask)
        template, template_mask = (
            ants.resample_image_to_target(ants.image_read(path), grid).numpy()
            for path in (given.template, given.template_mask)
        )
        reference: Any = nib.load(given.boldref)
        numbers = bold.of_standard(
            picture,
            None,
            drawn.affine,
            bold.Anatomy(
                np.asarray(standard.dataobj),
                np.asarray(standard_mask.dataobj) > 0.5,
                template,
                template_mask > 0.5,
                drawn.affine,
            ),
            float(max(reference.header.get_zooms()[:3])),
        )
        self._results["to_anat"] = given.to_anat
        report.judge(given.name, numbers, "bold", Path(given.file), keep=given.keep)
