"""Features that the models of the experiments would not take are refused before any is computed."""

from __future__ import annotations

import json

import pytest

from bhx_model.config import load_preset
from bhx_model.errors import ConfigError
from bhx_prep.config import config


def study(features=None, experiment=None, **cohort):
    return {
        "cohorts": {"a": {"input": "timeseries", "root": "x", **cohort}},
        "features": features or {},
        "experiments": {"e": {"cohorts": ["a"], "preset": "tiny", **(experiment or {})}},
    }


def overrides(stage, **changes):
    return {"overrides": {stage: {f"model.{name}": value for name, value in changes.items()}}}


FIXED = {"tr": "fixed", "tr_augment": False}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (
            study({"t1w_shape": [80, 96, 81]}),
            "experiments.e: features.t1w_shape, 80 x 96 x 81 voxels, does not divide into patches of 16: choose e.g. "
            "80 x 96 x 80, or another model.patch",
        ),
        (study({"t1w_shape": [8, 96, 80]}), "does not divide into patches of 16: choose e.g. 16 x 96 x 80"),
        (study({}, overrides("structure", patch=15)), "does not divide into patches of 15"),
        (study({"t1w_shape": [16, 16, 16]}), "16 x 16 x 16 voxels, is a single patch"),
        (study({"t1w_shape": [20, 20, 20]}, overrides("structure", patch=16)), "choose e.g. 32 x 32 x 32"),
        (study({"t1w_shape": [0, 96, 80]}), "features.t1w_shape.0: Input should be greater than 0 (is 0)"),
        (
            study({"t1w_shape": [80, -96, 80]}),
            "features.t1w_shape.1: Input should be greater than 0 (is -96)",
        ),
        (
            study({"min_seconds": float("inf")}),
            "features.min_seconds: Input should be a finite number (is inf)",
        ),
        (
            study({}, {"gpus": 1, "gpu_memory_gb": float("inf")}),
            "experiments.e.gpu_memory_gb: Input should be a finite number (is inf)",
        ),
        (
            study({"min_seconds": 35}),
            "features.min_seconds, 35, lets in runs shorter than a patch of 35.28 s: raise it",
        ),
        (
            study({"min_seconds": 60, "patch_seconds": 70.56}, overrides("function", base_patch=96)),
            "features.min_seconds, 60, lets in runs shorter than a patch of 70.56 s",
        ),
        (
            study({"patch_seconds": 30}),
            "patches of 35.28 s are longer than features.patch_seconds, 30: raise that",
        ),
        (
            study({"min_seconds": 95}, overrides("function", **FIXED), tr_s=2.0),
            "a patch, which with model.tr: fixed is 48 frames, 96 s at TR 2 s: raise it (cohort a)",
        ),
        (
            study({}, overrides("function", gradients=False, harmonics="none")),
            "experiments.e.overrides.function: gradients and harmonics are off, so that nothing tells the ROIs apart",
        ),
        (
            study({}, overrides("fusion", loss_tokens="all")),
            "model.loss_tokens is all, but the cache holds valid tokens only: set model.inputs to online",
        ),
        (
            study(
                {},
                {
                    "overrides": {
                        "fusion": {"model.modality_embedding": False},
                        "structure": {"model.width": 96},
                    }
                },
            ),
            "both encoders must be equally wide, and they are 96 and 64",
        ),
    ],
)
def test_what_cannot_work_is_refused(raw, said):
    with pytest.raises(ConfigError) as error:
        config.check(raw)
    (line,) = error.value.mistakes
    assert said in line
    assert len(line) <= 200


@pytest.mark.parametrize(
    "raw",
    [
        study({"min_seconds": 35.28}),
        study(
            {"min_seconds": 95}, overrides("function", **FIXED)
        ),  # the TR is not stated: see study_gaps.untrainable
        study({"min_seconds": 96}, overrides("function", **FIXED), tr_s=2.0),
        study({"min_seconds": 95}, overrides("function", **FIXED), tr_s=0.735),
        study({"t1w_shape": [80, 96, 81]}, {"stages": ["function"]}),
        study({"min_seconds": 5, "patch_seconds": 5}, {"stages": ["structure"]}),
        study({"t1w_shape": [80, 96, 81], "min_seconds": 5}) | {"experiments": {}},
        study({}, overrides("fusion", loss_tokens="all", inputs="online")),
    ],
)
def test_what_works_is_taken(raw):
    checked = config.check(raw)
    assert raw["features"].items() <= checked.model_dump(mode="json")["features"].items()
    assert checked.experiments.keys() == raw["experiments"].keys()


def test_weights_that_were_trained_on_other_features_are_refused(tmp_path):
    for stage in ("structure", "function"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "model.safetensors").touch()
        about = {"config": load_preset(stage, "tiny").to_dict(), "model_metadata": {"grid": [160, 192, 160]}}
        (tmp_path / stage / "run.json").write_text(json.dumps(about))
    raw = study({"t1w_shape": [80, 96, 80], "min_seconds": 30})
    raw["experiments"]["e"] = {"weights": str(tmp_path)}
    with pytest.raises(ConfigError) as error:
        config.check(raw)
    grid, run = error.value.mistakes
    assert grid == (
        "experiments.e.weights: they take T1 volumes of 160 x 192 x 160 voxels, and features.t1w_shape is 80 x 96 x 80: "
        "change that"
    )
    assert "features.min_seconds, 30, lets in runs shorter than a patch of 35.28 s" in run
    config.check(raw | {"features": {}})
