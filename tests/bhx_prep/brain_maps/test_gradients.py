from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from bhx_prep.brain_maps import gradients, join


def series(n_rois: int = 40, frames: int = 120, seed: int = 0) -> np.ndarray:
    """Rows on a ring whose neighbours share signal."""
    rng = np.random.default_rng(seed)
    place = np.linspace(0, 2 * np.pi, n_rois, endpoint=False)
    near = np.exp(4 * np.cos(place[:, None] - place) - 4)
    return (
        near @ rng.standard_normal((n_rois, frames)) + 0.1 * rng.standard_normal((n_rois, frames))
    ).astype("f4")


def up_to_sign(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.minimum(np.abs(found - expected).max(axis=0), np.abs(found + expected).max(axis=0)).max())


def walk(affinity: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The definition, written down without the symmetric detour."""
    density = np.diag(affinity.sum(axis=1) ** -0.5)
    weight = density @ affinity @ density
    values, vectors = exact_eigsh(np.diag(1 / weight.sum(axis=1)) @ weight, n + 1)
    values, vectors = values[::-1], vectors[:, ::-1]
    return (vectors / vectors[:, [0]])[:, 1:] * (values / (1 - values))[1:], (values / (1 - values))[1:]


def test_diffusion_map_is_that_of_the_random_walk() -> None:
    # a random graph: on a ring eigenvalues come in pairs, and no vector of a pair is the right one
    affinity = gradients.affinity(np.random.default_rng(1).uniform(-1, 1, (40, 40)))
    found, values = gradients.diffusion_map(affinity, 12)
    expected, expected_values = walk(affinity, 12)
    np.testing.assert_allclose(values, expected_values, rtol=1e-9)
    assert up_to_sign(found, expected) < 1e-9
    assert (found[np.abs(found).argmax(axis=0), np.arange(12)] > 0).all()


def exact_eigsh(matrix: np.ndarray, k: int, **_) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = scipy.linalg.eig(matrix)
    order = np.argsort(values.real)[-k:]
    return values.real[order], vectors.real[:, order]


@pytest.mark.parametrize(("exact", "tolerance"), [(True, 1e-9), (False, 1.5e-2)])
def test_equal_to_brainspace(monkeypatch: pytest.MonkeyPatch, exact: bool, tolerance: float) -> None:
    """On the HCP group connectivity that BrainSpace carries: equal once its solver fits its matrix, near as it is."""
    brainspace = pytest.importorskip("brainspace.gradient", exc_type=ImportError)
    (package,) = importlib.util.find_spec("brainspace").submodule_search_locations
    matrix = Path(package) / "datasets/matrices/main_group/schaefer_400_mean_connectivity_matrix.csv"
    connectivity = np.loadtxt(matrix, delimiter=",")
    if exact:
        monkeypatch.setattr(brainspace.embedding, "eigsh", exact_eigsh)
    theirs = brainspace.GradientMaps(
        n_components=30, approach="dm", kernel="normalized_angle", random_state=0
    )
    theirs.fit(connectivity, sparsity=gradients.SPARSITY)
    found, values = gradients.diffusion_map(gradients.affinity(connectivity), 30)
    assert up_to_sign(found, theirs.gradients_) < tolerance
    np.testing.assert_allclose(values, theirs.lambdas_, atol=tolerance)


def test_connectivity_is_numpys_and_allows_for_missing_rois() -> None:
    one, two = series(6, seed=1), series(6, seed=2)
    two[3], two[5] = np.nan, 7.0
    mean, n = gradients.mean_connectivity([one, two], 6)
    z = [np.arctanh(np.corrcoef(run) - np.eye(len(run))) for run in (one, two[:3])]
    assert n == 2
    np.testing.assert_allclose(mean[0, 1], np.tanh((z[0][0, 1] + z[1][0, 1]) / 2), rtol=1e-9)
    np.testing.assert_allclose(mean[3, 5], np.tanh(z[0][3, 5]), rtol=1e-9)
    assert (np.diag(mean) == 1).all()
    assert np.isnan(gradients.mean_connectivity([two], 6)[0][3, 0])


def run_main(
    tmp_path: Path, indices: list[Path], subjects: list[str], components: int = 3
) -> tuple[dict, dict]:
    split, out = tmp_path / "pretrain.json", tmp_path / "gradients.parquet"
    split.write_text(json.dumps({"train": subjects}))
    args = [
        "--shards",
        *map(str, indices),
        "--split",
        str(split),
        "--components",
        str(components),
        "--out",
        str(out),
    ]
    assert gradients.main(args) == 0
    return join.read_table(out)


def test_table_and_bytes_do_not_depend_on_the_order_of_arguments(make_shards, tmp_path: Path) -> None:
    indices = [
        make_shards(c, [{"sub-1_task-rest": series(seed=s)}], n_rois=40)
        for s, c in enumerate(("lemon", "patients"))
    ]
    columns, metadata = run_main(tmp_path, indices, ["lemon/1", "patients/1"])
    first = (tmp_path / "gradients.parquet").read_bytes()
    assert list(columns) == ["name", "gradient_01", "gradient_02", "gradient_03"]
    assert metadata["runs"] == 2
    run_main(tmp_path, indices[::-1], ["patients/1", "lemon/1"])
    assert (tmp_path / "gradients.parquet").read_bytes() == first


def test_an_roi_without_coverage_lies_at_zero(make_shards, tmp_path: Path) -> None:
    run = series()
    run[7] = np.nan
    columns, metadata = run_main(
        tmp_path, [make_shards("lemon", [{"sub-1_task-rest": run}], n_rois=40)], ["lemon/1"]
    )
    assert metadata["uncovered"] == [columns["name"][7]]
    assert columns["gradient_01"][7] == 0
    assert np.count_nonzero(columns["gradient_01"]) == 39


@pytest.mark.parametrize("function", ["affinity", "training_table.Path.replace"])
def test_a_killed_step_gives_the_same_bytes_when_run_again(
    make_shards, tmp_path: Path, check_kill, function: str
) -> None:
    index = make_shards("lemon", [{"sub-1_task-rest": series()}], n_rois=40)
    (tmp_path / "s.json").write_text(json.dumps({"train": ["lemon/1"]}))
    words = ["--shards", str(index), "--split", str(tmp_path / "s.json"), "--components", "3", "--out"]
    check_kill("bhx_prep.brain_maps.gradients", function, 1, lambda out: [*words, str(out / "g.parquet")])


@pytest.mark.parametrize(
    ("subjects", "components", "words"), [(["lemon/8"], 3, "no BOLD run"), (["lemon/1"], 39, "1 to 38")]
)
def test_what_cannot_be_is_one_sentence(
    make_shards, tmp_path: Path, subjects, components, words, capsys
) -> None:
    index = make_shards("lemon", [{"sub-1_task-rest": series()}], n_rois=40)
    (tmp_path / "s.json").write_text(json.dumps({"train": subjects}))
    args = ["--shards", str(index), "--split", str(tmp_path / "s.json"), "--components", str(components)]
    assert gradients.main([*args, "--out", str(tmp_path / "g.parquet")]) == 1
    assert words in capsys.readouterr().err
