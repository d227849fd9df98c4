"""Numbers that tell whether a hemisphere's surfaces can be used, and their limits."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import numpy as np
from scipy import ndimage


class Limit(NamedTuple):
    """What a number may be."""

    low: float
    high: float
    why: str


#: Of every number that decides: measured on real heads (tests/benchmarks/surfaces.py), or what holds of any cortex.
LIMITS: Final = {
    "euler": Limit(2, 2, "a sphere's"),
    "thickness_mm": Limit(2.0, 3.4, "means of adults are 2.2 to 3.2 mm"),
    "area_mm2": Limit(50_000, 150_000, "midthickness of one hemisphere; adults' are 80,000 to 110,000 mm2"),
    "border_offset_mm": Limit(-0.75, 0.75, "steepest fall of the T1w along the white surface's normals"),
    "border_share": Limit(0.8, 1.0, "vertices of the white surface brighter 1 mm inside than 1 mm outside"),
    "cut_share": Limit(0.0, 0.02, "triangles of white and pial surface that cut others"),
}

#: Where along a normal the T1w is sampled, mm outwards.
_ALONG: Final = np.arange(-2.0, 2.01, 0.25)


def euler(vertices: np.ndarray, triangles: np.ndarray) -> int:
    """Euler characteristic, V - E + F: 2 of a closed surface without handles."""
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    return len(vertices) - len(np.unique(edges, axis=0)) + len(triangles)


def normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals of the vertices, (V, 3), weighted by the triangles' areas."""
    corner = vertices[triangles]
    of_triangle = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = np.stack(
        [
            np.bincount(triangles.ravel(), np.repeat(of_triangle[:, axis], 3), minlength=len(vertices))
            for axis in range(3)
        ],
        axis=1,
    )
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def vertex_areas(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """A third of the triangles around each vertex, (V,), mm2."""
    corner = vertices[triangles]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1) / 2
    return np.bincount(triangles.ravel(), np.repeat(area / 3, 3), minlength=len(vertices))


def volume(vertices: np.ndarray, triangles: np.ndarray) -> float:
    """Volume that a closed surface encloses, mm3; negative where its normals point inwards."""
    corner = vertices[triangles] - vertices.mean(axis=0)
    return float(np.einsum("ij,ij->i", corner[:, 0], np.cross(corner[:, 1], corner[:, 2])).sum() / 6)


def border(
    vertices: np.ndarray, triangles: np.ndarray, head: np.ndarray, affine: np.ndarray, cortex: np.ndarray
) -> tuple[float, float]:
    """Where the T1w falls from white to grey matter, seen from the white surface.

    Parameters
    ----------
    vertices : array, (V, 3)
        White surface, RAS mm.
    triangles : array, (F, 3)
    head : array, (X, Y, Z)
        T1w.
    affine : array, (4, 4)
        Voxel to RAS mm.
    cortex : array of bool, (V,)
        Vertices that count.

    Returns
    -------
    offset_mm, share : float
        Median place of the steepest fall along the normals, positive outwards; share of vertices that are brighter 1 mm
        inside than 1 mm outside.
    """
    at, along = vertices[cortex], normals(vertices, triangles)[cortex]
    points = at[:, None] + along[:, None] * _ALONG[:, None]
    inverse = np.linalg.inv(affine)
    voxels = points.reshape(-1, 3) @ inverse[:3, :3].T + inverse[:3, 3]
    profile = np.asarray(ndimage.map_coordinates(head, voxels.T, order=1, mode="nearest"))
    profile = profile.reshape(-1, len(_ALONG))
    fall = profile[:, :-1] - profile[:, 1:]
    middle = (_ALONG[:-1] + _ALONG[1:]) / 2
    inside, outside = (int(np.argmin(np.abs(_ALONG - place))) for place in (-1.0, 1.0))
    share = float(np.mean(profile[:, inside] > profile[:, outside]))
    return float(np.median(middle[np.argmax(fall, axis=1)])), share


def failures(numbers: dict[str, float]) -> list[str]:
    """What is outside of its limits, as ``euler is 4 (2 to 2)``."""
    return [
        f"{name} is {numbers[name]:g} ({limit.low:g} to {limit.high:g})"
        for name, limit in LIMITS.items()
        if not limit.low <= numbers[name] <= limit.high
    ]


def swapped(left_x: float, right_x: float) -> list[str]:
    """Whether the left surface lies to the right of the right one (x of their centres, RAS mm)."""
    return (
        [] if left_x < right_x else [f"left lies at x = {left_x:.0f} mm, right at {right_x:.0f} mm: swapped"]
    )


def measure(
    made: dict[str, np.ndarray], head: np.ndarray, affine: np.ndarray, cortex: np.ndarray
) -> dict[str, Any]:
    """Numbers of one hemisphere, the keys of `LIMITS` among them.

    Parameters
    ----------
    made : dict of array
        As `bhx_prep.preproc.embedded.surfaces_cat` writes it.
    head : array, (X, Y, Z)
        T1w.
    affine : array, (4, 4)
        Voxel to RAS mm.
    cortex : array of bool, (32492,)
        Cortex on fsLR-32k.
    """
    triangles = made["triangles"]
    area = vertex_areas(made["fslr_midthickness"], made["fslr_triangles"])[cortex]
    standard = border(made["fslr_white"], made["fslr_triangles"], head, affine, cortex)
    cut = sum(int(made[f"intersections_{name}"]) for name in ("white", "pial"))
    return {
        "euler": euler(made["midthickness"], triangles),
        "vertices": len(made["midthickness"]),
        "thickness_mm": round(float(np.average(made["fslr_thickness"][cortex], weights=area)), 3),
        "area_mm2": round(float(vertex_areas(made["midthickness"], triangles).sum())),
        "volume_mm3": round(volume(made["midthickness"], triangles)),
        "border_offset_mm": round(standard[0], 3),
        "border_share": round(standard[1], 3),
        "cut_share": round(cut / (2 * len(triangles)), 4),
        "centre_mm": made["midthickness"].mean(axis=0).round(1).tolist(),
        "cpu_seconds": float(made["cpu_seconds"]),
        "seconds": json.loads(str(made["seconds"])),
    }
