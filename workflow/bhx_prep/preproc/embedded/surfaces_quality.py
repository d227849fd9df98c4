"""Quality measures of a hemisphere's surfaces, and their limits."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import numpy as np
from scipy import ndimage, sparse


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
    "fold_correlation": Limit(0.6, 1.0, "folds on fsLR with the template's; turned by 8 degrees .42 to .52"),
    "central_correlation": Limit(
        0.75, 1.0, "the same around the central sulcus; 20 mm behind its place .55 and .70"
    ),
}

#: Depth of folds is measured from the surface after so many steps of smoothing: of fsLR-32k, the group's sulci stay.
_STEPS: Final = 200
#: Central sulcus on the right, MNI mm, and how far around it (mm) folds are compared.
_CENTRAL: Final = (40.0, -22.0, 52.0)
_AROUND_MM: Final = 30.0

#: Where along a normal the T1w is sampled, mm outwards.
_ALONG: Final = np.arange(-2.0, 2.01, 0.25)


def euler(vertices: np.ndarray, triangles: np.ndarray) -> int:
    """Euler characteristic, V - E + F, of vertices (V, 3) and triangles (F, 3): 2 of a closed surface without handles."""
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
    """Volume, mm3, within a closed surface of vertices (V, 3), mm, and triangles (F, 3); negative if it is inside out."""
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


def fold_depth(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Height (mm) of vertices above the smoothed surface, (V,): positive on gyri, negative in sulci."""
    ends = np.concatenate([triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    n = len(vertices)
    edges = sparse.coo_matrix((np.ones(2 * len(ends)), (ends.ravel(), ends[:, ::-1].ravel())), (n, n)).tocsr()
    edges.data[:] = 1
    mean = sparse.diags(1 / np.maximum(np.asarray(edges.sum(axis=1)).ravel(), 1)) @ edges
    smooth = vertices
    for _ in range(_STEPS):
        smooth = (smooth + mean @ smooth) / 2
    return ((vertices - smooth) * normals(smooth, triangles)).sum(axis=1)


def registration(
    own: np.ndarray, template: np.ndarray, triangles: np.ndarray, cortex: np.ndarray
) -> dict[str, float]:
    """How well the folds of a registered surface meet the template's.

    Parameters
    ----------
    own, template : array, (V, 3)
        Midthickness of the subject and of the template, mm, vertex by vertex of fsLR; the template's in MNI space.
    triangles : array, (F, 3)
    cortex : array of bool, (V,)
        Vertices that count.

    Returns
    -------
    dict
        ``fold_correlation``, Pearson's of `fold_depth` over the cortex, and ``central_correlation``, around the central
        sulcus: where that ends in its neighbour, the whole hardly shows it.
    """
    depth, standard = (fold_depth(vertices, triangles) for vertices in (own, template))
    side = np.sign(template[:, 0].mean())
    near = np.linalg.norm(template - [side * _CENTRAL[0], *_CENTRAL[1:]], axis=1) < _AROUND_MM
    return {
        name: round(float(np.corrcoef(depth[where], standard[where])[0, 1]), 3)
        for name, where in (("fold_correlation", cortex), ("central_correlation", cortex & near))
    }


def failures(numbers: dict[str, float]) -> list[str]:
    """What is outside of its limits, as ``euler is 4 (2 to 2)``."""
    return [
        f"{name} is {numbers[name]:g} ({limit.low:g} to {limit.high:g})"
        for name, limit in LIMITS.items()
        if not limit.low <= numbers[name] <= limit.high
    ]


def swapped(left_x: float, right_x: float) -> list[str]:
    """Whether the left surface is to the right of the right one (x of their centres, RAS mm)."""
    return (
        [] if left_x < right_x else [f"left lies at x = {left_x:.0f} mm, right at {right_x:.0f} mm: swapped"]
    )


def measure(
    made: dict[str, np.ndarray],
    head: np.ndarray,
    affine: np.ndarray,
    cortex: np.ndarray,
    template: np.ndarray,
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
    template : array, (32492, 3)
        Its midthickness, MNI mm.
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
        **registration(made["fslr_midthickness"], template, made["fslr_triangles"], cortex),
        "centre_mm": made["midthickness"].mean(axis=0).round(1).tolist(),
        "cpu_seconds": float(made["cpu_seconds"]),
        "seconds": json.loads(str(made["seconds"])),
    }
