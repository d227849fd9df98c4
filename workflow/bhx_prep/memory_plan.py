"""Estimate the GPU memory of a study's trainings before anything is computed."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence

from bhx_model import gpu_memory, gpus
from bhx_model.config import (
    EvaluationConfig,
    FunctionConfig,
    StageConfig,
    StructureConfig,
    load_preset,
    preset_evaluation,
)
from bhx_model.errors import DataError
from bhx_model.gpu_memory import GIB, Need, Sizes
from bhx_prep.atlas.label_lists import read_label_list
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.config.config import Config
from bhx_prep.trainings import overrides


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """The training of one stage on GPUs; `memory_gb` of each of them, in units of 2^30 bytes, None where it is not known."""

    experiment: str
    stage: str
    config: StageConfig
    processes: int
    sizes: Sizes
    memory_gb: float | None

    @property
    def need(self) -> Need:
        """Memory that it takes."""
        return gpu_memory.need(self.config, self.sizes, processes=self.processes)

    @property
    def fitting(self) -> int | None:
        """Least number of parts that fit, None if no number does; 1 where the memory is not known."""
        if self.memory_gb is None:
            return 1
        return gpu_memory.fitting_accumulate(self.config, self.need, self.memory_gb * GIB, self.processes)

    @property
    def accumulate(self) -> int:
        """Parts that it will be trained in."""
        asked = self.config.train.accumulate
        return (self.fitting or self.config.train.batch_size) if asked == "auto" else asked

    @property
    def text(self) -> str:
        """A line for the user."""
        n = self.processes
        line = (
            f"experiments.{self.experiment}, {self.stage} on {n} GPU{'s' * (n > 1)}: about "
            f"{self.need.per_sample / GIB:.1f} GB a sample and {self.need.fixed / GIB:.1f} GB besides"
        )
        if self.memory_gb is None:
            return f"{line}; state gpu_memory_gb to know how many samples fit"
        part = gpu_memory.part_size(self.config, n, self.accumulate)
        return (
            f"{line}; with train.accumulate {self.accumulate} {part} at a time, {self.need.of(part) / GIB:.0f} of "
            f"{self.memory_gb:.0f} GB"
        )

    @property
    def mistake(self) -> str | None:
        """What is wrong if not even one sample at a time fits."""
        if self.fitting is not None or self.memory_gb is None:
            return None
        checkpointing = "" if self.config.model.checkpointing else "set model.checkpointing to true, or "
        return (
            f"experiments.{self.experiment}: the {self.stage} stage needs about {self.need.of(1) / GIB:.1f} GB a sample,"
            f" of a GPU's {self.memory_gb:.0f} GB: {checkpointing}choose a smaller preset"
        )

    @property
    def warning(self) -> str | None:
        """What does not fit, though another number of parts would; or GPUs that have nothing to do."""
        batch, fitting = self.config.train.batch_size, self.fitting
        name = f"experiments.{self.experiment}.overrides.{self.stage}"
        if batch < self.processes:
            idle = f"{self.processes - batch} of {self.processes} GPUs"
            return f"{name}: train.batch_size {batch} leaves {idle} idle: change one of them"
        if fitting is not None and self.memory_gb is not None and self.accumulate < fitting:
            return (
                f"{name}: with train.accumulate {self.accumulate} a GPU's {self.memory_gb:.0f} GB are not enough: set it to "
                f"{fitting}, or to auto"
            )
        return None


def plans(config: Config, *, elsewhere: bool = False) -> list[StagePlan]:
    """The stages that are trained on GPUs.

    Parameters
    ----------
    config : Config
        Checked. An experiment's `gpu_memory_gb` overrides what ``nvidia-smi`` reports.
    elsewhere : bool
        Whether jobs run on other machines than this one.
    """
    wanted = {name: e for name, e in config.experiments.items() if e.gpus and e.weights is None}
    here = (
        [gpu.gb for gpu in gpus.visible(gpus.present(), os.environ) if gpu.gb]
        if wanted and not elsewhere
        else []
    )
    rois = count_rois(config.atlas)
    found = []
    for name, experiment in wanted.items():
        memory_gb = experiment.gpu_memory_gb or min(here, default=None)
        stages = {
            stage: load_preset(stage, experiment.preset).override(overrides(config, name, stage))
            for stage in experiment.stages
        }
        sizes = _sizes(config, stages, rois)
        found += [
            StagePlan(name, stage, one, experiment.gpus, sizes, memory_gb) for stage, one in stages.items()
        ]
    return found


def mistakes(found: Sequence[StagePlan]) -> Iterator[str]:
    """What does not fit at all."""
    return (plan.mistake for plan in found if plan.mistake is not None)


def warnings(found: Sequence[StagePlan]) -> Iterator[str]:
    """What should be changed."""
    return (plan.warning for plan in found if plan.warning is not None)


def finetuning_warnings(config: Config, found: Sequence[StagePlan]) -> Iterator[str]:
    """Endpoints whose fine-tuning would not fit in the memory of a GPU: known before anything is trained."""
    fusions = {
        plan.experiment: plan for plan in found if plan.stage == "fusion" and plan.memory_gb is not None
    }
    for name, endpoint in config.endpoints.items():
        for experiment, plan in fusions.items() if "finetune" in endpoint.methods else ():
            settings = EvaluationConfig(
                **{**preset_evaluation(config.experiments[experiment].preset), **endpoint.finetune}
            )
            need = gpu_memory.finetuning(plan.config, plan.sizes)
            fits, part = (
                need.samples((plan.memory_gb or 0) * GIB),
                -(-settings.batch_size // settings.accumulate),
            )
            if part > fits:
                least = -(-settings.batch_size // max(fits, 1))
                yield (
                    f"endpoints.{name}.finetune: {part} runs at a time need about {need.of(part) / GIB:.0f} GB with "
                    f"experiment {experiment}, of a GPU's {plan.memory_gb:.0f} GB: set accumulate to {least}"
                )


def count_rois(atlas: AtlasSection) -> int:
    """ROIs of the atlas that is configured; of a list of names that cannot be read, as many as Schaefer's has."""
    if atlas.name and atlas.names:
        try:
            return len(read_label_list(atlas.names).names)
        except DataError:  # another check reports it
            pass
    return atlas.parcels + atlas.n_subcortical


def _sizes(config: Config, stages: dict[str, StageConfig], rois: int) -> Sizes:
    """Sizes of the data: series are taken to be as long as the model takes them, for their length is not known yet."""
    grid, sizes = config.features.t1w_shape, Sizes(grid=config.features.t1w_shape, rois=rois)
    structure = stages["structure"].model if "structure" in stages else None
    function = stages["function"].model if "function" in stages else None
    if isinstance(structure, StructureConfig):
        tokens = math.prod(n // structure.patch for n in grid)
        sizes = dataclasses.replace(sizes, structure_tokens=tokens, structure_width=structure.width)
    if isinstance(function, FunctionConfig):
        sizes = dataclasses.replace(
            sizes, patches=function.time_patches, frames=function.base_patch, function_width=function.width
        )
    return sizes
