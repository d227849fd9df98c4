r"""Geometric harmonics: Laplace-Beltrami modes of the cortical surface, averaged in every parcel.

On each hemisphere's midthickness, cut along the medial wall, ``-div grad psi = lambda psi`` with a free boundary is
solved by linear finite elements (``A x = lambda B x``; stiffness A and mass B from LaPy; Reuter et al. 2006, Pang et
al. 2023). The modes are orthonormal in B, that is over the area of the surface, not over the vertices.

An eigenvector's sign means nothing to the solver; here it does: a left mode correlates positively with the
posterior-to-anterior coordinate, and a right mode with the left mode of the same number at corresponding vertices
(meshes of fsLR and fsaverage number them alike). Beyond some sixty modes the two hemispheres' modes are no longer
counterparts; how much they agree is written beside the result (``hemisphere_correlation``).

A parcel's value is the mean over its area (vertices weighted by a third of the triangles around them).

Examples
--------
::

    python -m bhx_prep.brain_maps.harmonics --templates results/templates --modes 200 --out harmonics.parquet
    bhx harmonics --left L.surf.gii --right R.surf.gii --labels atlas.dlabel.nii --names names.txt --modes 200 \
        --align-to results/templates --out harmonics.parquet
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, SuperLU, eigsh, splu

from bhx_model.errors import DataError
from bhx_prep.atlas.templates import hemispheres, names_on_surfaces, read_names, read_surface_labels
from bhx_prep.brain_maps import join
from bhx_prep.brain_maps.align_modes import align

#: Correlation with the reference direction below which rounding would decide the sign (as on a sphere).
_NO_DIRECTION = 1e-6
#: Largest residual and deviation from orthonormality of an acceptable result.
TOLERANCE = 1e-6
SIDES = ("left", "right")


@dataclass(frozen=True)
class Mesh:
    """A surface and its boundary, checked."""

    vertices: np.ndarray  # (V, 3) float64, mm
    triangles: np.ndarray  # (F, 3) int64
    boundaries: int  # closed boundary lines; 0 on a closed surface


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
    ValueError
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
        msg = f"the surface is in {pieces} pieces of {sizes[:5]} vertices: keep the largest, or mend the mask"
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
        The old number of every vertex of the part. A kept vertex without a whole kept triangle is left out.

    Raises
    ------
    ValueError
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


def operators(mesh: Mesh) -> tuple[sparse.csc_array, sparse.csc_array]:
    """Stiffness (V, V) and mass (V, V; mm^2) of linear finite elements."""
    # LaPy says "regular Laplace-Beltrami" to the root logger at every call
    logging.getLogger("lapy").setLevel(logging.WARNING)
    from lapy import Solver, TriaMesh

    solver = Solver(TriaMesh(mesh.vertices, mesh.triangles))
    return sparse.csc_array(solver.stiffness), sparse.csc_array(solver.mass)


def modes(
    vertices: np.ndarray, triangles: np.ndarray, k: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The first `k` Laplace-Beltrami modes of a surface in one piece, closed or with free boundaries.

    Parameters
    ----------
    vertices : ndarray, (V, 3)
        Millimetres, RAS+.
    triangles : ndarray, (F, 3)
    k : int
        Number of modes, the constant one included.
    seed : int
        Of the solver's start vector.

    Returns
    -------
    eigenvalues : ndarray, (k,)
        mm^-2, ascending from exactly 0.
    modes : ndarray, (V, k)
        Orthonormal in the mass matrix (mm^-1); the first is ``1 / sqrt(area)``. Sign: see the module.
    metadata : dict
        ``residual``, ``orthogonality`` (largest deviations), ``area_mm2``, ``vertex_areas_mm2`` (V),
        ``boundaries`` and counts.

    Raises
    ------
    ValueError
        If the surface cannot carry the operator (see `check_mesh`) or `k` modes, or the result is not accurate.
    """
    mesh = check_mesh(vertices, triangles)
    n = len(mesh.vertices)
    if not 1 < k < n / 2:
        raise DataError(f"{k} modes of {n} vertices: ask for 2 to {n // 2 - 1}, or use a finer surface")
    stiffness, mass = operators(mesh)
    areas = np.asarray(mass.sum(axis=1)).ravel()
    area = areas.sum()
    # a shift below the spectrum, in the surface's own unit, makes the matrix positive definite
    values, vectors = _solve(stiffness, mass, k, -20 / area, np.random.default_rng(seed).standard_normal(n))
    values[0], vectors[:, 0] = 0.0, 1 / np.sqrt(area)
    vectors *= _signs(vectors, mesh.vertices[:, 1], areas)
    weighted = mass @ vectors
    metadata = {
        "residual": _residual(stiffness @ vectors, weighted, values),
        "orthogonality": float(np.abs(vectors.T @ weighted - np.eye(k)).max()),
        "area_mm2": float(area),
        "vertex_areas_mm2": areas,
        "vertices": n,
        "triangles": len(mesh.triangles),
        "boundaries": mesh.boundaries,
    }
    for what in ("residual", "orthogonality"):
        if not metadata[what] < TOLERANCE:
            msg = f"the modes' {what} is {metadata[what]:.1e}, above {TOLERANCE:.0e}: the surface has extreme triangles"
            raise DataError(msg)
    return values, vectors, metadata


def _solve(
    stiffness: sparse.csc_array, mass: sparse.csc_array, k: int, shift: float, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` smallest eigenvalues, ascending, and their vectors (V, k); none is missed.

    Lanczos may miss copies of a repeated eigenvalue, the more so the sooner it stops. How many eigenvalues there are
    below a number is how many pivots of the matrix shifted by it are negative (Sylvester's law of inertia). So the solver
    stops at 1e-9 with a small basis, which takes a quarter less time; where that missed any, it looks for a few modes
    more, to the last digit.

    Raises
    ------
    ValueError
        If one is still missing.
    """
    n = len(start)
    factor = _factor(stiffness, mass, shift)
    inverse = LinearOperator((n, n), matvec=factor.solve, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    tries = (
        {"k": k, "ncv": min(n, max(20, 3 * k // 2)), "tol": 1e-9},
        {"k": min(k + 16, n - 1)},
    )
    for how in tries:
        values, vectors = eigsh(stiffness, M=mass, sigma=shift, OPinv=inverse, v0=start, **how)  # pyright: ignore[reportArgumentType]
        order = np.argsort(values)[:k]
        values, vectors = values[order], vectors[:, order]
        below = values[-1] * (1 - 1e-6)  # copies of the last one may be cut off
        missed = (_factor(stiffness, mass, below).U.diagonal() < 0).sum() - (values < below).sum()
        if missed == 0:
            return values, vectors
    raise DataError(f"{missed} of {k} modes are missed, as some are repeated: ask for another number of them")


def _factor(stiffness: sparse.csc_array, mass: sparse.csc_array, shift: float) -> SuperLU:
    """Factors of the shifted matrix, pivots on its diagonal: the symmetric ordering halves the fill of the default one."""
    return splu(
        sparse.csc_matrix(stiffness - shift * mass),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


def _signs(vectors: np.ndarray, direction: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """+1 or -1 per mode: positive correlation with `direction` over the surface, else the largest entry positive."""
    centred = direction - np.average(direction, weights=areas)
    centred /= np.sqrt(areas @ centred**2)
    correlation = (areas * centred) @ vectors
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return np.where(np.where(np.abs(correlation) > _NO_DIRECTION, correlation, largest) < 0, -1.0, 1.0)


def _residual(left: np.ndarray, right: np.ndarray, values: np.ndarray) -> float:
    """Largest ``|A x - w B x| / (w |B x|)`` over the modes that are not constant."""
    off = np.linalg.norm(left - right * values, axis=0)[1:]
    return float((off / (values * np.linalg.norm(right, axis=0))[1:]).max())


def parcel_means(modes: np.ndarray, labels: np.ndarray, areas: np.ndarray, n: int) -> np.ndarray:
    """Area-weighted mean of every mode in every parcel.

    Parameters
    ----------
    modes : ndarray, (V, k)
    labels : ndarray, (V,) int
        0 for no parcel, else 1 to `n`.
    areas : ndarray, (V,)
        Weight of each vertex, mm^2.
    n : int
        Number of parcels.

    Returns
    -------
    ndarray, (n, k)
        Row r is label r + 1; NaN where no vertex carries it.
    """
    if labels.shape != areas.shape or len(labels) != len(modes):
        msg = (
            f"{len(modes)} vertices carry modes, {len(labels)} labels and {len(areas)} areas: use one surface"
        )
        raise DataError(msg)
    if labels.min() < 0 or labels.max() > n:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}, the atlas has {n}: use its own labels"
        )
    inside = np.flatnonzero(labels)
    weights = sparse.csr_array((areas[inside], (labels[inside] - 1, inside)), shape=(n, len(labels)))
    total = np.asarray(weights.sum(axis=1))
    return np.divide(
        weights @ modes, total[:, None], out=np.full((n, modes.shape[1]), np.nan), where=total[:, None] > 0
    )


def compute(templates: Path, k: int) -> tuple[str, dict, dict]:
    """Atlas label, columns and metadata of the harmonics' table, from a folder of templates.

    Modes of the cortex have no value in the subcortex: its ROIs, if the atlas has any, get zeros, and the metadata name
    them (``without_cortex``).

    Parameters
    ----------
    templates : Path
        With ``atlas.json``, ``atlas_fsLR.npz``, ``surface_{left,right}.surf.gii`` and ``cortex.npz``.
    k : int
        Modes per hemisphere.

    Raises
    ------
    ValueError
        If a surface is faulty, files do not fit each other, or a parcel has no vertex.
    """
    atlas = json.loads((templates / "atlas.json").read_bytes())
    n, names, hemisphere = atlas.get("subcortical", 0), atlas["names"], np.array(atlas["hemisphere"], np.int8)
    if why := atlas["missing"].get("atlas_fsLR.npz"):
        msg = f"the atlas is not there on fsLR-32k, where the harmonics are computed: {why}"
        raise DataError(msg)
    labels = _arrays(templates / "atlas_fsLR.npz")
    columns, metadata = solve(
        _template_surfaces(templates),
        {side: np.maximum(labels[side] - n, 0) for side in SIDES},
        _arrays(templates / "cortex.npz"),
        names[n:],
        hemisphere[n:],
        k,
    )
    if n:
        columns = {
            name: np.r_[np.zeros(n), column] for name, column in columns.items() if name.startswith("mode_")
        }
        columns = {"name": names, "hemisphere": hemisphere} | columns
        metadata["without_cortex"] = names[:n]
    metadata["surfaces"] = {
        name: atlas["files"].get(name) for name in ("surface_left.surf.gii", "surface_right.surf.gii")
    }
    return atlas["label"], columns, metadata


def solve(
    surfaces: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: Mapping[str, np.ndarray],
    cortex: Mapping[str, np.ndarray],
    names: Sequence[str],
    hemisphere: np.ndarray,
    k: int,
    template: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> tuple[dict, dict]:
    """Columns and metadata of the table of harmonics.

    Parameters
    ----------
    surfaces : mapping of ``left`` and ``right``
        Vertices (V, 3; mm) and triangles (F, 3) of each hemisphere.
    labels, cortex : mappings of ``left`` and ``right``
        Label 0..R of every vertex, and whether it is cortex (V).
    names : sequence of str
        R ROI names.
    hemisphere : ndarray, (R,)
        0 left, 1 right.
    k : int
        Modes per hemisphere.
    template : mapping of ``left`` and ``right``, optional
        Surfaces with the same vertices, to whose modes those of `surfaces` are aligned (`bhx_prep.brain_maps.align_modes`).

    Raises
    ------
    ValueError
        If a surface is faulty, a parcel has no vertex, or the template has other vertices.
    """
    table = np.full((len(names), k), np.nan)
    metadata: dict[str, Any] = {"eigenvalues": {}}
    if template is None:
        solved = _hemispheres(surfaces, labels, cortex, k)
    else:
        # some modes more, so that the last ones find the rest of their group
        more = k + max(2, k // 10)
        standard = _hemispheres(template, labels, cortex, more, "template's ")
        solved = _hemispheres(surfaces, labels, cortex, more)
    for number, side in enumerate(SIDES):
        found = solved[side]
        metadata[side] = found.metadata
        if template is not None:
            weights = np.sqrt(found.areas * standard[side].areas)
            found.values, found.vectors, told = align(
                found.values, found.vectors, standard[side].values, standard[side].vectors, weights
            )
            metadata[side] |= {
                "template_correlation": told["template_correlation"][:k],
                "groups": told["groups"],
            }
        values, vectors = found.values[:k], found.vectors[:, :k]
        means = parcel_means(vectors, labels[side][found.kept].astype(np.int64), found.areas, len(names))
        table[hemisphere == number] = means[hemisphere == number]
        metadata["eigenvalues"][side] = values.tolist()
    metadata["hemisphere_correlation"] = (
        np.abs(_correspondence(solved["left"], solved["right"])[:k]).round(4).tolist()
    )
    empty = [name for name, row in zip(names, table, strict=True) if np.isnan(row).any()]
    if empty:
        msg = f"{len(empty)} parcels have no vertex on the cortex, e.g. {empty[0]}: take atlas and surface of one space"
        raise DataError(msg)
    metadata |= {
        "sign": "left: positive correlation with y; right: with the left mode at corresponding vertices",
        "parcel_mean": "weighted by vertex area",
    }
    columns = {"name": names, "hemisphere": hemisphere.astype(np.int8)}
    columns |= {f"mode_{m + 1:03d}": table[:, m] for m in range(k)}
    return columns, metadata


@dataclass
class _Solved:
    """Modes of one hemisphere."""

    kept: np.ndarray  # (V',) vertex numbers of the whole surface
    values: np.ndarray  # (k,)
    vectors: np.ndarray  # (V', k)
    areas: np.ndarray  # (V',) mm^2
    metadata: dict[str, Any]


def _hemispheres(
    surfaces: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: Mapping[str, np.ndarray],
    cortex: Mapping[str, np.ndarray],
    k: int,
    whose: str = "",
) -> dict[str, _Solved]:
    """Modes of both hemispheres, right ones with the signs of the left ones."""
    solved: dict[str, _Solved] = {}
    for side in SIDES:
        vertices, triangles = surfaces[side]
        if len(labels[side]) != len(vertices):
            msg = f"{side}: {len(labels[side])} labels for {len(vertices)} vertices: atlas and surface do not fit"
            raise DataError(msg)
        try:
            part, part_triangles, kept = cut(vertices, triangles, cortex[side])
            print(
                f"harmonics: {k} modes of the {whose}{side} hemisphere, {len(part)} vertices", file=sys.stderr
            )
            values, vectors, metadata = modes(part, part_triangles, k)
        except ValueError as error:
            raise DataError(f"{whose}{side}: {error}") from error
        solved[side] = _Solved(kept, values, vectors, metadata.pop("vertex_areas_mm2"), metadata)
    right = solved["right"]
    right.vectors *= np.where(_correspondence(solved["left"], right) < 0, -1.0, 1.0)
    return solved


def _correspondence(left: _Solved, right: _Solved) -> np.ndarray:
    """Correlation (k,) of left and right modes at vertices of the same number, weighted by area."""
    shared = np.intersect1d(left.kept, right.kept)
    rows = [np.searchsorted(side.kept, shared) for side in (left, right)]
    a, b = left.vectors[rows[0]], right.vectors[rows[1]]
    weight = np.sqrt(left.areas[rows[0]] * right.areas[rows[1]])[:, None]
    return (weight * a * b).sum(axis=0) / np.sqrt((weight * a**2).sum(axis=0) * (weight * b**2).sum(axis=0))


def _template_surfaces(templates: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {side: _surface(templates / f"surface_{side}.surf.gii") for side in SIDES}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _surface(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        image = nib.load(path)
        vertices, triangles = image.agg_data(("pointset", "triangle"))  # pyright: ignore[reportAttributeAccessIssue]
    except (ImageFileError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is no GIfTI surface ({error}): name a .surf.gii, or fetch the templates again"
        ) from error
    return np.asarray(vertices, np.float64), np.asarray(triangles, np.int64)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx harmonics``."""
    add = parser.add_argument
    add("--left", type=Path, required=True, help="midthickness of the left hemisphere, closed (.surf.gii)")
    add("--right", type=Path, required=True, help="the same of the right one")
    add(
        "--labels",
        type=Path,
        nargs="+",
        required=True,
        help="parcels of both: a .dlabel.nii, or two .label.gii or .annot files, left first; 0 is the medial wall",
    )
    add(
        "--names",
        type=Path,
        help="ROI names in the order wanted, one a line (CBIG's tables will do); those of the label files if not given",
    )
    add("--modes", type=int, default=200, help="modes per hemisphere (%(default)s)")
    add(
        "--align-to",
        type=Path,
        metavar="TEMPLATES",
        help="for a person's own surfaces on fsLR-32k: align their modes to those of the surfaces in this folder, and"
        " cut the medial wall as there, e.g. results/templates",
    )
    add("--out", type=Path, required=True, help="Parquet table: a row per ROI, a column per mode")


def command(args: argparse.Namespace) -> int:
    """Run ``bhx harmonics``."""
    names = read_names(args.names) if args.names else names_on_surfaces(args.labels)
    labels: dict[str, np.ndarray] = dict(zip(SIDES, read_surface_labels(args.labels, names), strict=True))
    cortex, template = {side: labels[side] > 0 for side in SIDES}, None
    if args.align_to:
        cortex, template = _arrays(args.align_to / "cortex.npz"), _template_surfaces(args.align_to)
    columns, metadata = solve(
        {"left": _surface(args.left), "right": _surface(args.right)},
        labels,
        cortex,
        names,
        np.array(hemispheres(names)),
        args.modes,
        template,
    )
    join.write_table(args.out, args.labels[0].name.split(".")[0], columns, metadata)
    worst = max(metadata[side]["residual"] for side in SIDES)
    print(f"{args.out}: {args.modes} modes per hemisphere, {len(names)} ROIs, largest residual {worst:.1e}")
    if template:
        alike = np.concatenate([metadata[side]["template_correlation"] for side in SIDES])
        print(
            f"correlation with the template's modes: median {np.median(alike):.2f}, lowest {alike.min():.2f}"
        )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Compute the harmonics of the templates named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.brain_maps.harmonics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--templates", required=True, type=Path, help="folder made by bhx_prep.atlas.templates"
    )
    parser.add_argument("--modes", type=int, default=200, help="modes per hemisphere (200)")
    parser.add_argument("--out", required=True, type=Path, help="Parquet table")
    args = parser.parse_args(argv)
    try:
        atlas, columns, metadata = compute(args.templates, args.modes)
        join.write_table(args.out, atlas, columns, metadata)
    except (ValueError, OSError) as error:
        print(f"harmonics: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
