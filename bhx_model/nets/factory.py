"""Build the models of the three stages from their configuration and the metadata saved with their weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from bhx_model.config import (
    FunctionConfig,
    FusionInputs,
    ModelConfig,
    StageConfig,
    StructureConfig,
    from_dict,
    stage_from_dict,
)
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import DataError
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE


def model_of(about: Mapping[str, Any], source: Path) -> tuple[StageConfig, nn.Module]:
    """Configuration and model, into which weights are then loaded, of what `source` states about a stage.

    Raises
    ------
    DataError
        If that is not whole.
    """
    config = stage_from_dict(about["config"])
    try:
        model = build_model(config.model, about["model_metadata"])
        if config.stage == "fusion":
            dict(about["model_metadata"]["encoders"])  # whose tokens it reads
    except (KeyError, TypeError, ValueError) as error:  # whatever stands in the file instead
        msg = f"{source}: its metadata do not make a {config.stage} model ({error!r}): take it as it was made"
        raise DataError(msg) from error
    return config, model


def build_model(config: ModelConfig, metadata: Mapping[str, Any]) -> nn.Module:
    """Build a model for given weights, from its configuration and the metadata saved with them."""
    if isinstance(config, StructureConfig):
        x, y, z = metadata["grid"]
        return StructureMAE(config, (x, y, z))
    if isinstance(config, FunctionConfig):
        return FunctionJEPA(config, empty_rois(metadata))
    return FusionModel(config, from_dict(FusionInputs, metadata["inputs"], "inputs"))


def describe_rois(rois: RoiMetadata) -> dict[str, Any]:
    """Names and sizes of per-ROI metadata, from which `empty_rois` makes some of the same form."""
    return {
        "atlas": rois.atlas, "roi_names": list(rois.names), "roi_sha256": rois.roi_sha256,
        "modes": rois.harmonics.shape[1], "gradients": rois.gradients.shape[1],
    }  # fmt: skip


def empty_rois(metadata: Mapping[str, Any]) -> RoiMetadata:
    """Per-ROI metadata of the right form whose numbers the weights will replace."""
    n, modes = len(metadata["roi_names"]), metadata["modes"]
    zeros = functools.partial(np.zeros, dtype=np.float32)
    return RoiMetadata(
        metadata["atlas"], tuple(metadata["roi_names"]), np.zeros(n, np.int8), zeros((n, modes)), np.zeros((2, modes)),
        zeros((n, metadata["gradients"])), zeros(n), np.ones(n, np.float32),
    )  # fmt: skip
