"""A subject's modes in the order, with the signs and in the mixture of the template's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshes import ellipsoid, icosphere
from scipy.linalg import block_diag
from scipy.stats import ortho_group

from bhx_model.errors import DataError
from bhx_prep.brain_maps import align_modes, eigenmodes, harmonics
from bhx_prep.brain_maps.surfaces import check_mesh


def similarity(a: np.ndarray, b: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Cosine of columns over the surface."""
    norm = [np.sqrt((areas[:, None] * x**2).sum(axis=0)) for x in (a, b)]
    return (areas[:, None] * a * b).sum(axis=0) / (norm[0] * norm[1])


def test_a_mixture_within_repeated_eigenvalues_is_undone() -> None:
    values, vectors, metadata = eigenmodes.modes(
        *icosphere(3, 50.0), 16
    )  # degrees 0 to 3: groups of 1, 3, 5 and 7
    rng = np.random.default_rng(0)
    turns = [np.array([[1.0]]), *(ortho_group.rvs(n, random_state=rng) for n in (3, 5, 7))]
    areas = metadata["vertex_areas_mm2"]
    _, aligned, found = align_modes.align(values, vectors @ block_diag(*turns), values, vectors, areas)
    assert found["groups"] == [1, 3, 5, 7]
    # the lumped areas of `align` are not the mass matrix of the elements: equal to what that differs by
    np.testing.assert_allclose(similarity(aligned, vectors, areas), 1, atol=1e-3)
    assert min(found["template_correlation"]) > 0.999


def test_signs_and_neighbours_that_changed_places_are_put_back() -> None:
    values, vectors, metadata = eigenmodes.modes(*ellipsoid(), 10)
    values[5] = values[4] * 1.01  # as if close: their order is then a matter of chance
    other = vectors[:, [0, 1, 2, 3, 5, 4, 6, 7, 8, 9]] * np.array([1, -1, 1, -1, 1, -1, 1, -1, 1, -1])
    _, aligned, _ = align_modes.align(values, other, values, vectors, metadata["vertex_areas_mm2"])
    np.testing.assert_allclose(similarity(aligned, vectors, metadata["vertex_areas_mm2"]), 1, atol=5e-3)


def test_modes_of_a_deformed_surface_resemble_the_templates_more() -> None:
    vertices, triangles = ellipsoid()
    folded = vertices * [1.06, 0.97, 1.03] + 0.6 * np.sin(vertices[:, [1, 2, 0]] / 5)
    values, vectors, metadata = eigenmodes.modes(vertices, triangles, 40)
    own_values, own, own_metadata = eigenmodes.modes(folded, triangles, 40)
    areas = np.sqrt(metadata["vertex_areas_mm2"] * own_metadata["vertex_areas_mm2"])
    turned_values, turned, found = align_modes.align(own_values, own, values, vectors, areas, near=0.05)
    before, after = np.abs(similarity(own, vectors, areas)), similarity(turned, vectors, areas)
    assert after.mean() > before.mean() + 0.05
    assert (after[:10] > 0.9).all()
    np.testing.assert_allclose(found["template_correlation"], after, atol=1e-4)
    # turned modes are as orthonormal as modes, and span what the modes span
    mass = eigenmodes.operators(check_mesh(folded, triangles))[1]
    np.testing.assert_allclose(turned.T @ (mass @ turned), np.eye(40), atol=1e-9)
    np.testing.assert_allclose(turned_values.sum(), own_values.sum())


@given(st.lists(st.floats(1e-3, 1), min_size=1, max_size=30), st.floats(0, 0.5))
def test_groups_are_consecutive_and_whole(steps: list[float], near: float) -> None:
    values = np.concatenate([[0], np.cumsum(steps)])
    found = align_modes.groups(values, values, near)
    assert found[0] == slice(0, 1)
    assert [n for group in found for n in range(group.start, group.stop)] == list(range(len(values)))
    for group in found[1:]:
        inside = values[group]
        assert (np.diff(inside) < near * inside[:-1]).all()


def test_solve_aligns_both_hemispheres_and_reports_the_correlation() -> None:
    left, triangles = ellipsoid()
    right = left * [-1, 1, 1]
    template = {"left": (left, triangles), "right": (right, triangles[:, ::-1])}
    subject = {side: (1.02 * v + 0.2 * np.cos(v[:, [2, 0, 1]] / 6), f) for side, (v, f) in template.items()}
    labels = {"left": 1 + (left[:, 1] > 0), "right": 3 + (right[:, 1] > 0)}
    cortex = {side: np.ones(len(left), bool) for side in harmonics.SIDES}
    names, sides = ["LH_a", "LH_b", "RH_a", "RH_b"], np.array([0, 0, 1, 1])
    standard, _ = harmonics.solve(template, labels, cortex, names, sides, 12)
    own, metadata = harmonics.solve(subject, labels, cortex, names, sides, 12, template)
    for side in harmonics.SIDES:
        assert len(metadata[side]["template_correlation"]) == 12
        assert min(metadata[side]["template_correlation"][:6]) > 0.9
    columns = [np.stack([table[f"mode_{m:03d}"] for m in range(2, 8)]) for table in (standard, own)]
    assert np.corrcoef(columns[0].ravel(), columns[1].ravel())[0, 1] > 0.9


def test_surfaces_that_do_not_correspond_are_refused() -> None:
    values, vectors, metadata = eigenmodes.modes(*icosphere(2, 50.0), 5)
    with pytest.raises(DataError, match="the same mesh"):
        align_modes.align(values, vectors[:-1], values, vectors, metadata["vertex_areas_mm2"])
