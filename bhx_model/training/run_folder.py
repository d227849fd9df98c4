"""The folder of a run: its name, and the outputs of a finished run."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from bhx_model import contract
from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.config import StageConfig
from bhx_model.errors import DataError
from bhx_model.neutral_settings import decisive
from bhx_model.training import checkpoint, checkpoint_folder, target
from bhx_model.training.distributed import Processes
from bhx_model.training.stages import Stage

logger = logging.getLogger(__name__)

#: What a finished run leaves, weights last: where they are in the folder of an experiment, the rest is.
OUTPUTS: Final = ("metrics.jsonl", "run.json", "model.safetensors")

#: Part of a run's name: raised when what a run leaves is written differently, so that no earlier run is taken for it.
RUN_FORMAT: Final = 3  # named with the step's version, without settings that change no result

#: File of a run folder that says what the run is made of.
MADE_OF: Final = "made_of.json"


def run_hash(config: StageConfig, seed: int, hashes: dict[str, Any], step_version: int) -> str:
    """Name a run by all that decides its result.

    That is: configuration but for `neutral_settings.RESULT_NEUTRAL`, seed, the bytes of what it reads, and the versions of
    the run's format and of the step that asks for it, so that nothing that older code trained is taken for its result.
    """
    value = {
        "format": RUN_FORMAT,
        "step": step_version,
        "config": decisive(config.to_dict()),
        "seed": seed,
        "inputs": hashes,
    }
    return hashlib.sha256(contract.canonical_json(value)).hexdigest()[:16]


def made_of(stage: Stage, step_version: int) -> dict[str, Any]:
    """What a run is made of, for its folder: who reads it need not guess from the hash."""
    config, inputs = stage.config.to_dict(), stage.hashes
    return {"config": config, "seed": stage.seed, "inputs": inputs, "step_version": step_version}


def of_other_length(run: Path, about: Mapping[str, Any]) -> dict[str, int]:
    """Runs next to `run` that differ from it only in the number of steps: folder -> steps.

    Parameters
    ----------
    run : Path
        Folder of the run.
    about : Mapping
        From `made_of`.
    """

    def without_steps(value: Mapping[str, Any]) -> Any:
        config = decisive(value["config"])
        return {**value, "config": {**config, "train": {**config["train"], "steps": None}}}

    found = {}
    for file in sorted(run.parent.glob(f"{run.name.rpartition('-')[0]}-*/{MADE_OF}")):
        try:
            other = json.loads(file.read_bytes())
            if file.parent != run and without_steps(other) == without_steps(about):
                found[file.parent.name] = int(other["config"]["train"]["steps"])
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # of another format, or half written
            continue
    return found


def describe_run(
    stage: Stage, state: Mapping[str, Any], model: nn.Module, processes: Processes, step_version: int
) -> dict[str, Any]:
    """Collect what ``run.json`` states about a finished run."""
    config, seed = stage.config, stage.seed
    holdout = state["holdout"] or {}
    moved = target.describe_target(stage, model)
    return {
        "stage": config.stage,
        "config": config.to_dict(),
        "model_metadata": stage.metadata(),
        "seed": seed,
        "run": run_hash(config, seed, stage.hashes, step_version),
        "step_version": step_version,
        "inputs": stage.hashes,
        "cohorts": [index.cohort for index in stage.indices],
        "synthetic": stage.synthetic,
        "counts": {
            "train_subjects": stage.n_subjects,
            "train_samples": stage.n_train,
            "holdout_samples": stage.n_holdout,
            "samples_seen": state["samples_seen"],
            "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        },
        "loss": {
            "first": state["first"],
            "last": state["last"],
            "holdout": holdout.get("loss"),
            "mean_predictor": holdout.get("mean_predictor_loss"),
            **{
                name: holdout[f"{name}_loss"]
                for name in ("connectivity", "connectivity_mean_predictor")
                if f"{name}_loss" in holdout
            },
        },
        **({} if moved is None else {"target": moved}),
        "seconds": round(state["seconds"], 1),
        "machine": {
            "device": processes.device.type,
            "processes": processes.world,
            "torch": torch.__version__,
        },
    }


def is_finished(run: Path) -> bool:
    """Whether a run folder has its outputs, whole; damaged ones, with a warning, count for nothing."""
    final = run / "final"
    if not all((final / name).exists() for name in (*OUTPUTS, checkpoint_folder.SUMS)):
        return False
    try:
        checkpoint_folder.check(final)
    except DataError as error:
        logger.warning("%s; writing it again, from the last checkpoint", error)
        return False
    return True


def write_outputs(run: Path, model: nn.Module, description: dict[str, Any]) -> None:
    """Put the outputs together in the run folder, whole or not at all: where they are, it is finished."""
    with checkpoint_folder.write_folder(run / "final") as place:
        with atomic_write(place / "metrics.jsonl") as part:
            shutil.copyfile(run / "metrics.jsonl", part)
        write_json(place / "run.json", description)
        checkpoint.save_tensors(model.state_dict(), place / "model.safetensors")


def publish(final: Path, out: Path) -> None:
    """Copy the outputs of a finished run, each in one step, the weights last."""
    for name in OUTPUTS:
        with atomic_write(out / name) as part:
            shutil.copyfile(final / name, part)
