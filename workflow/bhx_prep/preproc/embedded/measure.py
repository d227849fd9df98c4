"""Confounds of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ants
import numpy as np
import pandas as pd
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits
from scipy import ndimage

from bhx_prep.preproc.embedded import signals
from bhx_prep.preproc.embedded.frames import Frames
from bhx_prep.preproc.embedded.step import Step

#: Deep tissue: this far (mm) inside the tissue's or the brain's border.
DEEP_FLUID_MM = 10.0


class _MeasureIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="run on the standard grid")
    mask = File(exists=True, mandatory=True)
    movement = File(exists=True, mandatory=True)
    rmsd = File(exists=True, mandatory=True)
    wm = File(exists=True, mandatory=True)
    csf = File(exists=True, mandatory=True)
    anat_mask = File(exists=True, mandatory=True)
    anat_to_template = File(exists=True, mandatory=True)
    tr_s = traits.Float(mandatory=True)
    n_dummies = traits.Int(mandatory=True)


class _MeasureOut(TraitedSpec):
    table = File(exists=True)
    metadata = File(exists=True)


class Measure(Step):
    """Confounds of a run, measured on the standard grid."""

    input_spec = _MeasureIn
    output_spec = _MeasureOut

    def _compute(self, folder: Path) -> None:
        grid = ants.image_read(self.inputs.mask)
        inside = grid.numpy() > 0
        frames = Frames(Path(self.inputs.in_file))
        brain = np.empty((len(frames), int(inside.sum())), np.float32)
        for t, frame in enumerate(frames):
            brain[t] = frame[inside]
        white, fluid = self._deep_tissue(grid, inside)
        inner = np.asarray(ndimage.binary_erosion(inside), bool)
        columns, metadata = signals.confounds(
            brain.T,
            signals.Masks(white[inside], fluid[inside], inner[inside]),
            np.load(self.inputs.movement, allow_pickle=False),
            np.load(self.inputs.rmsd, allow_pickle=False),
            self.inputs.tr_s,
            self.inputs.n_dummies,
        )
        table = pd.DataFrame(columns)
        table.to_csv(folder / "table.tsv", sep="\t", index=False, na_rep="n/a", float_format="%.8g")
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=2))
        self._results["table"] = str(folder / "table.tsv")
        self._results["metadata"] = str(folder / "metadata.json")

    def _deep_tissue(self, grid: Any, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        anat_mask = ants.image_read(self.inputs.anat_mask)
        depth = np.asarray(ndimage.distance_transform_edt(anat_mask.numpy() > 0, sampling=anat_mask.spacing))
        found = []
        for name, path, least_depth in (
            ("white matter", self.inputs.wm, 0.0),
            ("fluid in the ventricles", self.inputs.csf, DEEP_FLUID_MM),
        ):
            tissue = ants.image_read(path)
            kept = tissue.numpy() * (depth > least_depth)
            moved = ants.apply_transforms(
                grid, tissue.new_image_like(kept.astype(np.float32)), [self.inputs.anat_to_template]
            ).numpy()
            found.append(signals.pure_tissue(moved, inside, name))
        return found[0], found[1]
