"""Weights that were trained elsewhere, taken over: an export, an experiment's folder, what is loaded of published ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_shards import ATLAS, NAMES

from bhx_model import given_weights
from bhx_model.errors import ConfigError
from bhx_model.evaluation import function_tokens
from bhx_model.release import fetch
from bhx_model.training.trained import load_trained
from bhx_model.training.untrained import untrained_function


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """``atlas.json`` of the study that the tiny shards are of."""
    return write_atlas(tmp_path / "atlas.json", NAMES)


def write_atlas(path: Path, names: list[str], atlas: str = ATLAS) -> Path:
    path.write_text(json.dumps({"label": atlas, "names": list(names)}))
    return path


def words(folder: Path, stage: str, out: Path, atlas: Path) -> list[str]:
    return ["stage", "--weights", str(folder), "--stage", stage, "--atlas", str(atlas), "--out", str(out)]


def test_stages_of_an_export_are_what_was_trained(exported, trained, tmp_path, atlas):
    for stage in ("structure", "function", "fusion"):
        assert fetch.main(words(exported, stage, tmp_path / stage, atlas)) == 0
        ours, theirs = load_trained(tmp_path / stage, stage), load_trained(trained[stage], stage)
        assert ours.sha256 == theirs.sha256
        assert ours.config == theirs.config
        assert ours.run["cohorts"] == ["town", "ward"]
        assert ours.run["synthetic"] is True
    assert ours.run["model_metadata"]["encoders"] == theirs.run["model_metadata"]["encoders"]
    assert (
        fetch.main(
            ["rois", "--weights", str(exported), "--atlas", str(atlas), "--out", str(tmp_path / "r.npz")]
        )
        == 0
    )
    with np.load(tmp_path / "r.npz") as ours_r, np.load(exported / "rois.npz") as theirs_r:
        assert all(np.array_equal(ours_r[name], theirs_r[name]) for name in theirs_r.files)


def test_the_control_of_an_export_is_drawn_from_the_seed_of_its_training(exported, trained, tmp_path, atlas):
    assert fetch.main(words(exported, "function", tmp_path / "function", atlas)) == 0
    ours = untrained_function(load_trained(tmp_path / "function", "function")).state_dict()
    theirs = untrained_function(load_trained(trained["function"], "function")).state_dict()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_tokens_are_read_with_given_weights_as_with_trained_ones(exported, trained, tmp_path, atlas):
    assert fetch.main(words(exported, "function", tmp_path / "function", atlas)) == 0
    files = []
    for folder in (tmp_path / "function", trained["function"]):
        files.append(tmp_path / f"{len(files)}.npz")
        function_tokens.main(
            ["--function", str(folder), "--shards", str(trained["town"]), "--out", str(files[-1])]
        )
    with np.load(files[0]) as ours, np.load(files[1]) as theirs:
        assert np.array_equal(ours["mean"], theirs["mean"])


def test_folders_that_hold_weights(trained, exported, tmp_path):
    assert list(given_weights.find(exported)) == ["structure", "function", "fusion"]
    folder = tmp_path / "experiment"
    for stage in ("function", "fusion"):
        shutil.copytree(trained[stage], folder / stage)
    assert list(given_weights.find(folder)) == ["function", "fusion"]
    assert list(given_weights.find(folder / "function")) == ["function"]
    shutil.copytree(trained["function"], tmp_path / "function-1/final")
    assert list(given_weights.find(tmp_path / "function-1")) == ["function"]
    assert given_weights.rois(folder) is None
    (folder / "subjects").mkdir()
    shutil.copyfile(trained["rois"], folder / "subjects/rois.npz")
    assert given_weights.rois(folder) == folder / "subjects/rois.npz"
    with pytest.raises(ConfigError, match="holds no weights: name an export"):
        given_weights.find(tmp_path)
    with pytest.raises(ConfigError, match=r"no folder .*nowhere: name an export"):
        given_weights.find(tmp_path / "nowhere")


def test_who_was_trained_on_stays_known(trained, exported, tmp_path, atlas):
    """Whether the card says so, or the list beside the weights."""
    (folder := tmp_path / "experiment/subjects").mkdir(parents=True)
    shutil.copytree(trained["function"], folder.parent / "function")
    (folder / "pretrain.json").write_text(
        json.dumps({"train": [], "holdout": [], "people": {"subjects": ["1f" * 16]}})
    )
    card = shutil.copytree(exported, tmp_path / "export") / "config.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"people": {"subjects": ["2e" * 16]}}))
    for place, known in ((folder.parent, ["1f" * 16]), (card.parent, ["2e" * 16]), (exported, None)):
        assert fetch.main(words(place, "function", tmp_path / "out", atlas)) == 0
        run = json.loads((tmp_path / "out/run.json").read_text())
        assert run.get("people") == (None if known is None else {"subjects": known})


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("order", "row 0 is '17Networks_LH_01', the model's is '17Networks_LH_00'"),
        ("atlas", f"is of atlas {ATLAS}, this study of another: set `atlas` to that of the weights"),
        ("bytes", "is not the file that was exported (sha256 differs)"),
        ("stage", "holds structure, function, but no fusion: leave it out of `stages`"),
        ("described", "does not describe the function stage"),
    ],
)
def test_weights_that_do_not_fit_are_refused(exported, tmp_path, atlas, capsys, fault, sentence):
    folder, stage = shutil.copytree(exported, tmp_path / "export"), "function"
    if fault == "order":
        write_atlas(atlas, [NAMES[1], NAMES[0], *NAMES[2:]])
    elif fault == "atlas":
        write_atlas(atlas, NAMES, "another")
    elif fault == "bytes":
        shutil.copyfile(folder / "structure.safetensors", folder / "function.safetensors")
    elif fault == "stage":
        (folder / "fusion.safetensors").unlink()
        stage = "fusion"
    else:
        about = json.loads((folder / "config.json").read_text())
        del about["stages"]["function"]
        (folder / "config.json").write_text(json.dumps(about))
    assert fetch.main(words(folder, stage, tmp_path / "out", atlas)) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rois_that_are_not_there_are_a_sentence(trained, tmp_path, atlas, capsys):
    folder = shutil.copytree(trained["function"], tmp_path / "given/function")
    assert (
        fetch.main(
            ["rois", "--weights", str(folder), "--atlas", str(atlas), "--out", str(tmp_path / "r.npz")]
        )
        == 1
    )
    assert "has no rois.npz" in capsys.readouterr().err
