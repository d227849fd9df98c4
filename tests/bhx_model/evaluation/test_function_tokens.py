"""The file of function tokens: what is in it, and shards, weights and files that do not fit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tiny_shards import NAMES, R, spoil_series, write_labels

from bhx_model import contract
from bhx_model.data import shards
from bhx_model.data.batch import plan_series, read_runs
from bhx_model.errors import DataError
from bhx_model.evaluation import function_tokens as command
from bhx_model.evaluation import readouts, token_readout_file
from bhx_model.evaluation.labels import read_labels
from bhx_model.evaluation.methods import ARRAYS, METHODS
from bhx_model.nets.factory import empty_rois
from bhx_model.training.trained import load_trained


def words(trained, out, shard_index=None):
    places = {"--function": trained["function"], "--shards": shard_index or trained["town"], "--out": out}
    return [str(word) for pair in places.items() for word in pair]


def test_it_holds_the_readouts_of_every_run(trained, function_tokens):
    with np.load(function_tokens, allow_pickle=False) as arrays:
        found = dict(arrays)
    assert found.keys() == {"about", "keys", "subjects", *ARRAYS}
    index = shards.open_index(trained["town"])
    runs = index.samples["bold"]  # of 12 subjects, the first has two; also the one without a T1
    assert found["keys"].tolist() == [run.key for run in runs]
    assert sorted(found["subjects"].tolist()) == sorted(["000", *(f"{n:03d}" for n in range(12))])
    stage = load_trained(trained["function"], "function")
    for number in (0, 5, 12):
        plan = plan_series(runs[number], stage.model.config)
        rois = empty_rois(stage.run["model_metadata"])
        batch = read_runs([runs[number]], [plan], rois, stage.model.config)
        tokens = stage.model.encode(batch.tensors["series"], plan.patch_frames).unflatten(1, (R, -1))
        wanted = {
            "mean": readouts.mean(tokens),
            "regions": readouts.regions(tokens),
            "covariance": readouts.covariance(tokens, readouts.components_of(stage.model)),
            "rois": readouts.rois(tokens).half(),
        }
        for name, one in wanted.items():
            np.testing.assert_allclose(found[name][number], one[0].numpy(), atol=2e-3, rtol=1e-3)
            assert found[name].dtype == one.numpy().dtype
            assert found[f"{name}_untrained"].shape == found[name].shape
            assert not np.allclose(found[f"{name}_untrained"][number], one[0].numpy(), atol=1e-2)


def test_it_is_the_same_whenever_it_is_made(trained, tmp_path, function_tokens):
    out = tmp_path / "town.npz"
    (tmp_path / ".arrays.town.npz").mkdir()  # left by a killed process
    (tmp_path / ".arrays.town.npz" / "keys.npy").write_bytes(b"half")
    assert command.main(words(trained, out)) == 0
    assert out.read_bytes() == function_tokens.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["town.npz"]


def test_a_converted_checkpoint_is_compared_with_a_random_start(trained, tmp_path, function_tokens):
    folder = shutil.copytree(trained["function"], tmp_path / "function")
    run = json.loads((folder / "run.json").read_text())
    kept = ("stage", "config", "model_metadata", "counts", "loss")
    converted = {name: run[name] for name in kept} | {"cohorts": [], "synthetic": False}
    (folder / "run.json").write_text(json.dumps({**converted, "converted_from": "model.pth"}))
    out = tmp_path / "town.npz"
    assert command.main(words({**trained, "function": folder}, out)) == 0
    assert run["seed"] == 0
    with np.load(out) as found, np.load(function_tokens) as wanted:
        for name in ARRAYS:
            np.testing.assert_array_equal(found[name], wanted[name])


def test_shards_of_other_rois_are_refused(trained, tmp_path, capsys):
    folder = shutil.copytree(trained["town"].parent, tmp_path / "shards")
    index = json.loads((folder / "index.json").read_text())
    index["roi_names"] = NAMES[::-1]
    index["roi_sha256"] = contract.roi_sha256(index["atlas"], NAMES[::-1])
    (folder / "index.json").write_text(json.dumps(index))
    assert command.main(words(trained, tmp_path / "out.npz", folder / "index.json")) == 1
    assert "bring the rows into the order of" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


def test_a_run_that_cannot_be_embedded_is_named(trained, tmp_path, capsys):
    index = spoil_series(trained["town"], tmp_path / "spoilt", "short")
    assert command.main(words(trained, tmp_path / "out.npz", index)) == 1
    assert "town_sub-002" in capsys.readouterr().err
    assert not list(tmp_path.glob("*out.npz"))


def labels_of(tmp_path, numbers=range(11), cohort="town"):
    return read_labels(write_labels(tmp_path / "labels.json", cohort, numbers))


def test_runs_of_a_subject_are_averaged(tmp_path, function_tokens):
    kept, features, excluded = token_readout_file.read([function_tokens], "mean").by_subject(
        labels_of(tmp_path)
    )
    with np.load(function_tokens, allow_pickle=False) as arrays:
        rows, subjects = arrays["mean"], arrays["subjects"]
    assert (subjects == "000").sum() == 2
    for subject, one in zip(kept.subjects, features, strict=True):
        np.testing.assert_allclose(one, rows[subjects == subject].mean(axis=0), atol=1e-6)
    assert excluded == []


def test_subjects_without_runs_are_excluded(tmp_path, function_tokens):
    kept, features, excluded = token_readout_file.read([function_tokens], "rois").by_subject(
        labels_of(tmp_path, range(14))
    )
    assert (len(kept.subjects), features.shape[0], features.dtype) == (12, 12, np.float32)
    reason = "no function tokens: no usable BOLD run"
    assert excluded == [{"subject": subject, "reason": reason} for subject in ("012", "013")]


def test_labels_of_another_cohort_are_refused(tmp_path, function_tokens):
    tokens = token_readout_file.read([function_tokens], "mean")
    with pytest.raises(DataError, match="labels of cohort ward, function tokens of town"):
        tokens.by_subject(labels_of(tmp_path, cohort="ward"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda arrays: arrays.pop("mean"), "has no mean, it is no file of function tokens"),
        (lambda arrays: arrays.update(about=np.array("{}")), "of another version than 1"),
        (lambda arrays: arrays.update(about=np.array("half")), "of another version than 1"),
        (lambda arrays: arrays["mean"].fill(np.nan), "has not one row of finite numbers per BOLD run"),
        (
            lambda arrays: arrays.update(subjects=arrays["subjects"][1:]),
            "has not one row of finite numbers per BOLD run",
        ),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, function_tokens, change, sentence):
    with np.load(function_tokens, allow_pickle=False) as arrays:
        content = dict(arrays)
    change(content)
    np.savez(tmp_path / "other.npz", **content)
    with pytest.raises(DataError, match=sentence):
        token_readout_file.read([tmp_path / "other.npz"], "mean")


def test_a_file_that_is_cut_or_gone_is_refused(tmp_path, function_tokens):
    content = function_tokens.read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    for name, sentence in (
        ("cut", "or a broken one: make it again"),
        ("gone", "there are no function tokens"),
    ):
        with pytest.raises(DataError, match=sentence):
            token_readout_file.read([tmp_path / f"{name}.npz"], "mean")


def test_every_method_of_function_tokens_has_its_control():
    reads = [name for name, method in METHODS.items() if method.reads == "function tokens"]
    trained = [name for name in reads if not name.endswith("_untrained")]
    assert sorted(reads) == sorted([*trained, *(f"{name}_untrained" for name in trained)])
    for name in trained:
        assert METHODS[f"{name}_untrained"].array == f"{METHODS[name].array}_untrained"
