"""Bring a T1-weighted volume in MNI space to the model's grid: masked, normalised, cropped. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bhx_model.errors import ConfigError, DataError

#: FSL's MNI grid at 1 mm: its size, and the world coordinates (mm) of the last voxel in x and the first in y and z.
MNI_SHAPE_1MM = (182, 218, 182)
MNI_RIGHT_MM, MNI_BACK_MM, MNI_BOTTOM_MM = 90.0, -126.0, -72.0

#: Where the centre of a brain mask lies in MNI space (mm), how far off one may be, and how long it is in x, y, z.
BRAIN_CENTRE_MM = (0.0, -20.0, 12.0)
CENTRE_TOLERANCE_MM = 25.0
BRAIN_LENGTH_MM = ((110.0, 170.0), (140.0, 210.0), (110.0, 190.0))
#: Volume (litres) of a brain mask in MNI space, whose template has 1.9; a head has 4.
BRAIN_LITRES = (0.9, 2.8)

#: Percentiles of the brain's intensities between which mean and sd are taken: vessels and rims stay out of them.
ROBUST_PERCENTILES = (2.0, 98.0)

#: A volume without a mask counts as skull-stripped if at least this share of it is exactly 0, or NaN.
STRIPPED_BACKGROUND = 0.2


def voxel_sizes(affine: np.ndarray) -> np.ndarray:
    """Edges of a voxel, (3,), in the units of the affine (mm)."""
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


@dataclass(frozen=True)
class ModelGrid:
    """The model's T1 grid.

    Attributes
    ----------
    shape : (3,) int
    affine : (4, 4) float64
        Voxel to MNI space (mm), RAS+.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def zooms_mm(self) -> list[float]:
        """Voxel sizes (mm)."""
        return [float(z) for z in voxel_sizes(self.affine)]


def model_grid(resolution_mm: float, shape: tuple[int, int, int]) -> ModelGrid:
    """Centred crop of the MNI grid (182 x 218 x 182 at 1 mm, 91 x 109 x 91 at 2 mm).

    Parameters
    ----------
    resolution_mm : float
        Voxel size (mm).
    shape : (3,) int
        Voxels of the crop, e.g. 160 x 192 x 160 at 1 mm.

    Raises
    ------
    ConfigError
        If the crop is larger than the grid.
    """
    full = tuple(int(np.ceil(n / resolution_mm - 1e-6)) for n in MNI_SHAPE_1MM)
    if any(s > f or s < 1 for s, f in zip(shape, full, strict=True)):
        msg = (
            f"features.t1w_shape {list(shape)} does not fit into the MNI grid at {resolution_mm:g} mm, {list(full)}:"
            " make it smaller, or features.t1w_resolution_mm"
        )
        raise ConfigError(msg)
    first = [(f - s) // 2 for f, s in zip(full, shape, strict=True)]
    corner = (MNI_RIGHT_MM - resolution_mm * (full[0] - 1), MNI_BACK_MM, MNI_BOTTOM_MM)
    affine = np.diag([resolution_mm] * 3 + [1.0])
    affine[:3, 3] = [c + resolution_mm * f for c, f in zip(corner, first, strict=True)]
    return ModelGrid(shape, affine)


def conform(
    data: np.ndarray, affine: np.ndarray, grid: ModelGrid, name: str, mask: np.ndarray | None = None
) -> np.ndarray:
    """Normalise the intensities of a T1 volume inside the brain and bring it to the model's grid.

    Intensities become (value - mean) / sd, both over the brain's values between the 2nd and the 98th percentile;
    outside the mask is 0. Values are interpolated linearly, after smoothing where the new voxels are larger.

    Parameters
    ----------
    data : (I, J, K) float32
        Preprocessed T1w in MNI space, any resolution.
    affine : (4, 4) float
        Voxel to MNI space (mm).
    grid : ModelGrid
    name : str
        What it is called in messages.
    mask : (I, J, K), optional
        Brain mask; without it the volume must be skull-stripped with 0 as background.

    Returns
    -------
    (X, Y, Z) float32

    Raises
    ------
    DataError
        If the volume is empty, or does not lie in MNI space.
    """
    from scipy import ndimage

    if not np.isfinite(data).any() or np.nanmin(data) == np.nanmax(data):
        msg = f"{name} is empty: every voxel is the same"
        raise DataError(msg)
    inside = _brain(data, name, mask)
    check_place(inside, affine, name)
    values = data[inside]
    low, high = np.percentile(values, ROBUST_PERCENTILES)
    middle = values[(values >= low) & (values <= high)].astype(np.float64)
    if not middle.std() > 0:
        msg = f"{name}: intensities inside the brain mask are all the same"
        raise DataError(msg)
    normal = np.zeros(data.shape, np.float32)
    normal[inside] = (values - middle.mean()) / middle.std()

    to_data = np.linalg.inv(affine) @ grid.affine
    step = np.sqrt((to_data[:3, :3] ** 2).sum(axis=1))  # source voxels per voxel of the grid
    # the width by which a Gaussian kernel of one source voxel grows to one of the grid's voxels
    sigma = np.sqrt(np.maximum(step**2 - 1, 0)) / 2.355
    brain = inside.astype(np.float32)
    if (sigma > 0.05).any():
        normal, brain = (ndimage.gaussian_filter(a, sigma, mode="constant") for a in (normal, brain))
    moved = [
        ndimage.affine_transform(a, to_data, output_shape=grid.shape, order=1, mode="constant")
        for a in (normal, brain)
    ]
    # at the rim zeros of the background are mixed in: divided out again, and the mask stays sharp
    share = moved[1]
    out = np.where(share >= 0.5, moved[0] / np.maximum(share, 0.5), 0)
    return out.astype(np.float32, copy=False)


def _brain(data: np.ndarray, name: str, mask: np.ndarray | None) -> np.ndarray:
    """Finite voxels inside the brain mask."""
    finite = np.isfinite(data)
    if mask is None:
        if ((data == 0) | ~finite).mean() < STRIPPED_BACKGROUND:
            msg = f"{name} has no brain mask beside it and is not skull-stripped (background 0): give a mask"
            raise DataError(msg)
        return finite & (data != 0)
    inside = finite & (np.nan_to_num(mask) > 0.5)
    if not inside.any():
        msg = f"the brain mask of {name} is empty: give another"
        raise DataError(msg)
    return inside


def check_place(inside: np.ndarray, affine: np.ndarray, name: str) -> None:
    """Refuse a brain whose position is not that of brains in MNI space.

    Parameters
    ----------
    inside : numpy.ndarray of shape (X, Y, Z)
        Whether a voxel is brain; some are.
    affine : numpy.ndarray of shape (4, 4)
        Voxel indices to mm.
    name : str
        Of the image, for the error.

    Raises
    ------
    DataError
        If the voxels are not of 0.3 to 5 mm, the skull was not stripped, or size and centre are not those of a brain.
    """
    zooms = voxel_sizes(affine)
    if zooms.min() < 0.3 or zooms.max() > 5:
        msg = f"{name} has voxels of {' x '.join(f'{z:.3g}' for z in zooms)} mm: 0.3 to 5 mm are expected"
        raise DataError(msg)
    # along each voxel axis the slices with at least a thousandth of the brain: stray voxels do not count
    centre, ends = [], []
    for axis in range(3):
        profile = inside.sum(axis=tuple(a for a in range(3) if a != axis))
        filled = np.flatnonzero(profile >= inside.sum() / 1000)
        centre.append((np.arange(profile.size) * profile).sum() / profile.sum())
        ends.append((filled[0], filled[-1]))
    world = affine[:3, :3] @ np.array(centre) + affine[:3, 3]
    lengths = np.abs(affine[:3, :3]) @ np.array([b - a + 1 for a, b in ends], float)
    litres = inside.sum() * abs(np.linalg.det(affine[:3, :3])) * 1e-6
    if litres > BRAIN_LITRES[1]:
        msg = (
            f"{name}: what counts as brain has {litres:.1f} litres: the skull was not stripped;"
            " give a brain mask"
        )
        raise DataError(msg)
    off = np.abs(world - BRAIN_CENTRE_MM)
    fits = [low <= length <= high for length, (low, high) in zip(lengths, BRAIN_LENGTH_MM, strict=True)]
    if off.max() > CENTRE_TOLERANCE_MM or not all(fits) or litres < BRAIN_LITRES[0]:
        at, size = (", ".join(f"{v:.0f}" for v in a) for a in (world, lengths))
        msg = (
            f"{name} is not in MNI space: its brain of {litres:.1f} litres is {size} mm long,"
            f" its centre at ({at}) mm."
            " Use the T1w in space-MNI152.."
        )
        raise DataError(msg)
