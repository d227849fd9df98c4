"""Brain mask of a head by deepbet, a network whose weights are part of its package (Fisch et al. 2024).

Nothing is fetched, and nothing is drawn at random: with one thread equal heads give equal masks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to, resample_to_output
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec
from scipy import ndimage
from threadpoolctl import threadpool_limits

from bhx_model.errors import DataError, SiteError
from bhx_prep.preproc.embedded.grids import save
from bhx_prep.preproc.embedded.step import Step
from bhx_prep.quality.masks import largest_component

#: Angle of an axis to the scanner's from which an image is resampled: heads lie in the scanner by more than this.
OBLIQUE_DEG = 5.0

_NO_BRAIN = "no brain was found in the T1w image: look at whether it is one, and not cut or stripped"


class _BrainMaskIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="T1w head of even brightness, RAS")


class _BrainMaskOut(TraitedSpec):
    mask = File(exists=True, desc="brain mask of the T1w image: one piece without holes")


class BrainMask(Step):
    """Find the brain in a T1w head."""

    input_spec = _BrainMaskIn
    output_spec = _BrainMaskOut

    def _compute(self, folder: Path) -> None:
        head: Any = nib.load(self.inputs.in_file)
        mask = find_brain(head)
        save(mask.astype(np.uint8), head.affine, folder / "mask.nii.gz")
        self._results["mask"] = str(folder / "mask.nii.gz")


def find_brain(head: Any) -> np.ndarray:
    """The brain on the grid of a T1w image: one piece without holes, bool (X, Y, Z).

    Parameters
    ----------
    head : nibabel image, (X, Y, Z)
        Its axes run roughly to the right, to the front and upwards. deepbet knows voxels alone, not how they lie in the
        scanner: an oblique image is shown to it upright, and the brain brought back.

    Raises
    ------
    DataError
        If there is none.
    """
    axes = head.affine[:3, :3] / np.linalg.norm(head.affine[:3, :3], axis=0)
    if np.rad2deg(np.arccos(np.clip(np.diag(axes), -1, 1))).max() < OBLIQUE_DEG:
        return largest_piece(probability(np.asarray(head.dataobj, np.float32)) > 0.5)
    spacing = float(min(head.header.get_zooms()[:3]))
    upright = resample_to_output(head, (spacing,) * 3, order=1)
    likely = nib.Nifti1Image(probability(np.asarray(upright.dataobj, np.float32)), upright.affine)
    return largest_piece(np.asarray(resample_from_to(likely, head, order=1).dataobj) > 0.5)


def probability(head: np.ndarray) -> np.ndarray:
    """Probability of each voxel to be brain, float32 (X, Y, Z), by deepbet on the CPU.

    Parameters
    ----------
    head : array, (X, Y, Z)
        T1w image whose axes run to the right, to the front and upwards.

    Raises
    ------
    DataError
        If deepbet sees no brain.
    SiteError
        If deepbet's weights cannot be read.
    """
    from deepbet import BrainExtraction  # brings torch: seconds

    # it scales brightness by quantiles of all voxels: much air around the head would make the brain white
    box = ndimage.find_objects(head_mask(head).astype(np.uint8))
    if not box:
        raise DataError(_NO_BRAIN)
    try:
        network = BrainExtraction(no_gpu=True)
    except (OSError, RuntimeError) as error:
        text = " ".join(str(error).split())[:80]
        msg = f"the weights of deepbet cannot be read ({text}): install its environment again"
        raise SiteError(msg) from error
    likely = np.zeros(head.shape, np.float32)
    try:
        with threadpool_limits(1):
            likely[box[0]] = network.run_model(head[box[0]].astype(np.float32))
    except (AssertionError, ValueError) as error:
        # its coarse look found nothing, or too little to draw a box around
        raise DataError(_NO_BRAIN) from error
    return likely


def head_mask(values: np.ndarray) -> np.ndarray:
    """The head in a T1w image: what is brighter than air, in one piece without holes, bool (X, Y, Z)."""
    bright = values[values > 0]
    if not len(bright) or not np.ptp(values):
        return np.zeros(values.shape, bool)
    head = largest_component(ndimage.binary_opening(values > 0.1 * np.percentile(bright, 99)))
    return np.asarray(ndimage.binary_fill_holes(head))


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest connected piece of a mask, its holes filled, bool (X, Y, Z).

    Raises
    ------
    DataError
        If the mask is empty.
    """
    if not mask.any():
        raise DataError(_NO_BRAIN)
    return np.asarray(ndimage.binary_fill_holes(largest_component(mask)))
