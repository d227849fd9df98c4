"""The evaluation of an endpoint from its command line: every method, and labels and tokens that do not fit."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
from tiny_shards import evaluation_words, write_labels

from bhx_model.evaluation import __main__ as command
from bhx_model.evaluation import prediction_file
from bhx_model.evaluation.metrics import metrics_of
from bhx_model.file_hash import file_sha256

QUICK = ("--set", '{"epochs": 4, "warmup_epochs": 1}')


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize(
    ("method", "more"),
    [("probe", ()), ("hub_tokens", ()), ("covariance", ()), ("attentive", QUICK), ("finetune", QUICK)],
)
def test_an_endpoint_is_predicted(trained, tmp_path, kind, method, more):
    labels = write_labels(tmp_path / "labels.json", "town", range(12), kind)
    assert command.main(evaluation_words(trained, tmp_path / "out", method, labels, more)) == 0
    card = json.loads((tmp_path / "out/metrics.json").read_text())
    assert {k: card[k] for k in ("experiment", "endpoint", "method", "seed", "kind", "synthetic")} == {
        "experiment": "demo", "endpoint": "trait", "method": method, "seed": 0, "kind": kind, "synthetic": True,
    }  # fmt: skip
    assert card["metrics"].keys() == card["constant"].keys() - {"f1_all_positive"} == set(metrics_of(kind))
    # subject 11 has no T1
    assert card["excluded"] == [{"subject": "011", "reason": "no tokens: a modality is missing"}]
    assert (card["n_train"], card["n_val"], card["n_test"]) == (6, 3, 2)
    rows = prediction_file.read(tmp_path / "out/predictions.parquet")
    assert list(rows.people) == [f"town/{n:03d}" for n in range(11)]
    assert card["people_sha256"] == prediction_file.people_sha256(reversed(rows.people))
    assert card["split_sha256"] == hashlib.sha256(labels.read_bytes()).hexdigest()
    test = rows.of("test")
    if kind != "regression":
        assert card["metrics"]["accuracy"] == np.mean(rows.truth[test] == rows.prediction[test])
        assert rows.scores.sum(axis=1) == pytest.approx(1, abs=1e-6)
    else:
        assert card["metrics"]["mae"] == pytest.approx(np.abs(rows.truth - rows.prediction)[test].mean())
        assert (rows.scores[:, 0] == rows.prediction).all()


def function_words(path, trained, out, method, labels, more=()):
    """Arguments of an evaluation of function tokens."""
    return [
        "--method", method, "--function-tokens", str(path), "--function", str(trained["function"]),
        "--labels", str(labels), "--seed", "0", "--experiment", "demo", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("suffix", ["", "_untrained"])
@pytest.mark.parametrize(
    ("readout", "more"), [("mean", ()), ("regions", ()), ("covariance", ()), ("attentive", QUICK)]
)
def test_an_endpoint_is_predicted_from_token_readouts(
    trained, function_tokens, tmp_path, kind, suffix, readout, more
):
    """Fewer subjects than features; the one without a T1 counts, for none is read."""
    labels = write_labels(tmp_path / "labels.json", "town", range(12), kind)
    method = f"function_{readout}{suffix}"
    assert command.main(function_words(function_tokens, trained, tmp_path / "out", method, labels, more)) == 0
    card = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (card["method"], card["synthetic"], card["excluded"]) == (method, True, [])
    assert (card["n_train"], card["n_val"], card["n_test"]) == (6, 4, 2)
    # so few steps may predict nearly the mean for everybody, which has no calibration slope
    assert all(np.isfinite([v for name, v in card["metrics"].items() if name != "calibration_slope"]))
    assert ("strength" in card) == (readout != "attentive")


def test_trained_and_untrained_weights_predict_differently(trained, function_tokens, tmp_path):
    for name in ("regions", "regions_untrained"):
        words = function_words(
            function_tokens, trained, tmp_path / name, f"function_{name}", trained["labels"]
        )
        assert command.main(words) == 0
    one, other = (
        (tmp_path / n / "predictions.parquet").read_bytes() for n in ("regions", "regions_untrained")
    )
    assert one != other


def test_function_tokens_of_other_weights_are_refused(trained, function_tokens, tmp_path, capsys):
    places = {**trained, "function": trained["structure"]}
    words = function_words(function_tokens, places, tmp_path / "out", "function_mean", trained["labels"])
    assert command.main(words) == 1
    assert "are tokens of other weights than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("probe", "name the trained fusion with --fusion"),
        ("function_mean", "name their file with --function-tokens"),
    ],
)
def test_what_a_method_reads_has_to_be_named(trained, tmp_path, capsys, method, sentence):
    words = ["--method", method, "--labels", str(trained["labels"]), "--seed", "0", "--experiment", "demo"]
    assert command.main([*words, "--out", str(tmp_path / "out")]) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cohort": "ward"}, "labels of cohort ward, tokens of town"),
        ({"seed": 1}, "is the split of seed 1, not 0"),
        (
            {"rows": [{"subject": "000", "label": 0, "split": "train"}]},
            "no subject in the val split of trait has tokens",
        ),
        ({"rows": None}, "classes and rows are no lists: make the split again"),
        ({"kind": "ordinal"}, "2 classes do not make an endpoint of kind 'ordinal'"),
        ({"kind": "regression"}, "2 classes do not make an endpoint of kind 'regression'"),
        ({"classes": ["control"]}, "1 classes do not make an endpoint of kind 'binary'"),
        ({"kind": ["binary"]}, "2 classes do not make an endpoint of kind ['binary']"),
        ({"classes": [1, 2]}, "the names of the classes are no texts, or two are equal"),
        ({"classes": ["control", "control"]}, "the names of the classes are no texts, or two are equal"),
        ({"inner_folds": "five"}, "inner_folds is 'five', no whole number of 0 or more"),
        ({"inner_folds": -1}, "inner_folds is -1, no whole number of 0 or more"),
        ({"refit": "yes"}, "refit is 'yes', neither true nor false"),
        ({"protocol": 3}, "protocol is no text"),
        (
            {"adjustments": ["magic"]},
            "adjustments is ['magic'], no list of some of calibrate, class_weights, threshold",
        ),
        ({"adjustments": "threshold"}, "adjustments is 'threshold', no list of some of"),
        ({"metrics_first": ["mae"]}, "metrics_first is ['mae'], no list of some of accuracy"),
        (lambda rows: rows[0].pop("split"), "a row has not subject, label and split"),
        (lambda rows: rows.append({**rows[0], "split": "test"}), "the subject '000' is there twice"),
        (
            lambda rows: rows[0].update(split="training"),
            "000 is in the split 'training', there are train, val, test",
        ),
        (
            lambda rows: rows[0].update(label="patient"),
            "000 has the label 'patient', a class number was expected",
        ),
        (lambda rows: rows[0].update(label=2), "000 has the label 2, a class number"),
        (lambda rows: rows[0].update(label=None), "000 has the label None"),
        (lambda rows: rows[0].update(label=10**400), "000 has the label 1000"),
        (
            lambda rows: [row.update(label=1) for row in rows if row["split"] == "train"],
            "trait are of one class",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(trained, tmp_path, capsys, change, sentence):
    labels = json.loads(trained["labels"].read_text())
    if callable(change):
        change(labels["rows"])
    else:
        labels |= change
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    assert command.main(evaluation_words(trained, tmp_path / "out", labels=tmp_path / "labels.json")) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tokens_of_other_encoders_are_refused(trained, tmp_path, capsys):
    out = shutil.copytree(trained["tokens_town"].parent, tmp_path / "town") / "index.json"
    metadata = json.loads(out.read_text())
    metadata["encoders"]["structure"] = "0" * 64
    out.write_text(json.dumps(metadata))
    assert command.main(evaluation_words({**trained, "tokens_town": out}, tmp_path / "out")) == 1
    assert "other encoders than the fusion was trained on" in capsys.readouterr().err


def test_unknown_settings_of_the_fine_tuning_are_refused(trained, tmp_path, capsys):
    more = ("--set", '{"epoch": 3}')
    assert command.main(evaluation_words(trained, tmp_path / "out", "finetune", more=more)) == 1
    assert "did you mean 'epochs'" in capsys.readouterr().err


def test_a_fusion_that_does_not_name_its_encoders_is_refused(trained, tmp_path, capsys):
    folder = shutil.copytree(trained["fusion"], tmp_path / "fusion")
    run = json.loads((folder / "run.json").read_text())
    del run["model_metadata"]["encoders"]
    (folder / "run.json").write_text(json.dumps(run))
    assert command.main(evaluation_words({**trained, "fusion": folder}, tmp_path / "out")) == 1
    assert "do not make a fusion model (KeyError('encoders'))" in capsys.readouterr().err


def test_the_reference_scores_as_the_published_code(trained, tmp_path, capsys):
    """It chooses on the test subjects, reports on the validation subjects, and averages scores of batches."""
    words = {
        name: evaluation_words(
            trained, tmp_path / name, more=("--preset", name, "--overlap", str(tmp_path / "overlap.json"))
        )
        for name in ("base", "reference")
    }
    counts = {"n_tested": 3, "n_overlap": 1, "shared": {"the same scan": 1}}
    overlap = {"known": True, "seeds": {"0": counts | {"n_overlap": 0, "shared": {}}}}
    (tmp_path / "overlap.json").write_text(json.dumps(overlap))
    assert command.main(words["reference"]) == 1
    assert (
        "does not say which validation subjects of seed 0 are in the pretraining" in capsys.readouterr().err
    )
    (tmp_path / "overlap.json").write_text(json.dumps(overlap | {"seeds_of_validation": {"0": counts}}))
    cards = {}
    for name, arguments in words.items():
        assert command.main(arguments) == 0
        cards[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    assert (cards["base"]["choose_on"], cards["base"]["scores_over"]) == ("val", "dataset")
    assert (cards["reference"]["choose_on"], cards["reference"]["scores_over"]) == ("test", "batches")
    assert cards["base"]["weights"] == {"fusion": file_sha256(trained["fusion"] / "model.safetensors")}
    assert cards["base"]["made_with"]["packages"]["torch"]
    assert {name: card["pretraining_overlap"]["n_overlap"] for name, card in cards.items()} == {
        "base": 0,
        "reference": 1,
    }
    assert (cards["base"]["n_val"], cards["base"]["n_test"]) == (3, 2)
    assert (cards["reference"]["n_val"], cards["reference"]["n_test"]) == (2, 3)


def test_another_cohort_is_tested_and_rows_say_what_of_it_the_weights_have_seen(trained, tmp_path):
    labels = json.loads(write_labels(tmp_path / "labels.json", "town", range(12), "binary").read_text())
    own = [row | {"split": "val" if row["split"] == "test" else row["split"]} for row in labels["rows"]]
    # labels of the one cohort are someone else's in the other
    others = [{"subject": f"{n:03d}", "label": n % 2, "split": "test", "cohort": "ward"} for n in range(4)]
    (tmp_path / "labels.json").write_text(json.dumps(labels | {"rows": own + others}))
    overlap = {"known": True, "seeds": {"0": {"n_tested": 4, "n_overlap": 3, "shared": {"the same scan": 3}}}}
    (tmp_path / "overlap.json").write_text(json.dumps(overlap))
    given = evaluation_words(trained, tmp_path / "out", "probe", tmp_path / "labels.json")
    given[given.index("--labels") : given.index("--labels")] = [str(trained["tokens_ward"])]
    assert command.main([*given, "--overlap", str(tmp_path / "overlap.json")]) == 0
    rows = prediction_file.read(tmp_path / "out/predictions.parquet")
    tested = [person for person, test in zip(rows.people, rows.of("test"), strict=True) if test]
    assert tested
    assert all(person.startswith("ward/") for person in tested)
    card = json.loads((tmp_path / "out/metrics.json").read_text())
    assert card["pretraining_overlap"] == {"known": True, **overlap["seeds"]["0"]}
    assert card["n_test"] == len(tested)


def test_tokens_of_a_cohort_that_is_tested_are_asked_for(trained, tmp_path, capsys):
    labels = json.loads(write_labels(tmp_path / "labels.json", "town", range(12), "binary").read_text())
    others = [{"subject": "000", "label": 0, "split": "test", "cohort": "ward"}]
    (tmp_path / "labels.json").write_text(json.dumps(labels | {"rows": labels["rows"] + others}))
    assert command.main(evaluation_words(trained, tmp_path / "out", labels=tmp_path / "labels.json")) == 1
    assert "labels of cohort ward, tokens of town" in capsys.readouterr().err
