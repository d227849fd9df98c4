from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from feature_files import as_stored
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bhx_model.errors import DataError
from bhx_prep.brain_maps import join, normaliser

FLOATS = st.floats(-1e6, 1e6, width=32, allow_subnormal=True)


@st.composite
def some_runs(draw: st.DrawFn) -> list[np.ndarray]:
    n_rois = draw(st.integers(1, 3))
    values = FLOATS | st.just(float("nan")) | st.sampled_from([0.0, -0.0, 1.0])
    return [
        draw(hnp.arrays(np.float32, (n_rois, draw(st.integers(1, 9))), elements=values))
        for _ in range(draw(st.integers(1, 4)))
    ]


def expected(runs: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate(runs, axis=1).astype(np.float64)
    rows = [row[~np.isnan(row)] for row in joined]
    return np.array([np.quantile(r, normaliser.QUANTILES) if len(r) else [np.nan] * 3 for r in rows]).T


@settings(max_examples=60)
@given(some_runs())
def test_quartiles_are_numpys(runs: list[np.ndarray]) -> None:
    found, n = normaliser.quantiles(lambda: runs, len(runs[0]))
    np.testing.assert_allclose(found, expected(runs), rtol=1e-12)
    np.testing.assert_array_equal(n, sum((~np.isnan(run)).sum(axis=1) for run in runs))


def test_order_and_cut_of_the_runs_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    runs = [(9000 + 300 * rng.standard_normal((5, t))).astype(np.float32) for t in (40, 7, 90)]
    first, _ = normaliser.quantiles(lambda: runs, 5)
    monkeypatch.setattr(normaliser, "_BLOCK", 10)
    second, _ = normaliser.quantiles(lambda: runs[::-1], 5)
    assert first.tobytes() == second.tobytes()


def test_infinite_values_are_refused() -> None:
    with pytest.raises(DataError, match="infinite"):
        normaliser.quantiles(lambda: [np.full((2, 3), np.inf, np.float32)], 2)


def fitted(tmp_path: Path, index: Path, subjects: list[str]) -> tuple[dict, dict]:
    split = tmp_path / "pretrain.json"
    split.write_text(json.dumps({"train": subjects, "holdout": []}))
    out = tmp_path / "normaliser.parquet"
    assert normaliser.main(["--shards", str(index), "--split", str(split), "--out", str(out)]) == 0
    return join.read_table(out)


def test_only_training_subjects_count(make_shards, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    series = {f"sub-{i}_task-rest": (i + rng.standard_normal((6, 30))).astype(np.float32) for i in (1, 2, 9)}
    index = make_shards("lemon", [series])
    columns, metadata = fitted(tmp_path, index, ["lemon/1", "lemon/2"])
    low, median, high = expected([as_stored(series[f"sub-{i}_task-rest"]) for i in (1, 2)])
    np.testing.assert_array_equal(columns["median"], median.astype(np.float32))
    np.testing.assert_array_equal(columns["iqr"], (high - low).astype(np.float32))
    assert columns["n"].tolist() == [60] * 6
    assert metadata["atlas"] == "Schaefer17n100p"


@pytest.mark.parametrize("function", ["quantiles", "training_table.Path.replace"])
def test_a_killed_step_gives_the_same_bytes_when_run_again(
    make_shards, tmp_path: Path, check_kill, function: str
) -> None:
    run = np.random.default_rng(1).standard_normal((6, 30)).astype(np.float32)
    index = make_shards("lemon", [{"sub-1_task-rest": run}])
    (tmp_path / "s.json").write_text(json.dumps({"train": ["lemon/1"]}))
    words = ["--shards", str(index), "--split", str(tmp_path / "s.json"), "--out"]
    check_kill("bhx_prep.brain_maps.normaliser", function, 1, lambda out: [*words, str(out / "n.parquet")])


def test_dead_rois_keep_their_scale_and_are_listed(make_shards, tmp_path: Path) -> None:
    series = np.random.default_rng(1).standard_normal((6, 30)).astype(np.float32)
    series[2], series[4] = np.nan, 5
    columns, metadata = fitted(tmp_path, make_shards("lemon", [{"sub-1_task-rest": series}]), ["lemon/1"])
    assert metadata["uncovered"] == [columns["name"][2]]
    assert metadata["constant"] == [columns["name"][4]]
    assert columns["iqr"][[2, 4]].tolist() == [1, 1]
    assert columns["median"][[2, 4]].tolist() == [0, 5]
    assert (columns["iqr"] > 0).all()


def test_a_split_without_series_is_one_sentence(make_shards, tmp_path: Path, capsys) -> None:
    index = make_shards("lemon", [{"sub-1_task-rest": np.ones((6, 9), np.float32)}])
    split = tmp_path / "pretrain.json"
    split.write_text('{"train": ["lemon/5"]}')
    args = ["--shards", str(index), "--split", str(split), "--out", str(tmp_path / "n.parquet")]
    assert normaliser.main(args) == 1
    assert "no ROI of the 1 subjects" in capsys.readouterr().err
    assert not list(tmp_path.glob("n.parquet*"))
