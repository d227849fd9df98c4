"""Choose the number of micro-batches per step, so that each fits in GPU memory."""

from __future__ import annotations

import dataclasses
import logging
from typing import cast

import torch

from bhx_model import gpu_memory
from bhx_model.config import FunctionConfig, FusionConfig
from bhx_model.errors import SiteError
from bhx_model.gpu_memory import GIB, Sizes
from bhx_model.training.distributed import Processes
from bhx_model.training.stages import (
    CachedFusionStage,
    FunctionStage,
    OnlineFusionStage,
    Stage,
    StructureStage,
)

logger = logging.getLogger(__name__)


def memory(processes: Processes) -> float | None:
    """Memory (bytes) of the smallest GPU of a training; None on CPUs, which are not asked."""
    if processes.device.type != "cuda":
        return None
    mine = torch.cuda.get_device_properties(processes.device).total_memory
    return min(float(each) for each in processes.gather([str(mine)]))


def settle(stage: Stage, processes: Processes, available: float | None) -> None:
    """Put a number in the place of ``train.accumulate: auto``, the same in all processes; warn of one that is too small.

    Parameters
    ----------
    stage : Stage
        Its configuration is changed.
    processes : Processes
        Of the training.
    available : float or None
        From `memory`.
    """
    t = stage.config.train
    if available is None:
        accumulate = t.parts
    else:
        what = gpu_memory.need(stage.config, sizes(stage), processes=processes.world)
        fitting = gpu_memory.fitting_accumulate(stage.config, what, available, processes.world)
        # where not even one sample should fit, it is tried: it is an estimate
        accumulate = (fitting or t.batch_size) if t.accumulate == "auto" else t.accumulate
        if processes.first:
            _log(stage, what, available, processes.world, accumulate, fitting)
    stage.config = dataclasses.replace(stage.config, train=dataclasses.replace(t, accumulate=accumulate))


def _log(
    stage: Stage, what: gpu_memory.Need, available: float, world: int, accumulate: int, fitting: int | None
) -> None:
    part = gpu_memory.part_size(stage.config, world, accumulate)
    estimate = what.of(part) / GIB
    logger.info(
        "%s: train.accumulate %d, %d samples at a time, about %.0f of a GPU's %.0f GB",
        stage.config.stage, accumulate, part, estimate, available / GIB,
    )  # fmt: skip
    if fitting is None or accumulate < fitting:
        remedy = _last_remedy(stage) if fitting is None else f"set train.accumulate to {fitting}"
        logger.warning("the GPU's memory may not be enough: then %s, and start again", remedy)


def out_of_memory(stage: Stage) -> SiteError:
    """Say what to do where a step did not fit."""
    t = stage.config.train
    more = next((n for n in range(2 * t.parts, t.batch_size + 1) if t.batch_size % n == 0), None)
    remedy = _last_remedy(stage) if more is None else f"set train.accumulate, now {t.parts}, to {more}"
    return SiteError(f"the GPU's memory is full: {remedy}; the training goes on from its last checkpoint")


def _last_remedy(stage: Stage) -> str:
    """What is left to do where a batch is cut into its samples."""
    if stage.config.model.checkpointing:
        return "use GPUs with more memory, or a smaller preset"
    return "set model.checkpointing to true"


def sizes(stage: Stage) -> Sizes:
    """Sizes of the largest samples that a stage is trained on."""
    if isinstance(stage, StructureStage):
        return Sizes(grid=stage.grid)
    buckets = [stage.bucket(number, None) for number in range(stage.n_train)]
    lengths = [bucket[1] if isinstance(bucket, tuple) else cast(int, bucket) for bucket in buckets]
    if isinstance(stage, FunctionStage):
        model = cast(FunctionConfig, stage.config.model)
        # frames of a down-sampled series may round to one patch more
        patches = min(max(lengths) + model.tr_augment, model.time_patches)
        return Sizes(rois=len(stage.rois), patches=patches, frames=max(frames for frames, _ in buckets))  # type: ignore[misc]
    model = cast(FusionConfig, stage.config.model)
    online = isinstance(stage, OnlineFusionStage)
    inputs = stage.encoders.fusion_inputs() if online else cast(CachedFusionStage, stage).fusion_inputs
    return Sizes(
        rois=inputs.rois,
        patches=inputs.time_patches if model.loss_tokens == "all" else max(lengths),
        structure_tokens=inputs.structure_tokens,
        structure_width=inputs.structure_width,
        function_width=inputs.function_width,
    )
