"""A study on an atlas that is a list of names: tables to shards, ROI metadata, the function stage, and its export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from tiny_shards import SHORT, write_rois

import bhx_model
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import ConfigError, DataError
from bhx_model.release import export, load
from bhx_model.training import train
from bhx_model.training.trained import load_trained
from bhx_prep.atlas import checks
from bhx_prep.brain_maps import gradients, join, normaliser
from bhx_prep.config import config
from bhx_prep.evaluation import splits
from bhx_prep.features import extract
from bhx_prep.ingest import index
from bhx_prep.shards import command as shards
from bhx_prep.study import Study
from bhx_prep.study_gaps import untrainable, without_rows

NAMES = [f"CC_{i:02d}" for i in range(20)]
FRAMES = 120


def study_of(folder: Path) -> dict:
    """Configuration of the study, as a user would write it."""
    return {
        "results": str(folder / "results"),
        "cohorts": {"a": {"input": "timeseries", "root": str(folder / "data"), "tr_s": 2}},
        "atlas": {"source": "files", "name": "CC20", "names": str(folder / "names.txt")},
        "features": {"harmonics": "none", "gradients": 5},
        "experiments": {"e": {"cohorts": ["a"], "preset": "tiny", "stages": ["function"]}},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> SimpleNamespace:
    """Every step of the study, each by its command."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "names.txt").write_text("\n".join(NAMES))
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3, FRAMES)).cumsum(axis=1)
    mixing = rng.normal(size=(20, 3))
    for subject in range(8):
        values = 100 + mixing @ shared + rng.normal(size=(20, FRAMES))
        path = folder / f"data/sub-{subject:02d}/func/sub-{subject:02d}_task-rest_timeseries.tsv"
        path.parent.mkdir(parents=True)
        pd.DataFrame(values, index=NAMES).to_csv(path, sep="\t", index_label="name")
    study = Study(study_of(folder), build=True, cache=folder / "cache")
    templates, out = folder / "templates", folder / "shards"
    templates.mkdir()
    described = {"label": "CC20", "names": NAMES, "hemisphere": [-1] * 20, "space": "x", "missing": {}}
    (templates / "atlas.json").write_text(json.dumps(described))
    index.load(folder / "cache", "a", study.config.cohorts["a"])
    run(extract.main, "--cohort", "a", "--batch", "0", "--subjects", study.cohorts["a"].subjects_file("00000"),
        "--index", folder / "cache/a.parquet", "--templates", templates, "--features", study.features_file("a"),
        "--space", "MNI152NLin2009cAsym", "--out", folder / "features")  # fmt: skip
    run(shards.main, "pack", "--cohort", "a", "--batch", "0", "--features", folder / "features", "--out", out)
    run(shards.main, "index", "--cohort", "a", "--shards", out, "--batches", study.cohorts["a"].batches_file(),
        "--out", out / "index.json")  # fmt: skip
    given = ["--shards", out / "index.json", "--split", folder / "split.json", "--out"]
    run(splits.main, "pretrain", "--holdout", "0.25", "--seed", "0", "--shards", out / "index.json",
        "--out", folder / "split.json")  # fmt: skip
    run(gradients.main, *given, folder / "gradients.parquet", "--components", "5")
    run(normaliser.main, *given, folder / "normaliser.parquet")
    run(join.main, "--atlas", templates / "atlas.json", "--gradients", folder / "gradients.parquet",
        "--normaliser", folder / "normaliser.parquet", "--out", folder / "rois.npz")  # fmt: skip
    run(
        train.main,
        *training(study, folder, SHORT | study.overrides("e", "function")),
        "--out",
        folder / "function",
    )
    run(
        export.main,
        "--function",
        folder / "function",
        "--rois",
        folder / "rois.npz",
        "--out",
        folder / "export",
    )
    return SimpleNamespace(folder=folder, study=study)


def run(main, *words: object) -> None:
    assert main([str(word) for word in words]) == 0


def training(study: Study, folder: Path, changes: dict, rois: Path | None = None) -> Sequence[object]:
    return [
        "--stage", "function", "--preset", "tiny", "--set", json.dumps(changes), "--split", folder / "split.json",
        "--shards", folder / "shards/index.json", "--rois", rois or folder / "rois.npz", "--run-root", folder / "runs",
    ]  # fmt: skip


def test_the_study_is_valid_and_no_experiment_needs_what_it_has_not(made) -> None:
    assert checks.mistakes(made.study.config) == []
    assert untrainable(made.study) == []
    assert made.study.experiments("fusion") == []
    assert made.study.overrides("e", "function") == {"model.harmonics": "none"}
    plain = study_of(made.folder)
    del plain["experiments"]["e"]["stages"]
    whole = Study(plain, build=True, cache=made.folder / "cache")
    assert untrainable(whole)[0].endswith("which structure and fusion need: set `stages: [function]`")


def test_hub_tokens_of_a_cohort_without_t1_are_no_method(made) -> None:
    plain = study_of(made.folder)
    endpoint = {"cohort": "a", "column": "age", "kind": "regression"}
    plain["endpoints"] = {"x": endpoint, "y": {**endpoint, "methods": ["function_mean"]}}
    assert without_rows(Study(plain, build=True, cache=made.folder / "cache")) == []  # no fusion, no rows
    del plain["experiments"]["e"]["stages"]
    study = Study(plain, build=True, cache=made.folder / "cache")
    (line,) = without_rows(study)
    assert line == (
        "endpoints.x.methods: probe, hub_tokens, finetune give no row: they read hub tokens, and of a there is bold alone"
    )
    assert study.methods("e", "x") == ["function_regions", "function_regions_untrained"]
    assert study.baselines("x") == ["fc", "permuted"]
    assert study.modalities("x") == ["bold"]


def test_roi_metadata_without_harmonics(made) -> None:
    rois = RoiMetadata.load(made.folder / "rois.npz")
    assert (rois.atlas, rois.names, rois.n_harmonics) == ("CC20", tuple(NAMES), 0)
    assert rois.hemisphere.tolist() == [-1] * 20
    assert rois.gradients.shape == (20, 5)


def test_the_position_code_is_of_gradients_alone_and_the_card_says_so(made) -> None:
    model = bhx_model.from_pretrained(made.folder / "export").function
    assert set(model.encoder.roi_position.maps) == {"gradients"}
    card = (made.folder / "export/README.md").read_text()
    assert (
        "5 connectivity gradients of the training subjects alone, no harmonics, because CC20 was used" in card
    )
    assert "normaliser and gradients are buffers" in card
    assert "t1w=" not in card
    assert {p.name for p in (made.folder / "export").iterdir()} == {
        "function.safetensors", "config.json", "rois.npz", "README.md",
    }  # fmt: skip


def test_the_function_encoder_embeds_series_and_takes_no_t1(made) -> None:
    model = bhx_model.from_pretrained(made.folder / "export")
    series = np.random.default_rng(1).normal(100, 5, (20, FRAMES)).cumsum(axis=1)
    tokens = model.embed(series, tr_s=2.0, roi_names=NAMES)
    assert tokens.shape[0] == 20
    assert np.isfinite(tokens).all()
    with pytest.raises(DataError, match="function encoder alone and take no T1"):
        model.embed(series, tr_s=2.0, roi_names=NAMES, t1w=np.zeros((2, 2, 2)))


def test_harmonics_are_asked_of_a_model_and_of_its_rois_alike(made, tmp_path: Path, capsys) -> None:
    rois = RoiMetadata.load(made.folder / "rois.npz")
    trained = load_trained(made.folder / "function", "function")
    model = bhx_model.from_pretrained(made.folder / "export").function
    with np.load(write_rois(tmp_path / "with.npz", NAMES), allow_pickle=False) as arrays:
        np.savez(tmp_path / "with.npz", **{**arrays, "atlas": np.array("CC20")})
    harmonic = RoiMetadata.load(tmp_path / "with.npz")
    with pytest.raises(DataError, match=r"trained on no harmonics of CC20, rois\.npz holds 12 harmonics"):
        load.check_rois(model, harmonic, trained.run["model_metadata"])
    with pytest.raises(DataError, match=r"trained on 12 harmonics of CC20, rois\.npz holds no harmonics"):
        rois.check_harmonics(12)
    assert (
        train.main([str(w) for w in training(made.study, made.folder, SHORT)] + ["--out", str(tmp_path)]) == 1
    )
    assert "the position code wants harmonics, and CC20 has none" in capsys.readouterr().err


def test_what_an_atlas_of_names_cannot_have_is_said_beforehand(made) -> None:
    def found(**changes) -> str:
        study = study_of(made.folder)
        for section, values in changes.items():
            study[section] = study[section] | values
        return " ".join(checks.mistakes(config.check(study)))

    assert "features.harmonics: 200, but they need CC20 on fsLR-32k" in found(features={"harmonics": 200})
    assert "features.gradients: 30 of 20 ROIs: ask for 18 at most" in found(features={"gradients": 30})
    fmriprep = {"b": {"input": "fmriprep", "root": "x"}}
    assert "set atlas.volume" in found(cohorts=fmriprep)
    assert "nowhere.txt cannot be read" in found(atlas={"names": "nowhere.txt"})
    with pytest.raises(ConfigError, match=r"model\.harmonics: reference, but features\.harmonics is `none`"):
        found(
            experiments={"e": {"cohorts": ["a"], "overrides": {"function": {"model.harmonics": "reference"}}}}
        )
    with pytest.raises(
        ConfigError, match=r"features\.harmonics: should be a number from 2 to 1000, or `none`"
    ):
        found(features={"harmonics": 0})
    with pytest.raises(ConfigError, match="nothing would tell the ROIs apart"):
        found(experiments={"e": {"cohorts": ["a"], "overrides": {"function": {"model.gradients": False}}}})
    with pytest.raises(ConfigError, match="the fusion joins both encoders"):
        found(experiments={"e": {"cohorts": ["a"], "stages": ["function", "fusion"]}})
    with pytest.raises(ConfigError, match="`parcels` describes Schaefer's atlas, but `name` is CC20"):
        found(atlas={"parcels": 200})
    with pytest.raises(ConfigError, match="set `source` to `files`"):
        found(atlas={"source": "packages"})
