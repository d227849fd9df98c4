"""A synthetic subject's T1 in standard space, as after registration: similar to the template, not equal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bhx_model.atomic_write import write_json
from bhx_prep.demo import folder, head, sources

#: Places along the lateral ventricles (mm, MNI): frontal horns, bodies, atria.
VENTRICLES = (
    *((-11.0, 18.0, 10.0), (-14.0, -14.0, 22.0), (-24.0, -40.0, 12.0)),
    *((11.0, 18.0, 10.0), (14.0, -14.0, 22.0), (24.0, -40.0, 12.0)),
)
#: Middle of the hippocampi (mm, MNI).
MEDIAL_TEMPORAL = ((-27.0, -22.0, -14.0), (27.0, -22.0, -14.0))
#: Frontal white matter (mm, MNI).
FRONTAL = ((-22.0, 38.0, 14.0), (22.0, 38.0, 14.0))


@dataclass(frozen=True)
class Structure:
    """Planted changes of a T1.

    Attributes
    ----------
    ventricles_mm : float
        Outward displacement of the tissue 12 mm from places along the lateral ventricles.
    medial_temporal : float
        Relative change of intensity at the hippocampi, falling off with a standard deviation of 12 mm.
    frontal : float
        Relative change of intensity in frontal white matter, falling off with a standard deviation of 16 mm.
    """

    ventricles_mm: float = 0.0
    medial_temporal: float = 0.0
    frontal: float = 0.0


def draw_t1(
    rng: np.random.Generator, grid: head.Grid, structure: Structure = Structure(), sd_mm: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """One subject's T1-weighted image and brain mask on a grid in MNI152NLin2009cAsym.

    Parameters
    ----------
    rng : numpy.random.Generator
        Decides deformation, brightness and noise.
    grid : Grid
        Where to sample.
    structure : Structure
        What to plant.
    sd_mm : float
        Size of the random deformation, which has control points some 35 mm apart.

    Returns
    -------
    image : numpy.ndarray of shape (X, Y, Z)
        int16, white matter near 220.
    mask : numpy.ndarray of shape (X, Y, Z)
        uint8.
    """
    real = sources.template()
    points = grid.points()
    where = points + head.displacement(rng, grid.shape, sd_mm)
    if structure.ventricles_mm:
        where += head.swell(points, VENTRICLES, 12.0, structure.ventricles_mm)
    clean = head.sample(real.head, real.affine, where)
    mask = head.sample(real.brain.astype(np.uint8), real.affine, where, order=0)
    for change, places, reach in (
        (structure.medial_temporal, MEDIAL_TEMPORAL, 12.0),
        (structure.frontal, FRONTAL, 16.0),
    ):
        if change:
            clean *= 1 + np.float32(change) * head.bump(where, places, reach)
    bias = np.exp(head.smooth_field(rng, grid.shape, (5, 5, 5), 0.03))  # residual bias after N4
    gain = np.float32(2.5 * np.exp(rng.normal(0, 0.1)))
    noisy = head.rician(rng, clean * bias * gain, 4.0)
    return np.rint(np.clip(noisy, 0, 32767)).astype(np.int16), mask.astype(np.uint8)


def write_t1(root: Path, subject: str, grid: head.Grid, image: np.ndarray, mask: np.ndarray) -> None:
    """Write T1 and mask with fMRIPrep's names below ``sub-<subject>/anat``."""
    stem = f"sub-{subject}_space-MNI152NLin2009cAsym_res-{grid.step_mm:g}"
    anat = root / f"sub-{subject}" / "anat"
    metadata: dict[str, Any] = {"Resolution": f"{grid.step_mm:g} mm, isotropic", "Synthetic": True}
    folder.write_nifti(anat / f"{stem}_desc-preproc_T1w.nii.gz", image, grid.affine)
    write_json(anat / f"{stem}_desc-preproc_T1w.json", {**metadata, "SkullStripped": False})
    folder.write_nifti(anat / f"{stem}_desc-brain_mask.nii.gz", mask, grid.affine)
    write_json(anat / f"{stem}_desc-brain_mask.json", {**metadata, "Type": "Brain"})
