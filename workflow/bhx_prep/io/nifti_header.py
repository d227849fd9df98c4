"""Check a NIfTI header for geometry that no head has. numpy only."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Shortest field of view (mm) along the three axes, smallest first, that can hold a brain, and the longest.
#: A brain measures about 140 x 170 x 120 mm; slabs that cut off the top or the cerebellum are accepted.
SMALLEST_MM = (70.0, 110.0, 110.0)
LARGEST_MM = 700.0
#: Least volume that unit vectors along the axes span: 1 where they are at right angles, 0 where they lie in one plane.
LEAST_VOLUME = 0.5


def voxel_sizes(
    header_zooms: Sequence[float], shape: Sequence[int], sidecar: Mapping[str, Any]
) -> tuple[tuple[float, float, float], str | None]:
    """Voxel sizes to trust, and why there are none.

    A sidecar's field ``VoxelSizes`` (three numbers, mm) overrides the header: the way to fix images whose
    converter lost the geometry without touching the data.

    Parameters
    ----------
    header_zooms : sequence of float
        Voxel sizes of the header, mm; more than three are allowed.
    shape : sequence of int
        Voxels along the first three axes; more than three are allowed.
    sidecar : mapping
        The image's JSON.

    Returns
    -------
    zooms : tuple of three floats
        mm; the header's if the sidecar has none.
    reason : str or None
        A sentence if no brain fits into the field of view that they make.
    """
    if len(shape) < 3:
        return _three([]), f"the image has {len(shape)} dimensions: expected three or more"
    given = sidecar.get("VoxelSizes")
    source = "the header"
    zooms = [float(z) for z in header_zooms[:3]]
    if given is not None:
        source = "the sidecar's VoxelSizes"
        if not _three_numbers(given):
            return _three(
                zooms
            ), f"the sidecar's VoxelSizes is {reprlib.repr(given)}; expected three numbers in mm"
        zooms = [float(z) for z in given]
    if len(zooms) < 3 or not all(np.isfinite(zooms)) or min(zooms) <= 0:
        return _three(
            zooms
        ), f"{source} gives voxel sizes {_list(zooms)} mm; give the true ones as VoxelSizes in the sidecar"
    field = sorted(z * n for z, n in zip(zooms, shape[:3], strict=True))
    if any(f < least for f, least in zip(field, SMALLEST_MM, strict=True)) or field[-1] > LARGEST_MM:
        reason = (
            f"{source} gives voxels of {_list(zooms)} mm, a field of view of "
            f"{_list([z * n for z, n in zip(zooms, shape, strict=False)])} mm that cannot hold a brain; "
            "give the true ones as VoxelSizes in the sidecar"
        )
        return _three(zooms), reason
    return _three(zooms), None


def orientation_fault(header: Any) -> str | None:
    """Why a header states no valid orientation, as a sentence; None if it is valid or not stated.

    Parameters
    ----------
    header : nibabel.Nifti1Header
    """
    directions = _directions(header.get_best_affine())
    if directions is None or abs(np.linalg.det(directions)) < LEAST_VOLUME:
        return "the header's sform or qform has axes without length or in one plane: give the true ones"
    forms = [
        form
        for form in (header.get_sform(coded=True)[0], header.get_qform(coded=True)[0])
        if form is not None
    ]
    sides = {bool(np.linalg.det(form[:3, :3]) > 0) for form in forms}
    if len(sides) > 1:
        return "the header's sform and qform exchange left and right: set the code of the wrong one to 0"
    return None


def form_angle(header: Any) -> float:
    """Angle (degrees) by which sform and qform of a header turn the head against each other; 0 where it has one alone.

    Parameters
    ----------
    header : nibabel.Nifti1Header
        Without `orientation_fault`.
    """
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    if sform is None or qform is None:
        return 0.0
    turn = _rotation(sform) @ _rotation(qform).T
    return float(np.rad2deg(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))


def has_orientation(header: Any) -> bool:
    """Whether a header states an orientation by sform or qform."""
    return int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0


def _directions(affine: NDArray[np.floating]) -> NDArray[np.floating] | None:
    """Unit vectors of the axes, (3, 3); None where one has no length."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return affine[:3, :3] / lengths if np.isfinite(affine).all() and lengths.all() else None


def rigid_affine(
    affine: NDArray[np.floating], shape: Sequence[int], zooms: Sequence[float]
) -> NDArray[np.floating]:
    """Affine of the same place and directions with given voxel sizes and without shear.

    Parameters
    ----------
    affine : array, (4, 4)
        Voxel indices -> world coordinates, mm.
    shape : sequence of int
        Voxels along the first three axes: their centre stays where it is.
    zooms : sequence of three floats
        Voxel sizes, mm.

    Returns
    -------
    array, (4, 4)

    Notes
    -----
    The nearest rotation is that of the polar decomposition. ITK refuses headers with shear.
    """
    middle = (np.asarray(shape[:3]) - 1) / 2
    new = np.eye(4)
    new[:3, :3] = _rotation(affine) * np.asarray(zooms)
    new[:3, 3] = affine[:3, :3] @ middle + affine[:3, 3] - new[:3, :3] @ middle
    return new


def _rotation(affine: NDArray[np.floating]) -> NDArray[np.floating]:
    """The rotation, or rotation with a reflection, that is nearest to the directions of an affine, (3, 3)."""
    left, _, right = np.linalg.svd(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    return left @ right


def _three_numbers(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 3:
        return False
    # JSON has whole numbers of any length
    return all(
        isinstance(v, int | float) and not isinstance(v, bool) and not abs(v) > sys.float_info.max
        for v in value
    )


def _three(zooms: Sequence[float]) -> tuple[float, float, float]:
    padded = [*zooms, 0.0, 0.0, 0.0]
    return padded[0], padded[1], padded[2]


def _list(values: Sequence[float]) -> str:
    return " x ".join(f"{v:g}" for v in values)
