"""Head motion: parameters in fMRIPrep's convention, framewise displacement, the 24-parameter expansion. numpy only.

Shapes: ``T`` frames. Lengths in millimetres, angles in radians.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

#: Columns of the parameters, in fMRIPrep's names and in the order of `parameters`.
NAMES = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")

#: Radius (mm) of the sphere on which Power's displacement turns angles into lengths.
HEAD_RADIUS_MM = 50.0
#: Radius (mm) of the sphere over which Jenkinson's displacement is averaged.
RMS_RADIUS_MM = 80.0


def framewise_displacement(parameters: Floats, radius_mm: float = HEAD_RADIUS_MM) -> Floats:
    """Framewise displacement after Power.

    Parameters
    ----------
    parameters : array, (T, 6)
        Translations (mm), then rotations (rad), in the order of `NAMES`.
    radius_mm : float
        Radius of the sphere on which a rotation becomes a length.

    Returns
    -------
    array, (T,)
        Sum of the absolute changes from the frame before, mm. The first is NaN: it has no frame before it.

    Raises
    ------
    ValueError
        If `parameters` has not six columns.

    Notes
    -----
    Power et al. (2012), doi:10.1016/j.neuroimage.2011.10.018.
    """
    parameters = np.asarray(parameters, dtype=np.float64)
    if parameters.ndim != 2 or parameters.shape[1] != 6:
        msg = f"motion parameters have shape {parameters.shape}; expected (frames, 6): {', '.join(NAMES)}"
        raise ValueError(msg)
    moved = np.abs(np.diff(parameters, axis=0))
    moved[:, 3:] *= radius_mm
    return np.concatenate([np.full(min(1, len(parameters)), np.nan), moved.sum(axis=1)])


def expand(columns: dict[str, Floats]) -> dict[str, Floats]:
    """Each column with its derivative, its square and the square of its derivative, in fMRIPrep's names.

    Parameters
    ----------
    columns : dict of arrays, (T,)
        E.g. the six motion parameters.

    Returns
    -------
    dict of arrays, (T,)
        ``x``, ``x_derivative1``, ``x_derivative1_power2``, ``x_power2`` for each ``x``. The derivative is the
        difference from the frame before, and NaN in the first frame.
    """
    expanded: dict[str, Floats] = {}
    for name, values in columns.items():
        change = np.concatenate([[np.nan], np.diff(values)])
        expanded[name] = values
        expanded[f"{name}_derivative1"] = change
        expanded[f"{name}_derivative1_power2"] = change**2
        expanded[f"{name}_power2"] = values**2
    return expanded


def parameters(matrices: Floats, affine: Floats, shape: tuple[int, ...], centre_voxel: Floats) -> Floats:
    """Rigid transforms as three translations and three rotations, as fMRIPrep's confounds have them.

    That is the convention of FSL's mcflirt: the transform takes the frame onto the reference, coordinates are
    voxel indices times voxel size (x counted from the other side where the voxel axes are right-handed), the
    rotation is about the reference's centre of mass, and the angles are those of the transposed rotation matrix,
    about x, then y, then z. A head that has moved by +2 mm along y therefore has ``trans_y = -2``.

    Parameters
    ----------
    matrices : array, (T, 4, 4)
        World coordinates (mm, RAS) of the reference -> world coordinates of the frame.
    affine : array, (4, 4)
        Voxel indices -> world coordinates, of the reference and of every frame.
    shape : tuple of int
        Voxels of a frame; the first is needed to flip x.
    centre_voxel : array, (3,)
        Centre of mass of the reference, in voxel indices.

    Returns
    -------
    array, (T, 6)
        In the order of `NAMES`.
    """
    to_fsl = _world_to_fsl(affine, shape)
    centre = (to_fsl @ affine @ [*centre_voxel, 1.0])[:3]
    onto_reference = to_fsl @ np.linalg.inv(matrices) @ np.linalg.inv(to_fsl)
    rotation, shift = onto_reference[:, :3, :3], onto_reference[:, :3, 3]
    turned = rotation.transpose(0, 2, 1)
    angles = np.stack(
        [
            np.arctan2(-turned[:, 1, 2], turned[:, 2, 2]),
            np.arcsin(np.clip(turned[:, 0, 2], -1.0, 1.0)),
            np.arctan2(-turned[:, 0, 1], turned[:, 0, 0]),
        ],
        axis=1,
    )
    return np.hstack([shift - centre + rotation @ centre, angles])


def rms_deviation(
    matrices: Floats, affine: Floats, shape: tuple[int, ...], radius_mm: float = RMS_RADIUS_MM
) -> Floats:
    """Displacement from frame to frame, averaged over a sphere (root mean square): fMRIPrep's ``rmsd``.

    Parameters
    ----------
    matrices : array, (T, 4, 4)
        World coordinates (mm, RAS) of the reference -> world coordinates of the frame.
    affine : array, (4, 4)
        Voxel indices -> world coordinates.
    shape : tuple of int
        Voxels of a frame; the sphere lies in their middle.
    radius_mm : float
        Of the sphere.

    Returns
    -------
    array, (T,)
        mm. The first is NaN: it has no frame before it.

    Notes
    -----
    Jenkinson (1999), FMRIB technical report TR99MJ1, as FSL's rmsdiff has it.
    """
    to_fsl = _world_to_fsl(affine, shape)
    onto_reference = to_fsl @ np.linalg.inv(matrices) @ np.linalg.inv(to_fsl)
    change = onto_reference[1:] @ np.linalg.inv(onto_reference[:-1]) - np.eye(4)
    turn = change[:, :3, :3]
    centre = np.linalg.norm(affine[:3, :3], axis=0) * (np.asarray(shape[:3]) - 1) / 2
    shift = change[:, :3, 3] + turn @ centre
    square = (shift**2).sum(axis=1) + radius_mm**2 / 5 * (turn**2).sum(axis=(1, 2))
    return np.concatenate([np.full(min(1, len(matrices)), np.nan), np.sqrt(square)])


def _world_to_fsl(affine: Floats, shape: tuple[int, ...]) -> Floats:
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    scale = np.diag([*zooms, 1.0])
    if np.linalg.det(affine[:3, :3]) > 0:
        scale[0] = [-zooms[0], 0.0, 0.0, zooms[0] * (shape[0] - 1)]
    return scale @ np.linalg.inv(affine)
