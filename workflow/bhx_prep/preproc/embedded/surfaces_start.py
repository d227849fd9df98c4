"""Initial rotation for the registration of spheres, which brings the same anatomy to the same place."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.spatial import KDTree

from bhx_prep.preproc.embedded.surfaces_quality import vertex_areas

#: Vertices that surfaces are laid over each other by, and rounds of it.
_POINTS: Final = 4000
_ROUNDS: Final = 30


def laid_over(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Points (V, 3) moved onto a target (W, 3) by an affine transform: iterated closest points (Besl & McKay 1992).

    Both are of heads whose axes run along x, y and z, some 30 degrees apart at most.
    """
    scale = target.std(axis=0) / points.std(axis=0)
    moved = (points - points.mean(axis=0)) * scale + target.mean(axis=0)
    tree = KDTree(target)
    some = np.linspace(0, len(points) - 1, min(_POINTS, len(points))).astype(int)
    for _ in range(_ROUNDS):
        here = np.column_stack([moved[some], np.ones(len(some))])
        there = target[tree.query(moved[some])[1]]
        matrix = np.linalg.lstsq(here, there, rcond=None)[0]
        moved = np.column_stack([moved, np.ones(len(moved))]) @ matrix
    return moved


def turned(
    vertices: np.ndarray,
    triangles: np.ndarray,
    sphere: np.ndarray,
    target: np.ndarray,
    target_sphere: np.ndarray,
) -> np.ndarray:
    """The sphere turned so that its vertices come near those of the target's that are near in the brain.

    Parameters
    ----------
    vertices, sphere : array, (V, 3)
        A hemisphere's midthickness, mm, and its sphere.
    triangles : array, (F, 3)
    target, target_sphere : array, (W, 3)
        The template's.

    Returns
    -------
    array, (V, 3)
        By the rotation of least squares (Kabsch 1976), vertices weighted by area.
    """
    nearest = KDTree(target).query(laid_over(vertices, target))[1]
    weighted = sphere * vertex_areas(vertices, triangles)[:, None]
    left, _, right = np.linalg.svd(weighted.T @ target_sphere[nearest])
    left[:, -1] *= np.sign(np.linalg.det(left @ right))  # no reflection
    return sphere @ (left @ right)
