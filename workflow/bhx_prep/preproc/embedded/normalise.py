"""Registration of a head to the template, and its brain mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits
from scipy import ndimage

from bhx_model.errors import DataError
from bhx_prep.preproc.embedded.grids import open_grid, save
from bhx_prep.preproc.embedded.step import Step, register


class _NormalizeIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="T1w head of even brightness")
    template = File(exists=True, mandatory=True, desc="head in MNI152NLin2009cAsym")
    template_mask = File(exists=True, mandatory=True, desc="its brain mask")
    resolution_mm = traits.Float(mandatory=True)


class _NormalizeOut(TraitedSpec):
    to_template = File(exists=True, desc="affine and SyN, T1w -> template")
    to_anat = File(exists=True, desc="its inverse")
    mask = File(exists=True, desc="brain mask of the T1w image")


class Normalize(Step):
    """Register a head to the template head (affine, then SyN inside the brain), and bring its brain mask back."""

    input_spec = _NormalizeIn
    output_spec = _NormalizeOut

    def _compute(self, folder: Path) -> None:
        grid = open_grid(Path(self.inputs.template), self.inputs.resolution_mm, folder / "grid.nii.gz")
        template = ants.resample_image_to_target(ants.image_read(self.inputs.template), grid)
        mask = ants.image_read(self.inputs.template_mask)
        near = ants.iMath(ants.resample_image_to_target(mask, grid, interp_type="nearestNeighbor"), "MD", 2)
        ants.image_write(template, str(folder / "template.nii.gz"))
        ants.image_write(near, str(folder / "near.nii.gz"))
        pair = f"{folder / 'template.nii.gz'},{self.inputs.in_file},1,32"
        # shrink factors count voxels: keep the coarsest level at 8 mm whatever the grid
        coarse = max(1, round(8 / self.inputs.resolution_mm))
        middle = max(1, coarse // 2)
        fine = max(1, coarse // 4)
        affine = [
            "--metric", f"Mattes[{pair},Regular,0.25]", "--transform", "Affine[0.1]",
            "--convergence", "[200x100,1e-6,10]", "--shrink-factors", f"{coarse}x{middle}",
            "--smoothing-sigmas", "4x2mm", "--masks", "[NA,NA]",
        ]  # fmt: skip
        syn = [
            "--metric", f"Mattes[{pair}]", "--transform", "SyN[0.2,3,0]",
            "--convergence", "[60x40x3,1e-6,8]", "--shrink-factors", f"{coarse}x{middle}x{fine}",
            "--smoothing-sigmas", "4x2x0mm", "--masks", f"[{folder / 'near.nii.gz'},NA]",
        ]  # fmt: skip
        start = f"[{folder / 'template.nii.gz'},{self.inputs.in_file},1]"
        register(affine, syn, start=start, prefix=folder / "xfm", composite=True)
        self._results["to_template"] = str(folder / "xfmComposite.h5")
        self._results["to_anat"] = str(folder / "xfmInverseComposite.h5")

        head = ants.image_read(self.inputs.in_file)
        back = ants.apply_transforms(head, mask, [self._results["to_anat"]], interpolator="linear").numpy()
        anat: Any = nib.load(self.inputs.in_file)
        found = refine_mask(back, np.asarray(anat.dataobj), np.asarray(anat.header.get_zooms()[:3]))
        if not found.any():
            msg = "no brain was found in the T1w image: the registration to the template went wrong"
            raise DataError(msg)
        save(found.astype(np.uint8), anat.affine, folder / "mask.nii.gz")
        self._results["mask"] = str(folder / "mask.nii.gz")


def refine_mask(probable: np.ndarray, head: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """Fit a brain mask that came from the template to the head's intensities.

    Parameters
    ----------
    probable : array, (X, Y, Z)
        The template's mask on the head's grid, 0 to 1.
    head : array, (X, Y, Z)
        T1w image of even brightness.
    zooms : array, (3,)
        Voxel sizes, mm.

    Returns
    -------
    array of bool, (X, Y, Z)
        One piece without holes: the brain that reaches up to 2 mm beyond the template's mask or ends before it.
    """
    inside = probable > 0.5
    typical = np.median(head[inside])
    outward = np.asarray(ndimage.distance_transform_edt(~inside, sampling=zooms))
    inward = np.asarray(ndimage.distance_transform_edt(inside, sampling=zooms))
    # within 2 mm of the border voxels decide for themselves: too dark is skull or air, too bright is fat
    bright_enough = (head > 0.35 * typical) & (head < 1.6 * typical)
    brain = (inside & (inward > 2.0)) | ((outward <= 2.0) & bright_enough)
    brain = ndimage.binary_opening(brain, iterations=max(1, round(1.0 / float(zooms.min()))))
    labels = np.empty(brain.shape, np.int32)
    ndimage.label(brain, output=labels)
    sizes = np.bincount(labels.ravel())[1:]
    if len(sizes) > 1:
        brain = labels == 1 + int(np.argmax(sizes))
    brain = ndimage.binary_closing(brain, iterations=2)
    return np.asarray(ndimage.binary_fill_holes(brain))
