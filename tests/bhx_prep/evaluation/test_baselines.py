from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from feature_files import as_stored
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from bhx_model.evaluation import feature_table, prediction_file
from bhx_model.evaluation.labels import Labels
from bhx_model.evaluation.methods import METHODS, NETWORKS
from bhx_model.evaluation.metrics import metrics_of
from bhx_prep.evaluation.baselines import __main__ as command
from bhx_prep.evaluation.baselines import connectivity, span
from bhx_prep.evaluation.baselines.evaluate import fit
from bhx_prep.shards import read

N = 40


def planted(effect: float, value: np.ndarray) -> dict[str, np.ndarray]:
    """Series of N subjects; the coupling of ROIs 0 and 1 follows `value`."""
    rng = np.random.default_rng(0)
    subjects = {}
    for i in range(N):
        series = rng.standard_normal((6, 150))
        series[1] += effect * value[i] * series[0]
        subjects[f"sub-{i:02d}_task-rest"] = series.astype(np.float32)
    return subjects


def split_of(kind: str, label: np.ndarray) -> dict:
    names = ("train", "train", "train", "val", "test")
    rows = [{"subject": f"{i:02d}", "label": label[i].item(), "split": names[(i // 2) % 5]} for i in range(N)]
    classes = [] if kind == "regression" else [f"c{c}" for c in range(int(label.max()) + 1)]
    return {
        "endpoint": "e",
        "cohort": "clinic",
        "kind": kind,
        "classes": classes,
        "seed": 3,
        "rows": rows,
        "excluded": [],
    }


def run(
    make_shards,
    tmp_path: Path,
    kind: str,
    label: np.ndarray,
    effect: float = 1.0,
    method: str = "fc",
) -> tuple[dict, prediction_file.PredictionTable]:
    index = make_shards("clinic", [planted(effect, label.astype(float))])
    (tmp_path / "seed-3.json").write_text(json.dumps(split_of(kind, label)))
    out, features = tmp_path / "fc", tmp_path / "features.npz"
    read = ["--kind", METHODS[method].array, "--shards", str(index), "--out", str(features)]
    assert connectivity.main(read) == 0
    args = ["--labels", str(tmp_path / "seed-3.json"), "--features", str(features), "--out", str(out)]
    args += ["--method", method]
    assert command.main(args) == 0
    first = [(out / name).read_bytes() for name in ("metrics.json", "predictions.parquet")]
    assert command.main(args) == 0
    assert [(out / name).read_bytes() for name in ("metrics.json", "predictions.parquet")] == first
    return json.loads((out / "metrics.json").read_text()), prediction_file.read(out / "predictions.parquet")


def test_a_planted_group_difference_is_found(make_shards, tmp_path: Path) -> None:
    found, rows = run(make_shards, tmp_path, "binary", np.arange(N) % 2)
    assert found["metrics"]["balanced_accuracy"] == 1
    assert found["metrics"]["auroc"] == 1
    assert found["constant"]["accuracy"] == 0.5
    assert (found["experiment"], found["method"], found["seed"], found["synthetic"]) == (None, "fc", 3, True)
    assert (found["n_train"], found["n_val"], found["n_test"]) == (24, 8, 8)
    assert list(rows.people) == [f"clinic/{i:02d}" for i in range(N)]
    test = rows.of("test")
    assert np.mean(rows.truth[test] == rows.prediction[test]) == found["metrics"]["accuracy"]
    assert ((rows.scores[:, 1] > 0.5) == (rows.prediction == 1)).all()


CONNECTIVITY = [name for name, method in METHODS.items() if method.reads == "connectivity"]


@pytest.mark.parametrize("method", sorted({*CONNECTIVITY} - {"fc", "permuted", *NETWORKS}))
def test_every_model_of_every_connectivity_finds_what_is_planted(
    make_shards, tmp_path: Path, method: str
) -> None:
    found, rows = run(make_shards, tmp_path, "binary", np.arange(N) % 2, effect=1.5, method=method)
    assert found["metrics"]["auroc"] > 0.7
    assert found["method"] == method
    assert set(rows.prediction) == {0, 1}


@pytest.mark.parametrize("method", ["fc_svm", "fc_kernel_ridge", "fc_tangent"])
def test_every_model_predicts_a_planted_gradient(make_shards, tmp_path: Path, method: str) -> None:
    label = np.random.default_rng(1).uniform(0, 2, N)
    found, _ = run(make_shards, tmp_path, "regression", label, method=method)
    assert found["metrics"]["pearson_r"] > 0.6
    assert found["metrics"]["mae"] < found["constant"]["mae"]


@pytest.mark.parametrize("method", ["fc_svm", "fc_kernel_ridge"])
def test_every_model_separates_several_classes(make_shards, tmp_path: Path, method: str) -> None:
    found, _ = run(make_shards, tmp_path, "multiclass", np.arange(N) // 2 % 3, effect=0.8, method=method)
    assert found["metrics"]["balanced_accuracy"] > found["constant"]["balanced_accuracy"]


def test_of_permuted_labels_nothing_is_learned_and_the_test_labels_are_true(
    make_shards, tmp_path: Path
) -> None:
    label = np.arange(N) % 2
    found, rows = run(make_shards, tmp_path, "binary", label, effect=1.5, method="permuted")
    assert 0.1 < found["metrics"]["auroc"] < 0.9
    assert rows.truth.tolist() == label.tolist()


def test_without_effect_there_is_no_result(make_shards, tmp_path: Path) -> None:
    found, _ = run(make_shards, tmp_path, "binary", np.arange(N) % 2, effect=0.0)
    assert 0.1 < found["metrics"]["auroc"] < 0.9


def test_several_classes(make_shards, tmp_path: Path) -> None:
    found, rows = run(make_shards, tmp_path, "multiclass", np.arange(N) // 2 % 3, effect=0.8)
    assert found["metrics"]["balanced_accuracy"] > found["constant"]["balanced_accuracy"]
    assert set(rows.prediction) <= {0, 1, 2}


def test_a_planted_gradient_is_found(make_shards, tmp_path: Path) -> None:
    label = np.random.default_rng(1).uniform(0, 2, N)
    found, rows = run(make_shards, tmp_path, "regression", label)
    assert found["metrics"]["pearson_r"] > 0.8
    assert found["metrics"]["mae"] < found["constant"]["mae"]
    assert set(found["metrics"]) == set(found["constant"]) == set(metrics_of("regression"))
    assert (rows.scores[:, 0] == rows.prediction).all()


def test_few_dimensions_give_the_fit_of_all_features() -> None:
    rng = np.random.default_rng(0)
    x, label = rng.standard_normal((30, 200)).astype(np.float32), np.arange(30) % 2
    train = np.arange(30) < 20
    whole = StandardScaler().fit(x[train]).transform(x)
    whole /= np.sqrt((whole[train] ** 2).sum(axis=1).mean())
    few = span.coordinates(span.standardised(x, train), train)
    assert few.shape == (30, 19)
    few /= np.sqrt((few[train] ** 2).sum(axis=1).mean())
    for model in (Ridge(alpha=0.1), LogisticRegression(C=10.0, tol=1e-10, max_iter=5000)):
        predict = "predict_proba" if isinstance(model, LogisticRegression) else "predict"
        a, b = (getattr(model.fit(data[train], label[train]), predict)(data) for data in (few, whole))
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("value", [1.0, 2.2])
@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_features_that_are_the_same_for_all_trained_on_say_nothing(kind: str, value: float) -> None:
    x = np.full((30, 2), value, np.float32)
    x[25:] = 9
    labels = Labels(
        endpoint="e",
        cohort="clinic",
        kind=kind,  # pyright: ignore[reportArgumentType]
        classes=["a", "b"] if kind == "binary" else [],
        seed=0,
        subjects=[str(i) for i in range(30)],
        target=np.arange(30) % 2,
        split=np.array(["train"] * 16 + ["val"] * 6 + ["test"] * 8),
    )
    scores, _ = fit(METHODS["acquisition"], x, labels)
    np.testing.assert_allclose(scores, 0.5, atol=1e-6)


def test_runs_are_averaged_and_gaps_are_known(make_shards) -> None:
    rng = np.random.default_rng(0)
    one, two = (rng.standard_normal((6, 50)).astype(np.float32) for _ in range(2))
    two[5] = np.nan
    index = make_shards(
        "clinic", [{"sub-1_task-rest_run-1": one, "sub-1_task-rest_run-2": two, "sub-2_task-rest": two}]
    )
    found = connectivity.compute(read.read_index(index), "correlation").rows(["clinic/2", "clinic/1"], "run")
    pairs = list(zip(*np.triu_indices(6, 1), strict=True))
    z1, z2 = (np.arctanh(np.corrcoef(as_stored(s)[:5]) - np.eye(5)) for s in (one, two))
    np.testing.assert_allclose(found[1][pairs.index((0, 1))], (z1[0, 1] + z2[0, 1]) / 2, rtol=1e-5)
    assert np.isnan(found[0][pairs.index((0, 5))])
    assert np.isfinite(found[1]).all()
    both = np.array([True, True])
    assert np.isfinite(span.coordinates(span.standardised(found, both), both)).all()


@pytest.mark.parametrize(
    ("kind", "column", "refused"),
    [
        ("binary", lambda label: label, True),
        ("binary", lambda label: 2 - label, True),  # another code
        ("binary", lambda label: np.where(np.arange(N) < 20, np.nan, label), True),
        ("binary", lambda label: label + np.random.default_rng(0).normal(size=N), False),
        (
            "binary",
            lambda label: label + 0.001 * np.arange(N),
            False,
        ),  # a perfect volume is none of few codes
        ("binary", lambda label: np.arange(N) // 2 % 2, False),
        ("regression", lambda label: 12 * label + 3, True),
        ("regression", lambda label: label + np.random.default_rng(0).normal(size=N), False),
    ],
)
def test_a_label_among_the_volumes_is_refused(
    tmp_path: Path, capsys, kind: str, column, refused: bool
) -> None:
    label = np.arange(N) % 2 if kind == "binary" else np.random.default_rng(1).normal(size=N)
    (tmp_path / "l.json").write_text(json.dumps(split_of(kind, label)))
    values = np.stack([np.random.default_rng(2).normal(4000, 300, N), column(label)], axis=1)
    people = [f"clinic/{i:02d}" for i in range(N)]
    table = feature_table.FeatureTable(
        "volumes", True, ("clinic",), people, ["hippocampus", "dx"], values.astype(np.float32)
    )
    feature_table.write(table, tmp_path / "v.npz")
    words = [
        "--method",
        "volumes",
        "--labels",
        str(tmp_path / "l.json"),
        "--features",
        str(tmp_path / "v.npz"),
    ]
    assert command.main([*words, "--out", str(tmp_path / "o")]) == int(refused)
    said = "dx of the table of volumes is the label of e, or tells it of everybody"
    assert (said in capsys.readouterr().err) is refused
    assert (tmp_path / "o").exists() is not refused


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cohort": "town"}, "the labels are of cohort town"),
        ({"rows": None}, "have no run in the shards"),
        ({"rows": []}, "no subject in the train split of e has a label"),
        ({"kind": "ordinal"}, "2 classes do not make an endpoint of kind 'ordinal'"),
    ],
)
def test_labels_that_do_not_fit_are_one_sentence(
    make_shards, tmp_path: Path, change: dict, says: str, capsys
) -> None:
    index = make_shards("clinic", [planted(1, np.zeros(N))])
    labels = split_of("binary", np.arange(N) % 2) | change
    if labels["rows"] is None:
        rows = split_of("binary", np.arange(N) % 2)["rows"]
        labels["rows"] = [row | {"subject": f"9{row['subject']}"} for row in rows]
    (tmp_path / "l.json").write_text(json.dumps(labels))
    features = tmp_path / "f.npz"
    assert connectivity.main(["--kind", "correlation", "--shards", str(index), "--out", str(features)]) == 0
    args = ["--labels", str(tmp_path / "l.json"), "--features", str(features), "--out", str(tmp_path / "o")]
    assert command.main([*args, "--method", "fc"]) == 1
    assert says in capsys.readouterr().err
