"""The pattern that goes with a linear model's decision."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from bhx_model.data import npz
from bhx_model.errors import DataError
from bhx_model.evaluation import feature_table, prediction_file
from bhx_model.evaluation.feature_table import FeatureTable
from bhx_prep.evaluation import connectivity_pattern

N, ROIS = 80, 5
PAIRS = ROIS * (ROIS - 1) // 2


@pytest.fixture
def table() -> FeatureTable:
    """Pair 3 holds the label and noise of pair 4; pair 4 holds the noise alone; the last does not vary."""
    random = np.random.default_rng(0)
    values = random.normal(size=(N, PAIRS)).astype(np.float32)
    values[:, 3] = np.arange(N) % 2 + 0.5 * values[:, 4]
    values[:, -1] = 1.0
    people = [f"c/{i:03d}" for i in range(N)]
    return FeatureTable("correlation", False, ("c",), people, [f"roi-{i}" for i in range(ROIS)], values)


def predictions(path, decision, kind="binary"):
    """Of a model that decides by `decision`; every fourth subject is of the test split."""
    rows = []
    for i, value in enumerate(decision):
        p = 1 / (1 + np.exp(-value))
        probabilities = {"binary": [1 - p, p], "multiclass": [1 - p, 0.0, p], "regression": []}[kind]
        rows.append(
            {
                "subject": f"{i:03d}", "cohort": "c", "split": "test" if i % 4 == 3 else "train", "truth": float(i % 2),
                "prediction": value, "score": value if kind == "regression" else p, "probabilities": probabilities,
            }
        )  # fmt: skip
    prediction_file.write(path, rows)
    return path


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_it_is_the_correlation_with_the_decision(table, tmp_path, kind):
    """The best weights take pair 4 off pair 3; the pattern of pair 4, which says nothing about the label, is 0."""
    decision = table.values[:, 3] - 0.5 * table.values[:, 4]
    file = predictions(tmp_path / "p.parquet", decision.astype(float), kind)
    found = connectivity_pattern.pattern(table, prediction_file.read(file))
    train = np.arange(N) % 4 != 3
    assert found[3] == pytest.approx(np.corrcoef(table.values[train, 3], decision[train])[0, 1], abs=1e-3)
    assert found[3] > 0.5
    assert abs(found[4]) < 0.3
    assert found[-1] == 0


def test_what_is_missing_of_a_subject_is_the_mean(table, tmp_path):
    decision = table.values[:, 0].astype(float)
    file = predictions(tmp_path / "p.parquet", decision)
    table.values[1, 0] = np.nan
    found = connectivity_pattern.pattern(table, prediction_file.read(file))
    assert found[0] > 0.95
    assert np.isfinite(found).all()


def test_a_constant_decision_has_no_pattern(table, tmp_path):
    file = predictions(tmp_path / "p.parquet", np.zeros(N))
    assert (connectivity_pattern.pattern(table, prediction_file.read(file)) == 0).all()


def test_splits_are_averaged_and_compared(table, tmp_path):
    decision = table.values[:, 0].astype(float)
    one, other = (predictions(tmp_path / f"{s}.parquet", s * decision) for s in (1, -1))
    mean, agreement = connectivity_pattern.compute(table, [one, other])
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    assert agreement == pytest.approx(-1, abs=1e-5)
    assert connectivity_pattern.compute(table, [one])[1] is None


def test_the_command_writes_a_small_file_or_a_sentence(table, tmp_path, caplog):
    feature_table.write(table, tmp_path / "f.npz")
    file = predictions(tmp_path / "p.parquet", table.values[:, 0].astype(float))
    words = [
        "--predictions",
        str(file),
        "--features",
        str(tmp_path / "f.npz"),
        "--out",
        str(tmp_path / "out.npz"),
    ]
    assert connectivity_pattern.main(words) == 0
    arrays = npz.read(tmp_path / "out.npz", "")
    assert arrays["pattern"].shape == (PAIRS,)
    assert arrays["roi_names"].tolist() == table.columns
    assert json.loads(str(arrays["about"])) == {
        "agreement": None,
        "cohort": "c",
        "splits": 1,
        "synthetic": False,
    }
    feature_table.write(
        dataclasses.replace(table, what="volumes", columns=["one"] * PAIRS), tmp_path / "f.npz"
    )
    assert connectivity_pattern.main(words) == 1
    assert "holds volumes, not correlations of pairs of ROIs" in caplog.text


def test_a_subject_without_features_is_refused(table, tmp_path):
    file = predictions(tmp_path / "p.parquet", np.zeros(N))
    fewer = dataclasses.replace(table, people=table.people[:-3], values=table.values[:-3])
    with pytest.raises(DataError, match="have no run in the shards"):
        connectivity_pattern.pattern(fewer, prediction_file.read(file))
