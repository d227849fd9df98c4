"""A head with a face in standard space, and the template that it is drawn against."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from bhx_prep.review.drawings import Brain, Template
from bhx_prep.review.panels import Volume

MM = 4.0
SHAPE = (50, 60, 50)
AFFINE = np.diag([MM, MM, MM, 1.0])
AFFINE[:3, 3] = -100, -130, -90
#: How bright the face is.
FACE = 1000.0


def ball(centre, radii) -> np.ndarray:
    places = np.indices(SHAPE).T @ AFFINE[:3, :3] + AFFINE[:3, 3]
    return ((((places - np.array(centre)) / radii) ** 2).sum(-1) <= 1).T


def brain_mask() -> np.ndarray:
    """A brain of 66 x 85 x 68 mm half axes, as the template's, with temporal lobes."""
    lobes = ball((-40, 0, -45), (18, 30, 20)) | ball((40, 0, -45), (18, 30, 20))
    return ball((0, -20, 12), (66, 85, 68)) | lobes


def head(face: float = FACE) -> np.ndarray:
    """Values 300 to 600 in the brain, and a face before and below it."""
    values = np.where(brain_mask(), 450 + 150 * np.sin(np.indices(SHAPE).sum(0) / 2), 0.0)
    nose = ball((0, 100, -50), (25, 25, 30)) & ~brain_mask()
    return np.where(nose, face, values).astype(np.float32)


def volume(values: np.ndarray) -> Volume:
    return Volume(np.asarray(values, np.float32), AFFINE)


def template() -> Template:
    return Template(volume(head(0)), volume(brain_mask()))


def brain(face: float = FACE) -> Brain:
    return Brain(volume(head(face)), volume(brain_mask()))


def write_templates(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(head(0), AFFINE), folder / "head_T1w.nii.gz")
    nib.save(nib.Nifti1Image(brain_mask().astype(np.uint8), AFFINE), folder / "head_mask.nii.gz")
    return folder
