"""Surfaces of the cortex as arrays: read, checked and cut along the medial wall."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.parsers.expat import ExpatError

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from bhx_model.errors import DataError
from bhx_prep.io.hemispheres import check_side


def read_surface(path: Path, side: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3; float64, mm) and triangles (F, 3; int64) of a GIfTI surface.

    Raises
    ------
    DataError
        If the file is no GIfTI surface, or is of another hemisphere than `side`.
    OSError
        If it is missing.
    """
    try:
        image = nib.load(path)
        vertices, triangles = image.agg_data(("pointset", "triangle"))  # pyright: ignore[reportAttributeAccessIssue]
    except (ImageFileError, ExpatError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is no GIfTI surface ({error}): name a .surf.gii, or fetch the templates again"
        ) from error
    if side is not None:
        check_side(path, side, image)
    return np.asarray(vertices, np.float64), np.asarray(triangles, np.int64)


@dataclass(frozen=True)
class Mesh:
    """A surface and its boundary, checked."""

    vertices: np.ndarray  # (V, 3) float64, mm
    triangles: np.ndarray  # (F, 3) int64
    boundaries: int  # number of closed boundary lines; 0 on a closed surface


def check_mesh(vertices: np.ndarray, triangles: np.ndarray) -> Mesh:
    """Refuse a surface on which the operator is not defined.

    Parameters
    ----------
    vertices : ndarray, (V, 3)
        Millimetres.
    triangles : ndarray, (F, 3)
        Vertex numbers.

    Raises
    ------
    DataError
        For values that are no numbers, degenerate triangles, edges of three or more triangles, vertices in no
        triangle, boundaries that touch, and surfaces of several pieces; with how many, where, and the way out.
    """
    vertices, triangles = np.asarray(vertices, np.float64), np.asarray(triangles, np.int64)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
        msg = f"a surface is (V, 3) vertices and (F, 3) triangles; these are {vertices.shape} and {triangles.shape}"
        raise DataError(msg)
    n = len(vertices)
    if not np.isfinite(vertices).all():
        raise DataError(
            f"{(~np.isfinite(vertices).all(axis=1)).sum()} vertices have no coordinates: reconstruct it"
        )
    if triangles.size == 0 or triangles.min() < 0 or triangles.max() >= n:
        raise DataError(f"triangles name vertices outside 0 to {n - 1}: coordinates and triangles do not fit")
    sides = vertices[triangles[:, [1, 2]]] - vertices[triangles[:, [0]]]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1) / 2
    flat = area <= 1e-12 * area.mean()
    if flat.any():
        msg = f"{flat.sum()} triangles have no area (the first is {np.flatnonzero(flat)[0]}): remesh the surface"
        raise DataError(msg)
    unused = np.setdiff1d(np.arange(n), triangles)
    if len(unused):
        msg = f"{len(unused)} vertices are in no triangle (the first is {unused[0]}): remove them"
        raise DataError(msg)
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    if (count > 2).any():
        a, b = edges[count > 2][0]
        msg = f"{(count > 2).sum()} edges belong to more than two triangles (the first joins {a} and {b}): repair it"
        raise DataError(msg)
    pieces, label = _components(edges, n)
    if pieces > 1:
        sizes = np.sort(np.bincount(label))[::-1].tolist()
        msg = f"the surface is in {pieces} pieces of {sizes[:5]} vertices: keep the largest, or correct the mask"
        raise DataError(msg)
    rim = edges[count == 1]
    ends, degree = np.unique(rim, return_counts=True)
    if (degree != 2).any():
        msg = f"boundaries touch at {(degree != 2).sum()} vertices (the first is {ends[degree != 2][0]}): smooth the mask"
        raise DataError(msg)
    boundaries = _components(np.searchsorted(ends, rim), len(ends))[0] if len(rim) else 0
    return Mesh(vertices, triangles, boundaries)


def _components(edges: np.ndarray, n: int) -> tuple[int, np.ndarray]:
    graph = sparse.coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)


def cut(
    vertices: np.ndarray, triangles: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take the part of a closed surface whose vertices are kept.

    Parameters
    ----------
    vertices : ndarray, (V, 3)
    triangles : ndarray, (F, 3)
    keep : ndarray, (V,) bool
        True on cortex.

    Returns
    -------
    vertices, triangles
        Of the part, renumbered.
    kept : ndarray, (V',) int
        The old number of every vertex of the part. A kept vertex without a whole kept triangle is excluded.

    Raises
    ------
    DataError
        If the surface has holes before it is cut, or the mask is of another surface.
    """
    if keep.shape != (len(vertices),):
        msg = f"the cortex mask has {len(keep)} vertices and the surface {len(vertices)}: use the mask of this surface"
        raise DataError(msg)
    whole = check_mesh(vertices, triangles)
    if whole.boundaries:
        msg = f"the surface has {whole.boundaries} holes where it should be closed: fill them, or reconstruct it"
        raise DataError(msg)
    part = triangles[keep[triangles].all(axis=1)]
    kept = np.unique(part)
    return vertices[kept], np.searchsorted(kept, part), kept
