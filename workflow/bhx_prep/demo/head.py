"""Synthetic heads: a real one, smoothly deformed, unevenly bright, noisy. Arrays in, arrays out; lengths in mm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Grid:
    """A box of voxels whose axes run along x, y and z (RAS+)."""

    shape: tuple[int, int, int]
    step_mm: float
    origin_mm: tuple[float, float, float]

    @property
    def affine(self) -> np.ndarray:
        """Voxel to mm, (4, 4)."""
        affine = np.diag([self.step_mm, self.step_mm, self.step_mm, 1.0])
        affine[:3, 3] = self.origin_mm
        return affine

    def points(self) -> np.ndarray:
        """Centres of all voxels in mm, (3, X, Y, Z) float32."""
        axes = [
            np.float32(o) + np.float32(self.step_mm) * np.arange(n, dtype=np.float32)
            for o, n in zip(self.origin_mm, self.shape, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"))


def standard_grid(step_mm: float) -> Grid:
    """TemplateFlow's grid of MNI152NLin2009cAsym: 193 x 229 x 193 mm from (-96, -132, -78)."""
    x, y, z = (int(np.ceil(n / step_mm)) for n in (193, 229, 193))
    return Grid((x, y, z), step_mm, (-96.0, -132.0, -78.0))


@cache
def _basis(n_points: int, n_control: int) -> np.ndarray:
    """Uniform cubic B-splines, (n_points, n_control), rows that sum to one."""
    position = np.linspace(1, n_control - 2, n_points)[:, None] - np.arange(n_control)[None]
    d = np.abs(position)
    inner = 2 / 3 - d**2 + d**3 / 2
    outer = np.clip(2 - d, 0, None) ** 3 / 6
    return np.where(d < 1, inner, outer).astype(np.float32)


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int, int], control: tuple[int, int, int], sd: float
) -> np.ndarray:
    """A smooth random field (X, Y, Z), float32: cubic B-splines with normal weights of sd `sd` on a coarse grid."""
    weights = rng.normal(0, sd, control).astype(np.float32)
    bx, by, bz = (_basis(n, c) for n, c in zip(shape, control, strict=True))
    return np.einsum("zk,xyk->xyz", bz, np.einsum("yj,xjk->xyk", by, np.einsum("xi,ijk->xjk", bx, weights)))


def displacement(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    sd_mm: float,
    control: tuple[int, int, int] = (8, 9, 8),
) -> np.ndarray:
    """A smooth random displacement, (3, X, Y, Z) float32 in mm.

    With control points some 35 mm apart, weights below 4 mm never fold space.
    """
    return np.stack([smooth_field(rng, shape, control, sd_mm) for _ in range(3)])


def sample(volume: np.ndarray, affine: np.ndarray, points_mm: np.ndarray, order: int = 1) -> np.ndarray:
    """Values of a volume at points given in mm, (3, ...) -> (...); 0 outside. The affine must be axis-aligned."""
    step = np.diag(affine)[:3]
    voxels = [(points_mm[i] - np.float32(affine[i, 3])) / np.float32(step[i]) for i in range(3)]
    return ndimage.map_coordinates(volume, voxels, order=order, mode="constant", cval=0.0, prefilter=False)


def bump(
    points_mm: np.ndarray, centres_mm: tuple[tuple[float, float, float], ...], sd_mm: float
) -> np.ndarray:
    """Gaussian bumps of height 1 around some places, (3, ...) -> (...)."""
    total = np.zeros(points_mm.shape[1:], np.float32)
    for centre in centres_mm:
        distance = sum((points_mm[i] - np.float32(centre[i])) ** 2 for i in range(3))
        total += np.exp(-distance / np.float32(2 * sd_mm**2))
    return total


def swell(
    points_mm: np.ndarray, centres_mm: tuple[tuple[float, float, float], ...], radius_mm: float, by_mm: float
) -> np.ndarray:
    """Displacement (3, ...) for sampling that enlarges the surroundings of some places.

    Tissue at `radius_mm` from a centre moves outwards by `by_mm` (inwards if negative), less elsewhere.
    """
    total = np.zeros_like(points_mm)
    for centre in centres_mm:
        offset = points_mm - np.asarray(centre, np.float32).reshape(3, *[1] * (points_mm.ndim - 1))
        squared = (offset**2).sum(axis=0) / np.float32(radius_mm**2)
        total -= offset * (np.float32(by_mm / radius_mm) * np.exp((1 - squared) / 2))
    return total


def rician(rng: np.random.Generator, image: np.ndarray, sd: float) -> np.ndarray:
    """Magnitude of an image of any shape with complex noise of `sd`: Rician in the head, Rayleigh in the air."""
    real = image + np.float32(sd) * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = np.float32(sd) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.hypot(real, imaginary)


def rotation(angles_rad: np.ndarray) -> np.ndarray:
    """Rotation about x, then y, then z, (3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_rad), np.sin(angles_rad)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def rigid(parameters: np.ndarray, centre_mm: np.ndarray) -> np.ndarray:
    """Rigid transform (4, 4) in mm: rotation about `centre_mm`, then translation.

    Parameters
    ----------
    parameters : numpy.ndarray of shape (6,)
        Translations x, y, z (mm), rotations x, y, z (rad).
    centre_mm : numpy.ndarray of shape (3,)
        Fixed by the rotation.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(parameters[3:])
    matrix[:3, 3] = parameters[:3] + centre_mm - matrix[:3, :3] @ centre_mm
    return matrix
