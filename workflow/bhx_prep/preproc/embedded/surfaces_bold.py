"""Sample a BOLD run on the cortex: from the measured volumes to fsLR-32k."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from bhx_model.data import npz
from bhx_prep.preproc.dataset_description import passed_on
from bhx_prep.preproc.embedded.derivatives import generated_by
from bhx_prep.preproc.embedded.frames import Frames
from bhx_prep.preproc.embedded.grids import LPS
from bhx_prep.preproc.embedded.step import Step
from bhx_prep.preproc.embedded.surfaces_files import HEMISPHERES, save_series, save_sidecar
from bhx_prep.preproc.embedded.surfaces_labels import REGIONS
from bhx_prep.preproc.embedded.surfaces_sampling import between, sample

#: Between which a run is sampled.
SURFACES: Final = ("white", "pial")
DESCRIPTION: Final = (
    "BOLD sampled from the volumes onto the subject's surfaces by cat-surf, at vertices of fsLR-32k: mean of six places "
    "between white and pial surface, trilinear, in one interpolation with motion, coregistration and, where there is a "
    "field map, distortion. Not HCP's or fMRIPrep's CIFTI: no surface of FreeSurfer's, no registration of MSM's, no "
    "subcortex, no smoothing."
)


class _SampleSurfacesIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="run with its slices at one time, not moved")
    timing = traits.Dict(mandatory=True, desc="fields of the sidecar about slice timing")
    matrices = File(exists=True, mandatory=True)
    bold_to_anat = File(exists=True, mandatory=True)
    displacement = File(exists=True, desc="by distortion, voxels along `axis`, on the grid of the reference")
    axis = traits.Int(desc="along which phase was encoded")
    distortion = traits.Dict(mandatory=True, desc="fields of the sidecar about distortion")
    left = File(exists=True)
    right = File(exists=True)
    base = traits.Str(mandatory=True)
    folder = traits.Str(mandatory=True, desc="below `base`: sub-X/func")
    stem = traits.Str(mandatory=True)
    source = traits.Str(mandatory=True)
    anat = traits.Str(mandatory=True, desc="folder and stem of the T1w image's derivatives")
    sidecar = traits.Dict(mandatory=True, desc="of the raw run")
    tr_s = traits.Float(mandatory=True)


class _SampleSurfacesOut(TraitedSpec):
    left = File(desc="series on the left hemisphere; none where there are no surfaces")
    right = File()


class SampleSurfaces(Step):
    """Sample a run on both hemispheres, and write it next to its volumes."""

    input_spec = _SampleSurfacesIn
    output_spec = _SampleSurfacesOut

    def _compute(self, folder: Path) -> None:
        given = self.inputs
        if not all(isinstance(getattr(given, side), str) for side in REGIONS):
            return
        frames = Frames(Path(given.in_file))
        matrices = np.load(given.matrices, allow_pickle=False)
        to_reference = world_matrix(given.bold_to_anat)
        displacement, axis = None, 0
        if isdefined(given.displacement):
            volume: Any = nib.load(given.displacement)
            displacement, axis = np.asarray(volume.dataobj, np.float32), given.axis
        out = Path(given.base) / given.folder
        out.mkdir(parents=True, exist_ok=True)
        for side in REGIONS:
            made = npz.read(getattr(given, side), "start the subject again")
            points = between(made["fslr_white"], made["fslr_pial"], to_reference)
            series = sample(frames, frames.affine, matrices, points, displacement, axis)
            letter = HEMISPHERES[side][0]
            path = out / f"{given.stem}_hemi-{letter}_space-fsLR_den-32k_bold.func.gii"
            save_series(path, series, side, given.tr_s)
            metadata = {
                "RepetitionTime": given.tr_s,
                **given.timing,
                **given.distortion,
                "Description": DESCRIPTION,
                **passed_on(given.sidecar, "TaskName"),
                "Sources": [
                    f"bids:raw:{given.source}",
                    *(f"bids::{given.anat}_hemi-{letter}_space-fsLR_den-32k_{s}.surf.gii" for s in SURFACES),
                    *given.distortion.get("DistortionSources", ()),
                ],
                "GeneratedBy": generated_by(),
            }
            save_sidecar(path, metadata)
            self._results[side] = str(path)


def world_matrix(transform: str) -> np.ndarray:
    """Affine (4, 4), RAS mm, that takes places in the T1w to places in the BOLD reference, of an ITK file."""
    read = ants.read_transform(transform)
    corners = np.vstack([np.zeros(3), 100 * np.eye(3)])  # whatever kind of transform it is stored as
    moved = np.array([read.apply_to_point(tuple(corner * LPS[:3])) for corner in corners]) * LPS[:3]
    matrix = np.eye(4)
    matrix[:3, :3] = (moved[1:] - moved[0]).T / 100
    matrix[:3, 3] = moved[0]
    return matrix
