"""Susceptibility distortion of an echo-planar image: the field from phases or opposite images, and voxel shifts.

Shapes: ``X, Y, Z`` voxels of an image. Fields are in Hz, displacements in voxels along the phase-encoding axis: what belongs
at voxel ``u`` of an undistorted image lies at ``u + d(u)`` of the image as it was measured. The sign is that of BIDS and of
sdcflows: where the phase-encoding direction is ``j``, a field above zero displaces towards higher indices, where it is
``j-``, towards lower ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.linalg import LinearOperator, cg

from bhx_model.errors import DataError

Floats = NDArray[np.floating]

#: Noise of a field is smoothed away below this (sigma, mm): susceptibility fields have no finer detail.
FIELD_SMOOTHING_MM = 2.0
#: Smoothing (sigma, voxels) of opposite images, coarse to fine, and Gauss-Newton steps at each.
LEVELS = ((4.0, 6), (2.0, 6), (1.0, 5), (0.5, 3))
#: Weight of the smoothness of the displacement beside the difference of images whose head is about 1.
STIFFNESS = 0.02
_CG_STEPS = 30
#: A displacement counts from this (mm) on, if it is that of so many voxels.
FAR_MM = 1.5
LEAST_FAR = 200


@dataclass(frozen=True)
class Readout:
    """How an echo-planar image was encoded.

    Attributes
    ----------
    axis : int
        Of the array along which phase was encoded.
    seconds : float
        Total readout time; negative where the direction is that of falling indices.
    """

    axis: int
    seconds: float

    @classmethod
    def of(cls, direction: str, total_s: float) -> Readout:
        """From ``PhaseEncodingDirection`` (``j-``) and ``TotalReadoutTime`` (s)."""
        return cls("ijk".index(direction[0]), -total_s if direction.endswith("-") else total_s)


def field_of_phase(phase: Floats, delta_s: float, head: NDArray[np.bool_]) -> Floats:
    """Field from the difference of the phases at two echoes.

    Parameters
    ----------
    phase : array, (X, Y, Z)
        rad, wrapped.
    delta_s : float
        Between the echoes, s.
    head : array of bool, (X, Y, Z)
        Where there is signal.

    Returns
    -------
    array, (X, Y, Z)
        Hz; the median of the head is as near to 0 as whole turns allow. Undefined outside of the head.

    Notes
    -----
    Unwrapping: Herráez et al. (2002), by scikit-image.
    """
    from skimage.restoration import unwrap_phase

    turned = np.angle(np.exp(1j * np.asarray(phase, np.float64)))
    unwrapped = np.asarray(unwrap_phase(np.ma.masked_array(turned, ~head), rng=1))
    unwrapped -= 2 * np.pi * np.round(np.median(unwrapped[head]) / (2 * np.pi))
    return unwrapped / (2 * np.pi * delta_s)


def to_radians(phase: Floats) -> Floats:
    """Phases in rad (X, Y, Z), from the scanner's numbers: rad, 0 to 4095, -4096 to 4095, or another range that is full.

    Raises
    ------
    DataError
        If the image is constant.
    """
    low, high = float(phase.min()), float(phase.max())
    if low == high:
        msg = "the phase image is constant"
        raise DataError(msg)
    if (low >= -3.2 and high <= 3.2) or (low >= 0 and high <= 6.4 and high - low > 0.1):
        return np.asarray(phase, np.float64)
    if low >= -4096 and high <= 4096:  # as scanners and their converters count a turn
        return phase.astype(np.float64) * (2 * np.pi / (4096 if low >= 0 else 8192))
    return (phase.astype(np.float64) - low) * (2 * np.pi / (high - low))


def head_of(magnitude: Floats) -> NDArray[np.bool_]:
    """Where a magnitude image has signal: one piece without holes, (X, Y, Z).

    Raises
    ------
    DataError
        If it has none.
    """
    smooth = ndimage.gaussian_filter(np.asarray(magnitude, np.float32), 1.0)
    found = smooth > 0.2 * np.percentile(smooth, 98)
    labels, n = ndimage.label(found)  # pyright: ignore[reportGeneralTypeIssues]
    if n == 0:
        msg = "the field map's magnitude image is empty"
        raise DataError(msg)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(largest), bool)


def smooth_everywhere(field: Floats, head: NDArray[np.bool_], zooms: Floats) -> Floats:
    """A field without noise, continued from the head to the whole image, (X, Y, Z).

    Parameters
    ----------
    field : array, (X, Y, Z)
        Values outside of the head are not used.
    head : array of bool, (X, Y, Z)
    zooms : array, (3,)
        Voxel sizes, mm.
    """
    out = np.full(field.shape, np.nan)
    known = np.where(head, field, 0.0)
    for sigma_mm in (FIELD_SMOOTHING_MM, 8.0, 32.0, 128.0):
        sigma = sigma_mm / np.asarray(zooms)
        weight = ndimage.gaussian_filter(head.astype(np.float64), sigma)
        sure = np.isnan(out) & (weight > (0.1 if sigma_mm < 100 else 1e-12))
        smooth = ndimage.gaussian_filter(known, sigma)
        out[sure] = smooth[sure] / weight[sure]
    return np.where(np.isnan(out), 0.0, out)


def opposite_displacement(first: Floats, second: Floats, axis: int, ratio: float = 1.0) -> Floats:
    """Displacement that makes two images of opposite phase-encoding directions one.

    Parameters
    ----------
    first, second : arrays, (X, Y, Z)
        On one grid.
    axis : int
        Along which phase was encoded.
    ratio : float
        Readout time of the second over that of the first.

    Returns
    -------
    array, (X, Y, Z)
        Displacement of the first, voxels; that of the second is ``-ratio`` times it.

    Notes
    -----
    Least squares of the two images, each moved and multiplied with the volume change, and of the displacement's slope;
    Gauss-Newton with conjugate gradients from coarse to fine (the model of Andersson et al. 2003 and Ruthotto et al. 2012).
    """
    pair = [np.moveaxis(np.asarray(v, np.float64), axis, 1) for v in (first, second)]
    level = [float(np.mean(v[v > 0.2 * np.percentile(v, 98)])) for v in pair]
    pair = [v / max(size, 1e-12) for v, size in zip(pair, level, strict=True)]
    found = np.zeros(pair[0].shape)
    for sigma, steps in LEVELS:
        smooth = [ndimage.gaussian_filter(v, sigma) for v in pair]
        # what is coarse is also weak: the same balance at every level
        stiffness = STIFFNESS * float(np.mean(smooth[0] ** 2))
        for _ in range(steps):
            found = found + _step(smooth, found, ratio, stiffness)
    return np.moveaxis(found, 1, axis)


def _step(pair: Sequence[Floats], d: Floats, ratio: float, stiffness: float) -> Floats:
    """Gauss-Newton step of the displacement; axis 1 is that of the displacement."""
    change = _slope(d)
    at, slope = [], []
    for image, factor in zip(pair, (1.0, -ratio), strict=True):
        where = d * factor
        at.append(_moved(image, where))
        slope.append(_moved(_slope(image), where))
    left = at[0] * (1 + change) - at[1] * (1 - ratio * change)
    direct = slope[0] * (1 + change) + ratio * slope[1] * (1 - ratio * change)
    by_slope = at[0] + ratio * at[1]

    def forward(v: Floats) -> Floats:
        return direct * v + by_slope * _slope(v)

    def backward(r: Floats) -> Floats:
        return direct * r + _slope_transposed(by_slope * r)

    def normal(x: Floats) -> Floats:
        v = x.reshape(d.shape)
        return (backward(forward(v)) + stiffness * _roughness(v)).ravel()

    right = -(backward(left) + stiffness * _roughness(d)).ravel()
    operator = LinearOperator((d.size, d.size), matvec=normal, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    step, _ = cg(operator, right, rtol=1e-2, maxiter=_CG_STEPS)
    # a voxel never passes its neighbour
    return np.clip(step.reshape(d.shape), -2, 2)


def _moved(image: Floats, d: Floats) -> Floats:
    return move_along(image, d, 1, order=1)


def move_along(image: Floats, displacement: Floats, axis: int, order: int = 3) -> Floats:
    """Image taken at ``u + d(u)``, (X, Y, Z): what an undistorted image shows at ``u``."""
    where = np.indices(image.shape).astype(np.float64)
    where[axis] += displacement
    return ndimage.map_coordinates(image, where, order=order, mode="nearest")


def contradicts(
    volume: Floats, reference: Floats, displacement: Floats, axis: int, far: NDArray[np.bool_]
) -> bool:
    """Whether an image is less like an undistorted one after a correction than before it, and than after the opposite one.

    Parameters
    ----------
    volume : array, (X, Y, Z)
        As it was measured.
    reference : array, (X, Y, Z)
        The same head without distortion, of any contrast.
    displacement : array, (X, Y, Z)
        Voxels along `axis`.
    axis : int
        Of the phase encoding.
    far : array of bool, (X, Y, Z)
        Where the displacement counts; nothing is contradicted where these are few.
    """
    if far.sum() < LEAST_FAR:
        return False
    right, none, opposite = (
        mutual_information(move_along(volume, factor * displacement, axis, order=1)[far], reference[far])
        for factor in (1.0, 0.0, -1.0)
    )
    return right < min(none, opposite)


def mutual_information(first: Floats, second: Floats, bins: int = 24) -> float:
    """Mutual information (nats) of two samples of values, both (N,), from a histogram of ranks."""
    ranks = [np.argsort(np.argsort(v.ravel())) * bins // v.size for v in (first, second)]
    joint = np.histogram2d(*ranks, bins=bins, range=[[0, bins]] * 2)[0] / ranks[0].size
    single = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / single[some])).sum())


def _slope(v: Floats) -> Floats:
    """Central difference along axis 1, 0 at the ends."""
    out = np.zeros_like(v)
    out[:, 1:-1] = 0.5 * (v[:, 2:] - v[:, :-2])
    return out


def _slope_transposed(v: Floats) -> Floats:
    out = np.zeros_like(v)
    out[:, 2:] += 0.5 * v[:, 1:-1]
    out[:, :-2] -= 0.5 * v[:, 1:-1]
    return out


def _roughness(v: Floats) -> Floats:
    """Gradient of half the summed squares of the differences between neighbours."""
    out = np.zeros_like(v)
    for axis in range(3):
        steps = np.diff(v, axis=axis)
        index: list[slice] = [slice(None)] * 3
        index[axis] = slice(1, None)
        out[tuple(index)] += steps
        index[axis] = slice(None, -1)
        out[tuple(index)] -= steps
    return out
