"""Surfaces on which the operator is not defined are refused, and cutting keeps whole triangles."""

from __future__ import annotations

import numpy as np
import pytest
from meshes import icosphere, write_surface

from bhx_model.errors import DataError
from bhx_prep.brain_maps import surfaces


def faulty(kind: str) -> tuple[np.ndarray, np.ndarray]:
    v, f = icosphere(1)
    n = len(v)
    if kind == "nan":
        v[3, 1] = np.nan
    elif kind == "range":
        f = f + 5
    elif kind == "flat":
        v[f[0][1]] = v[f[0][0]]
    elif kind == "unused":
        v = np.concatenate([v, [[9.0, 9, 9]]])
    elif kind == "edge":
        v, f = np.concatenate([v, [[3.0, 3, 3]]]), np.concatenate([f, [[f[0][0], f[0][1], n]]])
    elif kind == "pieces":
        v, f = np.concatenate([v, v + 5]), np.concatenate([f, f + n])
    elif kind == "touch":
        # two of the triangles around a vertex, not neighbours, are taken out
        ring = f[(f == f[0][0]).any(axis=1)]
        other = next(t for t in ring if len(np.intersect1d(t, f[0])) == 1)
        f = np.array([t for t in f if not (np.array_equal(t, f[0]) or np.array_equal(t, other))])
    elif kind == "shape":
        v = v[:, :2]
    return v, f


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nan", "1 vertices have no coordinates"),
        ("range", "triangles name vertices outside 0 to 41"),
        ("flat", "triangles have no area"),
        ("unused", r"1 vertices are in no triangle \(the first is 42\)"),
        ("edge", "more than two triangles"),
        ("pieces", r"2 pieces of \[42, 42\] vertices"),
        ("touch", "boundaries touch at 1 vertices"),
        ("shape", r"these are \(42, 2\)"),
    ],
)
def test_faulty_surface_is_refused(kind: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        surfaces.check_mesh(*faulty(kind))


def test_cut_keeps_whole_triangles_and_refuses_holes() -> None:
    v, f = icosphere(2)
    part, triangles, kept = surfaces.cut(v, f, v[:, 0] > -0.5)
    np.testing.assert_array_equal(part, v[kept])
    assert (part[:, 0] > -0.5).all()
    assert surfaces.check_mesh(part, triangles).boundaries == 1
    with pytest.raises(DataError, match="1 holes where it should be closed"):
        surfaces.cut(v, f[1:], np.ones(len(v), bool))
    with pytest.raises(DataError, match="mask of this surface"):
        surfaces.cut(v, f, np.ones(5, bool))


def test_a_surface_is_read_as_it_was_written(tmp_path) -> None:
    vertices, triangles = icosphere(1)
    write_surface(tmp_path / "a.surf.gii", vertices, triangles)
    found = surfaces.read_surface(tmp_path / "a.surf.gii")
    np.testing.assert_array_equal(found[0], vertices.astype(np.float32))
    np.testing.assert_array_equal(found[1], triangles)
    (tmp_path / "b.surf.gii").write_text("no surface")
    with pytest.raises(DataError, match="no GIfTI surface"):
        surfaces.read_surface(tmp_path / "b.surf.gii")
