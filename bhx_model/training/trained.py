"""Find a trained stage in its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from bhx_model.atomic_write import read_json
from bhx_model.config import StageConfig
from bhx_model.errors import DataError
from bhx_model.file_hash import file_sha256
from bhx_model.nets import factory
from bhx_model.training import checkpoint


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained stage: its model, and what its ``run.json`` states."""

    model: nn.Module
    config: StageConfig
    run: Mapping[str, Any]
    sha256: str
    """Of the weights' file."""


def load_trained(folder: Path, stage: str) -> Trained:
    """Build the model of a trained stage and load its weights.

    Raises
    ------
    DataError
        If the folder holds no such stage, or weights that do not fit its configuration.
    """
    try:
        run = read_json(folder / "run.json", "train the stage again")
    except FileNotFoundError as error:
        msg = f"{folder} holds no trained stage (no run.json): train it first"
        raise DataError(msg) from error
    if run.get("stage") != stage:
        msg = f"{folder} holds the stage {run.get('stage')}, not {stage}: name the other folder"
        raise DataError(msg)
    lacking = {"config", "model_metadata", "counts", "loss", "cohorts", "synthetic"} - run.keys()
    if lacking:
        msg = f"{folder / 'run.json'} has no {', '.join(sorted(lacking))}: train the stage again"
        raise DataError(msg)
    config, model = factory.model_of(run, folder / "run.json")
    weights = folder / "model.safetensors"
    checkpoint.load_weights(model, weights)
    return Trained(model.eval().requires_grad_(False), config, run, file_sha256(weights))
