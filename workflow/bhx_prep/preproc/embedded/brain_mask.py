"""Brain mask of a head, by deepbet: a network whose weights come in its package (Fisch et al. 2024).

Nothing is fetched, and nothing is drawn at random: with one thread equal heads give equal masks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec
from scipy import ndimage
from threadpoolctl import threadpool_limits

from bhx_model.errors import DataError
from bhx_prep.preproc.embedded.grids import save
from bhx_prep.preproc.embedded.step import Step


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
        mask = largest_piece(probability(np.asarray(head.dataobj, np.float32)) > 0.5)
        save(mask.astype(np.uint8), head.affine, folder / "mask.nii.gz")
        self._results["mask"] = str(folder / "mask.nii.gz")


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
    """
    from deepbet import BrainExtraction  # brings torch: seconds

    try:
        with threadpool_limits(1):
            return np.asarray(BrainExtraction(no_gpu=True).run_model(head.astype(np.float32)), np.float32)
    except (AssertionError, ValueError) as error:
        # its coarse look found nothing, or too little to draw a box around
        msg = "no brain was found in the T1w image: look at whether it is one, and not cut or stripped"
        raise DataError(msg) from error


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest connected piece of a mask, its holes filled, bool (X, Y, Z).

    Raises
    ------
    DataError
        If the mask is empty.
    """
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    sizes = np.bincount(labels.ravel())[1:]
    if not len(sizes):
        msg = "no brain was found in the T1w image: look at whether it is one, and not cut or stripped"
        raise DataError(msg)
    return np.asarray(ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes))))
