"""Tissues of a brain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec

from bhx_prep.preproc.embedded.grids import save
from bhx_prep.preproc.embedded.step import Step


class _SegmentIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    mask = File(exists=True, mandatory=True)


class _SegmentOut(TraitedSpec):
    dseg = File(exists=True, desc="1 grey matter, 2 white matter, 3 cerebrospinal fluid")
    gm = File(exists=True)
    wm = File(exists=True)
    csf = File(exists=True)


class Segment(Step):
    """Three tissues inside the brain mask (Atropos, from k-means)."""

    input_spec = _SegmentIn
    output_spec = _SegmentOut

    def _compute(self, folder: Path) -> None:
        head = ants.image_read(self.inputs.in_file)
        mask = ants.image_read(self.inputs.mask)
        low, high = np.percentile(head.numpy()[mask.numpy() > 0], [0.5, 99.5])
        head = head.new_image_like(np.clip(head.numpy(), low, high))
        # r=0: the same random numbers each time
        found = ants.atropos(a=head, x=mask, i="Kmeans[3]", m="[0.1,1x1x1]", c="[3,0]", r=0)
        source: Any = nib.load(self.inputs.in_file)
        affine = source.affine
        # k-means counts from dark to bright; BIDS has GM 1, WM 2, CSF 3
        labels = np.choose(found["segmentation"].numpy().astype(int), [0, 3, 1, 2]).astype(np.uint8)
        save(labels, affine, folder / "dseg.nii.gz")
        self._results["dseg"] = str(folder / "dseg.nii.gz")
        for name, image in zip(("csf", "gm", "wm"), found["probabilityimages"], strict=True):
            save(image.numpy(), affine, folder / f"{name}.nii.gz")
            self._results[name] = str(folder / f"{name}.nii.gz")
