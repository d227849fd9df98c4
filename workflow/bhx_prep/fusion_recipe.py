"""The inputs of an experiment's fusion, as a file that its training depends on.

The fusion is at a place that says nothing of how it was trained. Snakemake keeps a record of that, but not of a job that
outlived it. So the training depends on ``fusion.json``, which is newer than the weights where these are of something else:
it is written when what they are to be made of changes, and when the weights that are there say that they are not of that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bhx_model import config as model_config
from bhx_model import neutral_settings
from bhx_model.atomic_write import write_json
from bhx_model.file_hash import file_sha256
from bhx_prep.config.config import Config
from bhx_prep.step_versions import STEPS
from bhx_prep.trainings import ENCODERS, Trainings, known_by, overrides

#: Name of the file in the folder of an experiment.
FILE: Final = "fusion.json"


def write_recipes(config: Config, trainings: Trainings) -> None:
    """Write the file of every experiment that trains a fusion, where it is to be newer than the weights.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    for name, section in config.experiments.items():
        if "fusion" not in section.stages or section.weights is not None:
            continue
        file, wanted = trainings.experiment_folder(name) / FILE, recipe(config, trainings, name)
        there = _read(trainings.stage_folder(name, "fusion") / "run.json")
        if _read(file) != wanted or (there is not None and not _is_of(there, wanted, trainings, name)):
            write_json(file, wanted)


def recipe(config: Config, trainings: Trainings, experiment: str) -> dict[str, Any]:
    """All that decides the fusion of an experiment, but for the bytes of what it reads."""
    section = config.experiments[experiment]
    settings = model_config.load_preset("fusion", section.preset).override(
        overrides(config, experiment, "fusion")
    )
    start = section.init_from.get("fusion")
    return {
        "step_version": STEPS["train_fusion"],
        # as it is read again
        "config": json.loads(json.dumps(neutral_settings.decisive(settings.to_dict()))),
        "seed": section.seed,
        "subjects": trainings.trainset(experiment),
        "encoders": {stage: trainings.recipe(experiment, stage) for stage in ENCODERS},
        "init_from": None if start is None else known_by(start, "fusion"),
    }


def _is_of(run: Mapping[str, Any], wanted: Mapping[str, Any], trainings: Trainings, experiment: str) -> bool:
    """Whether weights, by their ``run.json``, match the recipe and the current files."""
    try:
        made = {
            "step_version": run["step_version"],
            "seed": run["seed"],
            "config": neutral_settings.decisive(run["config"]),
        }
        read = {"rois": run["inputs"]["rois"], "split": run["inputs"]["split"]}
        tokens = dict(run["inputs"].get("tokens", []))
    except (KeyError, TypeError, ValueError, AttributeError):  # of another version
        return False
    files = {
        trainings.rois(experiment): read["rois"],
        trainings.subjects_folder(experiment) / "pretrain.json": read["split"],
        **{trainings.tokens(experiment, cohort): sha256 for cohort, sha256 in tokens.items()},
    }
    same_settings = all(wanted[name] == value for name, value in made.items())
    return same_settings and all(_sha256(path) in (None, sha256) for path, sha256 in files.items())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else {}


def _sha256(path: Path) -> str | None:
    """Hash of a file; None if it does not exist yet."""
    try:
        return file_sha256(path)
    except OSError:
        return None
