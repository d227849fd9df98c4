"""A trained experiment as a folder that others can use."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from settings_files import settings_file
from tiny_shards import NAMES, export_words, write_rois

import bhx_model
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import DataError
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.release import export
from bhx_model.release.card import model_card
from bhx_model.training.trained import load_trained


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


def test_the_card_says_what_tokens_know_of_their_roi(exported, trained):
    card = " ".join((exported / "README.md").read_text().split())
    assert "with up to 32 weighted means over ROIs" in card
    assert (
        "harmonics and gradients are buffers in it, the mean connectivity code of training runs too" in card
    )
    function = load_trained(trained["function"], "function")
    config = dataclasses.replace(function.model.config, connectivity_weight=0.0, connectivity_code=0)
    model = FunctionJEPA(config, RoiMetadata.load(trained["rois"]))
    without = model_card(
        {"function": dataclasses.replace(function, model=model)}, RoiMetadata.load(trained["rois"]), {}
    )
    assert "weighted means" not in without
    assert "harmonics and gradients are buffers in it |" in without


def test_measured_data_are_not_called_synthetic(trained, tmp_path):
    places = {}
    for stage in ("structure", "function", "fusion"):
        places[stage] = shutil.copytree(trained[stage], tmp_path / stage)
        run = json.loads((places[stage] / "run.json").read_text())
        (places[stage] / "run.json").write_text(json.dumps({**run, "synthetic": False}))
    assert export.main(export_words(trained, tmp_path / "export", **places)) == 0
    assert "Synthetic" not in (tmp_path / "export/README.md").read_text()


def test_the_card_states_the_terms_of_the_data(trained, exported, tmp_path, capsys):
    """As they were given; of a cohort without any, that they are not stated."""
    assert "| town | not stated |\n| ward | not stated |" in (exported / "README.md").read_text()
    words = export_words(trained, tmp_path / "export")
    assert export.main([*words, "--terms", settings_file({"ward": "CC BY 4.0,\n| to be named"})]) == 0
    card = (tmp_path / "export/README.md").read_text()
    assert "| town | not stated |\n| ward | CC BY 4.0, / to be named |\n" in card
    about = json.loads((tmp_path / "export/config.json").read_text())
    assert about["terms"] == {"town": None, "ward": "CC BY 4.0,\n| to be named"}
    assert export.main([*words, "--terms", settings_file({"wards": "CC0"})]) == 1
    assert "terms of wards, on which no stage was trained: there are town, ward" in capsys.readouterr().err


def test_an_export_needs_the_roi_metadata_of_the_training(trained, tmp_path, capsys):
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
    with pytest.raises(DataError, match=sentence):
        bhx_model.from_pretrained(folder)
    with np.load(exported / "rois.npz") as arrays:  # what the weights themselves do not hold
        np.savez(folder / "rois.npz", **{**arrays, "eigenvalues": arrays["eigenvalues"] + 1})
    with pytest.raises(DataError, match=r"rois.npz is not the file that was exported \(sha256 differs\)"):
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


def test_the_card_lists_who_was_trained_on_as_hashes(trained, exported, tmp_path):
    assert "Who was trained on is not listed" in (exported / "README.md").read_text()
    assert "people" not in json.loads((exported / "config.json").read_text())
    people = {"subject": ["a1"], "folder": ["b2"], "study_family": ["c3"]}
    words = [*export_words(trained, tmp_path / "export"), "--people", settings_file({"people": people})]
    assert export.main(words) == 0
    # paths, and ids of families as such, mean nothing to others
    assert json.loads((tmp_path / "export/config.json").read_text())["people"] == {"subject": ["a1"]}
    assert "stands in `config.json`" in (tmp_path / "export/README.md").read_text()


def test_the_card_counts_what_people_decided(trained, exported, tmp_path):
    assert "excluded is not stated" in (exported / "README.md").read_text()
    scans = {"bold": {"used": 1200, "excluded": 3, "excluded by decision": 2, "kept by decision": 1}}
    counts = settings_file({"cohort": "ward", "scans": scans})
    other = settings_file({"cohort": "elsewhere", "scans": scans})
    words = export_words(trained, tmp_path / "export")
    assert export.main([*words, "--quality", counts, other]) == 0
    card = (tmp_path / "export/README.md").read_text()
    assert "People excluded 2 scans, and kept 1 that fail a limit" in card
    assert "| ward | bold | 1,200 | 1 | 3 | 2 |" in card
    assert "elsewhere" not in card
    assert json.loads((tmp_path / "export/config.json").read_text())["quality"] == {"ward": scans}
