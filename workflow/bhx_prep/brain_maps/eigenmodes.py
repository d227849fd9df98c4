"""Laplace-Beltrami modes of one surface.

``-div grad psi = lambda psi`` with a free boundary is solved by linear finite elements (``A x = lambda B x``; stiffness A
and mass B from LaPy; Reuter et al. 2006, Pang et al. 2023). The modes are orthonormal in B, that is over the area of the
surface, not over the vertices. None is missed where eigenvalues are repeated: they are counted.

To the solver an eigenvector's sign is arbitrary; here a mode correlates positively with the posterior-to-anterior
coordinate.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, SuperLU, eigsh, splu

from bhx_model.errors import ConfigError, DataError
from bhx_prep.brain_maps.surfaces import Mesh, check_mesh

#: Correlation with the reference direction below which rounding would decide the sign (as on a sphere).
_NO_DIRECTION = 1e-6
#: Largest residual and deviation from orthonormality of an acceptable result.
TOLERANCE = 1e-6


def operators(mesh: Mesh) -> tuple[sparse.csc_array, sparse.csc_array]:
    """Stiffness (V, V) and mass (V, V; mm^2) of linear finite elements."""
    # LaPy logs "regular Laplace-Beltrami" at every call
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
    DataError
        If the operator is not defined on the surface (see `check_mesh`), or the result is not accurate.
    ConfigError
        If the surface has too few vertices for `k` modes.
    """
    mesh = check_mesh(vertices, triangles)
    n = len(mesh.vertices)
    if not 1 < k < n / 2:
        raise ConfigError(f"{k} modes of {n} vertices: ask for 2 to {n // 2 - 1}, or use a finer surface")
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
    DataError
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
