"""Real data that synthetic subjects are derived from, read from the installed data packages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np

from bhx_model.errors import SiteError
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.atlas.sources import packages
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.io import motion
from bhx_prep.io.meshes import FSAVERAGE5_VERTICES

#: The demo's atlas. Its label stands in the names of the tables.
ATLAS = AtlasSection.model_validate({})
#: The LEMON scan's repetition time (s); it is in the study's protocol, not in its files.
LEMON_TR_S = 1.4
LEMON_STEM = "datasets/preprocessing/sub-010188_ses-02_task-rest_acq-AP_run-01"
#: Columns of the LEMON confounds file, by content: unit-norm CompCor components, rotations (rad), translations
#: (mm), their backward differences, one-frame outliers, polynomials of degree 0-2.
LEMON_COLUMNS = (
    *(f"a_comp_cor_{i:02d}" for i in range(6)),
    *(
        f"{kind}_{axis}{suffix}"
        for suffix in ("", "_derivative1")
        for kind in ("rot", "trans")
        for axis in "xyz"
    ),
    *(f"motion_outlier{i:02d}" for i in range(8)),
    *(f"polynomial_{i:02d}" for i in range(3)),
)


@dataclass(frozen=True)
class HeadTemplate:
    """The head in MNI152NLin2009cAsym at 1 mm.

    Attributes
    ----------
    head : numpy.ndarray of shape (193, 229, 193)
        T1-weighted intensity, float32, about 0-100: CSF 25, grey matter 67, white matter 87.
    brain : numpy.ndarray of shape (193, 229, 193)
        bool.
    labels : numpy.ndarray of shape (193, 229, 193)
        int16 parcels 1..R on the same grid, 0 outside.
    affine : numpy.ndarray of shape (4, 4)
        Voxel to mm; axes along x, y, z with positive steps.
    """

    head: np.ndarray
    brain: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


@cache
def atlas() -> Atlas:
    """The demo's atlas."""
    return packages.from_packages(ATLAS)


@cache
def template() -> HeadTemplate:
    """The real head that all synthetic ones are deformations of."""
    from nibabel.processing import resample_from_to

    image: Any = nib.load(packages.head_file())
    labels = resample_from_to(nib.Nifti1Image(*atlas().volume()), image, order=0)
    return HeadTemplate(
        head=np.clip(image.get_fdata(dtype=np.float32), 0, None),
        brain=np.asarray(packages.head_mask().dataobj).astype(bool),
        labels=np.asarray(labels.dataobj).astype(np.int16),
        affine=image.affine,
    )


@cache
def connectivity() -> np.ndarray:
    """Mean connectivity of HCP subjects, (R, R) correlations in the order of the atlas.

    brainspace's `main_group` matrix is in 7-network order.
    """
    file = packages.package_file(
        "brainspace", "datasets/matrices/main_group/schaefer_400_mean_connectivity_matrix.csv"
    )
    matrix = np.loadtxt(file, delimiter=",")
    order = np.argsort(packages.order_7_to_17(400)[1:])  # row of the 7-order for each row of the 17-order
    return ((matrix + matrix.T) / 2)[np.ix_(order, order)]


@cache
def lemon_series() -> tuple[np.ndarray, np.ndarray]:
    """The real scan on fsaverage5: left and right, (10242, 652) float32 each."""
    left, right = (
        np.asarray(_mgz(side).dataobj, dtype=np.float32).reshape(FSAVERAGE5_VERTICES, -1)
        for side in ("lh", "rh")
    )
    return left, right


def _mgz(side: str) -> Any:
    return nib.load(packages.package_file("brainspace", f"{LEMON_STEM}.fsa5.{side}.mgz"))


@cache
def lemon_confounds() -> dict[str, np.ndarray]:
    """Confounds of the real scan, (652,) each, by the names of `LEMON_COLUMNS`.

    Raises
    ------
    SiteError
        If the installed brainspace has another table.
    """
    table = np.loadtxt(packages.package_file("brainspace", f"{LEMON_STEM}_confounds.txt"))
    if table.shape[1] != len(LEMON_COLUMNS):
        msg = (
            f"the LEMON confounds of brainspace have {table.shape[1]} columns, expected {len(LEMON_COLUMNS)}: install the "
            "version of brainspace in pyproject.toml"
        )
        raise SiteError(msg)
    return dict(zip(LEMON_COLUMNS, table.T, strict=True))


@cache
def real_motion() -> np.ndarray:
    """Head motion of the real scan, (652, 6): translations x, y, z (mm), then rotations x, y, z (rad)."""
    return np.stack([lemon_confounds()[name] for name in motion.NAMES], axis=1)


@cache
def real_spectrum() -> tuple[np.ndarray, np.ndarray]:
    """Power spectrum of the real scan's parcels.

    Returns
    -------
    frequency : numpy.ndarray of shape (F,)
        Hz.
    power : numpy.ndarray of shape (F,)
        Median over parcels, largest value 1. The scan as packaged is already denoised and low-passed: there is
        next to nothing above 0.08 Hz.
    """
    from scipy.signal import welch

    labels = np.concatenate(atlas().surface("fsaverage5"))
    series = np.concatenate(lemon_series())
    means = np.stack([series[labels == i + 1].mean(axis=0) for i in range(ATLAS.parcels)])
    frequency, power = welch(means, fs=1 / LEMON_TR_S, nperseg=256, detrend="constant")
    median = np.median(power, axis=0)
    return frequency, median / median.max()
