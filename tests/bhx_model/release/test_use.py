"""From trained weights to predictions and to a folder that others can use."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from settings_files import settings_file
from tiny_shards import NAMES, write_labels, write_rois

import bhx_model
from bhx_model import config
from bhx_model.data import loader, shards, volumes
from bhx_model.evaluation import evaluate
from bhx_model.release import export
from bhx_model.training.trained import load_trained


def evaluate_words(trained, out, method="probe", labels=None, more=()):
    return [
        "--method", method, "--fusion", str(trained["fusion"]), "--tokens", str(trained["tokens_town"]),
        "--labels", str(labels or trained["labels"]), "--seed", "0", "--experiment", "demo", "--out", str(out), *more,
    ]  # fmt: skip


QUICK = ("--set", '{"epochs": 4, "warmup_epochs": 1}')


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize(("method", "more"), [("probe", ()), ("attentive", QUICK), ("finetune", QUICK)])
def test_an_endpoint_is_predicted(trained, tmp_path, kind, method, more):
    labels = write_labels(tmp_path / "labels.json", "town", range(12), kind)
    assert evaluate.main(evaluate_words(trained, tmp_path / "out", method, labels, more)) == 0
    card = json.loads((tmp_path / "out/metrics.json").read_text())
    assert {k: card[k] for k in ("experiment", "endpoint", "method", "seed", "kind", "synthetic")} == {
        "experiment": "demo", "endpoint": "trait", "method": method, "seed": 0, "kind": kind, "synthetic": True,
    }  # fmt: skip
    of_classes = {"accuracy", "balanced_accuracy", "f1", "auroc"}
    names = of_classes if kind != "regression" else {"mae", "pearson_r", "r2"}
    assert card["metrics"].keys() == card["trivial"].keys() == names
    # person 11 has no T1
    assert card["left_out"] == [{"subject": "011", "reason": "no tokens: a modality is missing"}]
    assert (card["n_train"], card["n_val"], card["n_test"]) == (6, 3, 2)
    with (tmp_path / "out/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["subject"] for row in rows] == [f"{n:03d}" for n in range(11)]
    assert set(rows[0]) == {"subject", "truth", "prediction", "score", "split"}
    test = [row for row in rows if row["split"] == "test"]
    if kind != "regression":
        right = np.mean([row["truth"] == row["prediction"] for row in test])
        assert card["metrics"]["accuracy"] == right
    else:
        error = np.mean([abs(float(row["truth"]) - float(row["prediction"])) for row in test])
        assert card["metrics"]["mae"] == pytest.approx(error)


def test_the_probe_finds_what_is_there_and_nothing_else():
    random = np.random.default_rng(0)
    n = 120
    target = random.integers(0, 2, n)
    split = np.array(["train"] * 60 + ["val"] * 30 + ["test"] * 30)
    labels = {"kind": "binary", "classes": ["a", "b"], "endpoint": "x", "seed": 0}
    subjects = [str(i) for i in range(n)]
    endpoint = evaluate.Endpoint(labels, subjects, target, split, [], np.arange(n), 20, [])
    noise = random.normal(size=(n, 40))
    planted = noise + target[:, None] * np.linspace(0, 1, 40)
    card, _ = evaluate.report(endpoint, evaluate.probe(endpoint, planted)[0])
    assert card["metrics"]["auroc"] > 0.9
    card, _ = evaluate.report(endpoint, evaluate.probe(endpoint, noise)[0])
    assert 0.25 < card["metrics"]["auroc"] < 0.75


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_the_attentive_probe_finds_the_token_that_tells(kind):
    random = np.random.default_rng(2)
    n = 160
    target = random.integers(0, 2, n) if kind == "binary" else random.normal(5, 3, n)
    split = np.array(["train"] * 100 + ["val"] * 30 + ["test"] * 30)
    classes = ["a", "b"] if kind == "binary" else []
    labels = {"kind": kind, "classes": classes, "endpoint": "x", "seed": 0}
    endpoint = evaluate.Endpoint(labels, [str(i) for i in range(n)], target, split, [], np.arange(n), 20, [])
    tokens = random.normal(size=(n, 16, 12))
    tokens[:, 3, :4] += 6  # it can be told apart from the others
    tokens[:, 3, 4:] += 2 * ((target - target.mean()) / target.std())[:, None]
    settings = config.Finetuning(epochs=40, lr=5e-3)
    scores, chosen = evaluate.attentive(endpoint, tokens, 2, settings, 0)
    assert 1 <= chosen["epoch"] <= 40
    found = evaluate.report(endpoint, scores)[0]["metrics"]
    assert found["auroc" if kind == "binary" else "pearson_r"] > 0.9
    again, _ = evaluate.attentive(endpoint, tokens, 2, settings, 0)
    np.testing.assert_array_equal(scores, again)


def test_what_is_chosen_does_not_look_at_the_test_people():
    random = np.random.default_rng(1)
    target = random.integers(0, 2, 60)
    split = np.array(["train"] * 30 + ["val"] * 15 + ["test"] * 15)
    labels = {"kind": "binary", "classes": ["a", "b"], "endpoint": "x", "seed": 0}
    features = random.normal(size=(60, 30)) + target[:, None]
    flipped = np.where(split == "test", 1 - target, target)
    subjects = [str(i) for i in range(60)]
    one, other = (
        evaluate.probe(evaluate.Endpoint(labels, subjects, y, split, [], np.arange(60), 20, []), features)
        for y in (target, flipped)
    )
    np.testing.assert_array_equal(one[0], other[0])
    assert one[1] == other[1]


def test_runs_of_a_person_are_averaged(trained):
    trained_fusion = load_trained(trained["fusion"], "fusion")
    tokens = evaluate.token_index.open_tokens(trained["tokens_town"])
    endpoint = evaluate.join(evaluate.read_labels(trained["labels"]), tokens)
    device = evaluate.torch.device("cpu")
    both = evaluate.hub_features(endpoint, trained_fusion, device)
    person = endpoint.subjects.index("000")
    runs = np.flatnonzero(endpoint.person == person)
    assert len(runs) == 2
    singly = []
    for dropped in runs:
        kept = [i for i in range(len(endpoint.runs)) if i != dropped]
        fewer = evaluate.dataclasses.replace(
            endpoint, runs=[endpoint.runs[i] for i in kept], person=endpoint.person[kept]
        )
        singly.append(evaluate.hub_features(fewer, trained_fusion, device)[person])
    np.testing.assert_allclose(both[person], np.mean(singly, axis=0), atol=1e-6)
    assert np.abs(singly[0] - singly[1]).max() > 1e-4


def test_a_batch_of_several_lengths_trains_as_one(trained, monkeypatch):
    """Runs of other lengths are parts of their own, and count by their number."""
    fusion = load_trained(trained["fusion"], "fusion")
    tokens = evaluate.token_index.open_tokens(trained["tokens_town"])
    endpoint = evaluate.join(evaluate.read_labels(trained["labels"]), tokens)
    settings = config.Finetuning(epochs=4, warmup_epochs=1, batch_size=4, drop_path=0.0, lr=5e-2)
    order = loader.epoch_batches

    def cut(buckets, **more):
        return [[batch[0][:1], batch[0][1:]] if batch[0][1:] else batch for batch in order(buckets, **more)]

    whole, _ = evaluate.finetune(endpoint, fusion, settings, 0, evaluate.torch.device("cpu"))
    monkeypatch.setattr(loader, "epoch_batches", cut)
    parts, _ = evaluate.finetune(endpoint, fusion, settings, 0, evaluate.torch.device("cpu"))
    np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_the_epoch_that_is_best_on_the_validation_people_predicts(trained, monkeypatch):
    fusion = load_trained(trained["fusion"], "fusion")
    tokens = evaluate.token_index.open_tokens(trained["tokens_town"])
    endpoint = evaluate.join(evaluate.read_labels(trained["labels"]), tokens)
    val, scored = endpoint.of("val"), []
    score, losses = evaluate._scores, iter([3.0, 1.0, 2.0, 1.5])
    monkeypatch.setattr(evaluate, "_scores", lambda *a: scored.append(score(*a)) or scored[-1])
    monkeypatch.setattr(evaluate, "_loss", lambda *a: next(losses))
    settings = config.Finetuning(epochs=4, warmup_epochs=1, lr=5e-2, batch_size=4)
    scores, chosen = evaluate.finetune(endpoint, fusion, settings, 0, evaluate.torch.device("cpu"))
    assert chosen["epoch"] == 2
    np.testing.assert_allclose(scores[val], scored[1][val], atol=1e-6)
    assert np.abs(scores[val] - scored[3][val]).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cohort": "ward"}, "labels of cohort ward, tokens of town"),
        ({"seed": 1}, "is the split of seed 1, not 0"),
        ({"rows": [{"subject": "000", "label": 0, "split": "train"}]}, "nobody in the val part"),
        ({"rows": None}, "classes and rows are no lists: make the split again"),
        ({"kind": "ordinal"}, "2 classes do not make an endpoint of kind 'ordinal'"),
        ({"kind": "regression"}, "2 classes do not make an endpoint of kind 'regression'"),
        ({"classes": ["control"]}, "1 classes do not make an endpoint of kind 'binary'"),
        (lambda rows: rows[0].pop("split"), "a row has not subject, label and split"),
        (lambda rows: rows.append({**rows[0], "split": "test"}), "the person '000' is named twice"),
        (
            lambda rows: rows[0].update(split="training"),
            "000 is in the part 'training', there are train, val, test",
        ),
        (
            lambda rows: rows[0].update(label="patient"),
            "000 has the label 'patient', a class number was expected",
        ),
        (lambda rows: rows[0].update(label=2), "000 has the label 2, a class number"),
        (lambda rows: rows[0].update(label=None), "000 has the label None"),
        (
            lambda rows: [row.update(label=1) for row in rows if row["split"] == "train"],
            "trait is of one class",
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
    assert evaluate.main(evaluate_words(trained, tmp_path / "out", labels=tmp_path / "labels.json")) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tokens_of_other_encoders_are_refused(trained, tmp_path, capsys):
    out = shutil.copytree(trained["tokens_town"].parent, tmp_path / "town") / "index.json"
    metadata = json.loads(out.read_text())
    metadata["encoders"]["structure"] = "0" * 64
    out.write_text(json.dumps(metadata))
    assert evaluate.main(evaluate_words({**trained, "tokens_town": out}, tmp_path / "out")) == 1
    assert "other encoders than the fusion was trained on" in capsys.readouterr().err


def test_unknown_settings_of_the_fine_tuning_are_refused(trained, tmp_path, capsys):
    more = ("--set", '{"epoch": 3}')
    assert evaluate.main(evaluate_words(trained, tmp_path / "out", "finetune", more=more)) == 1
    assert "did you mean 'epochs'" in capsys.readouterr().err


# --- export and embed


def export_words(trained, out, **changes):
    names = ("structure", "function", "fusion", "rois")
    places = {name: trained[name] for name in names} | changes
    return [word for name in names for word in (f"--{name}", str(places[name]))] + ["--out", str(out)]


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "export"
    assert export.main(export_words(trained, out)) == 0
    return out


@pytest.fixture(scope="session")
def model(exported):
    return bhx_model.from_pretrained(exported)


@pytest.fixture(scope="session")
def person(trained):
    """Series, TR and T1 of person 2."""
    index = shards.open_index(trained["town"])
    pairs, _ = shards.pair(index.samples["bold"], index.samples["t1w"])
    run, volume = next(pair for pair in pairs if "sub-002" in pair[0].key)
    return shards.read_bold(run, 20), run.tr_s, volumes.to_float32(shards.read_t1w([volume], (32, 48, 32))[0])


def test_importing_the_package_does_not_import_torch():
    code = "import sys, bhx_model; bhx_model.__version__; sys.exit('torch' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'pretrained'"):
        _ = bhx_model.pretrained


def test_three_lines_embed_a_person(model, person, trained):
    series, tr_s, t1w = person
    hub = model.embed(series, tr_s=tr_s, roi_names=NAMES, t1w=t1w)
    assert hub.shape == (16, 64)
    assert hub.dtype == np.float32
    # the same tokens as the evaluation sees
    trained_fusion = load_trained(trained["fusion"], "fusion")
    tokens = evaluate.token_index.open_tokens(trained["tokens_town"])
    endpoint = evaluate.join(evaluate.read_labels(trained["labels"]), tokens)
    features = evaluate.hub_features(endpoint, trained_fusion, evaluate.torch.device("cpu"))
    np.testing.assert_allclose(hub.mean(axis=0), features[endpoint.subjects.index("002")], atol=2e-4)
    assert model.embed(series, tr_s, NAMES).shape == (20, 6, 64)
    # neither units nor offset of the series matter
    changed = model.embed(0.3 * series - 200, tr_s, NAMES, t1w)
    np.testing.assert_allclose(changed, hub, atol=2e-2)
    # nor how the T1 lies in memory
    t1w.flags.writeable = False
    same = model.embed(series, tr_s, NAMES, t1w[::-1, :, ::-1].copy()[::-1, :, ::-1])
    np.testing.assert_array_equal(same, model.embed(series, tr_s, NAMES, t1w))
    # a missing parcel is allowed
    series = series.copy()
    series[5] = np.nan
    assert np.isfinite(model.embed(series, tr_s, NAMES, t1w)).all()


def faults(series, tr_s, t1w):
    nan, still = series.copy(), series.copy()
    nan[2, 5], still[2] = np.nan, 7.0
    by_roi = series - series.mean(axis=1, keepdims=True)
    by_roi = by_roi / by_roi.std(axis=1, keepdims=True).clip(1e-6)
    swapped = [NAMES[1], NAMES[0], *NAMES[2:]]
    return {
        "milliseconds": ((series, 1000 * tr_s, NAMES, t1w), "looks like milliseconds: give 2"),
        "negative TR": ((series, -2.0, NAMES, t1w), "in seconds, between"),
        "zero TR": ((series, 0.0, NAMES, t1w), "in seconds, between"),
        "TR as text": ((series, "2.0", NAMES, t1w), "as a number"),
        "names": ((series, tr_s, swapped, t1w), f"row 0 is '{NAMES[1]}', the model's is '{NAMES[0]}'"),
        "too few names": ((series[:19], tr_s, NAMES[:19], t1w), "19 ROIs, but the model knows 20"),
        "too few rows": ((series[:19], tr_s, NAMES, t1w), r"series has shape \(19, \d+\)"),
        "transposed": ((series.T, tr_s, NAMES, t1w), "check atlas and axes"),
        "standardised": ((by_roi, tr_s, NAMES, t1w), "standardised by itself: give parcel means"),
        "short": ((series[:, :10], tr_s, NAMES, t1w), "shorter than one patch"),
        "NaN": ((nan, tr_s, NAMES, t1w), "NaN or infinite in some frames"),
        "constant": ((still, tr_s, NAMES, t1w), "never changes"),
        "nothing": ((np.full_like(series, np.nan), tr_s, NAMES, t1w), "NaN throughout"),
        "other grid": ((series, tr_s, NAMES, t1w[:-1]), r"the T1 has \(31, 48, 32\) voxels"),
        "NaN volume": ((series, tr_s, NAMES, t1w * np.nan), "the T1 holds NaN"),
        "raw volume": ((series, tr_s, NAMES, 300 * t1w + 500), "not intensity-normalised"),
        "volume between 0 and 1": (
            (series, tr_s, NAMES, (t1w - t1w.min()) / np.ptp(t1w)),
            "minimum 0, it is not",
        ),
    }


@pytest.mark.parametrize(
    "fault", list(faults(np.eye(20, 100, dtype=np.float32), 2.0, np.eye(32, 32, dtype=np.float32)))
)
def test_unusable_inputs_are_a_sentence(model, person, fault):
    arguments, sentence = faults(*person)[fault]
    with pytest.raises(ValueError, match=sentence):
        model.embed(*arguments)


def test_the_export_is_complete(exported, trained):
    assert {p.name for p in exported.iterdir()} == {
        "structure.safetensors", "function.safetensors", "fusion.safetensors", "config.json", "rois.npz", "README.md",
    }  # fmt: skip
    card = (exported / "README.md").read_text()
    assert "**Synthetic data.**" in card
    assert "town, ward" in card
    run = json.loads((trained["function"] / "run.json").read_text())
    for value in (run["counts"]["parameters"], run["counts"]["train_subjects"]):
        assert f"| {value:,} |" in card
    assert f"{run['loss']['holdout']:.4g}" in card
    assert json.loads((exported / "config.json").read_text())["synthetic"] is True


def test_measured_data_are_not_called_synthetic(trained, tmp_path):
    places = {}
    for stage in ("structure", "function", "fusion"):
        places[stage] = shutil.copytree(trained[stage], tmp_path / stage)
        run = json.loads((places[stage] / "run.json").read_text())
        (places[stage] / "run.json").write_text(json.dumps({**run, "synthetic": False}))
    assert export.main(export_words(trained, tmp_path / "export", **places)) == 0
    assert "Synthetic" not in (tmp_path / "export/README.md").read_text()


def test_the_card_states_the_terms_of_the_data(trained, exported, tmp_path, capsys):
    """As they were given; of a cohort nobody spoke of, that they are not stated."""
    assert "| town | not stated |\n| ward | not stated |" in (exported / "README.md").read_text()
    words = export_words(trained, tmp_path / "export")
    assert export.main([*words, "--terms", settings_file({"ward": "CC BY 4.0,\n| to be named"})]) == 0
    card = (tmp_path / "export/README.md").read_text()
    assert "| town | not stated |\n| ward | CC BY 4.0, / to be named |\n" in card
    about = json.loads((tmp_path / "export/config.json").read_text())
    assert about["terms"] == {"town": None, "ward": "CC BY 4.0,\n| to be named"}
    assert export.main([*words, "--terms", settings_file({"wards": "CC0"})]) == 1
    assert "terms of wards, on which nothing was trained: there are town, ward" in capsys.readouterr().err


def test_an_export_needs_the_facts_of_the_training(trained, tmp_path, capsys):
    with np.load(trained["rois"], allow_pickle=False) as arrays:
        metadata = dict(arrays)
    np.savez(tmp_path / "other.npz", **{**metadata, "median": metadata["median"] + 1})
    assert export.main(export_words(trained, tmp_path / "out", rois=tmp_path / "other.npz")) == 1
    assert "median_R in the weights is not what rois.npz holds" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_export_needs_the_roi_names_of_the_training(trained, exported, tmp_path, capsys):
    """Names in another order, although all numbers are the same, would let series of that order in."""
    names = [NAMES[1], NAMES[0], *NAMES[2:]]
    other = write_rois(tmp_path / "other.npz", names)
    assert export.main(export_words(trained, tmp_path / "out", rois=other)) == 1
    sentence = "row 0 is '17Networks_LH_01', the model's is '17Networks_LH_00'"
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    folder = shutil.copytree(exported, tmp_path / "export")
    write_rois(folder / "rois.npz", names)
    with pytest.raises(ValueError, match=sentence):
        bhx_model.from_pretrained(folder)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("config", None, "run.json has no config: train the stage again"),
        ("counts", None, "run.json has no counts"),
        ("model_metadata", {}, "its metadata do not make a function model"),
        (
            "model_metadata",
            {"atlas": "x", "roi_names": ["a"], "modes": "a"},
            "its metadata do not make a function model",
        ),
    ],
)
def test_a_run_that_is_not_whole_is_a_sentence(trained, tmp_path, capsys, key, value, sentence):
    folder = shutil.copytree(trained["function"], tmp_path / "function")
    run = json.loads((folder / "run.json").read_text())
    run = {k: v for k, v in {**run, key: value}.items() if v is not None}
    (folder / "run.json").write_text(json.dumps(run))
    assert export.main(export_words(trained, tmp_path / "out", function=folder)) == 1
    assert sentence in capsys.readouterr().err


def test_a_fusion_that_does_not_say_whose_tokens_it_reads_is_refused(trained, tmp_path, capsys):
    folder = shutil.copytree(trained["fusion"], tmp_path / "fusion")
    run = json.loads((folder / "run.json").read_text())
    del run["model_metadata"]["encoders"]
    (folder / "run.json").write_text(json.dumps(run))
    assert evaluate.main(evaluate_words({**trained, "fusion": folder}, tmp_path / "out")) == 1
    assert "do not make a fusion model (KeyError('encoders'))" in capsys.readouterr().err


@pytest.mark.parametrize("terms", [{"ward": 3}, ["CC0"], "CC0"])
def test_terms_are_texts(trained, tmp_path, capsys, terms):
    assert export.main([*export_words(trained, tmp_path / "export"), "--terms", settings_file(terms)]) == 1
    assert "the terms of a cohort are a text" in capsys.readouterr().err


def test_an_export_needs_the_encoders_of_its_fusion(trained, tmp_path, capsys):
    other = shutil.copytree(trained["fusion"], tmp_path / "fusion")
    run = json.loads((other / "run.json").read_text())
    run["model_metadata"]["encoders"]["structure"] = "0" * 64
    (other / "run.json").write_text(json.dumps(run))
    assert export.main(export_words(trained, tmp_path / "out", fusion=other)) == 1
    assert "other encoders" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["structure", "function", "fusion"])
def test_weights_that_were_altered_are_refused(exported, tmp_path, stage):
    folder = shutil.copytree(exported, tmp_path / "export")
    content = bytearray((folder / f"{stage}.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / f"{stage}.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=rf"{stage}\.safetensors is not the file that was exported"):
        bhx_model.from_pretrained(folder)


def test_an_incomplete_export_is_refused(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "export")
    (folder / "fusion.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no weights at .*fusion\.safetensors"):
        bhx_model.from_pretrained(folder)
    (folder / "fusion.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="is broken"):
        bhx_model.from_pretrained(folder)
    with pytest.raises(ValueError, match="is no exported model"):
        bhx_model.from_pretrained(tmp_path)
    for content, sentence in (("{", "is not JSON"), ("[]", "no names and values"), ("{}", "of version None"),
                              ('{"export": 1}', "tells nothing of the structure stage")):  # fmt: skip
        (folder / "config.json").write_text(content)
        with pytest.raises(ValueError, match=sentence):
            bhx_model.from_pretrained(folder)


# --- scoring as the published code's


def test_the_reference_scores_as_the_published_code(trained, tmp_path):
    """It chooses on the test people, reports on the validation people, and averages scores of batches."""
    words = {
        name: evaluate_words(trained, tmp_path / name, more=("--preset", name))
        for name in ("base", "reference")
    }
    cards = {}
    for name, arguments in words.items():
        assert evaluate.main(arguments) == 0
        cards[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    assert (cards["base"]["choose_on"], cards["base"]["scores_over"]) == ("val", "dataset")
    assert (cards["reference"]["choose_on"], cards["reference"]["scores_over"]) == ("test", "batches")
    assert (cards["base"]["n_val"], cards["base"]["n_test"]) == (3, 2)
    assert (cards["reference"]["n_val"], cards["reference"]["n_test"]) == (2, 3)


def test_scores_of_batches_are_not_those_of_the_data_set():
    target, predicted = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0])
    labels = {"kind": "binary", "classes": ["a", "b"], "endpoint": "x", "seed": 0}
    endpoint = evaluate.Endpoint(
        labels, list("abcdef"), np.tile(target, 2), np.repeat(["train", "test"], 6), [], np.arange(12), 20, []
    )
    scores = np.eye(2)[np.tile(predicted, 2)]
    whole, batched = (evaluate.report(endpoint, scores, batch_size=n)[0]["metrics"] for n in (None, 4))
    assert whole["f1"] == pytest.approx(2 * 2 / (3 + 3))
    # four people: 2 hits, 3 + 3 named; two people: nothing to find
    assert batched["f1"] == pytest.approx((4 * 2 * 2 / (3 + 3) + 2 * 0) / 6)
    assert batched["accuracy"] == pytest.approx(whole["accuracy"])
