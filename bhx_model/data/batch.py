"""Samples as the model reads them (BOLD runs and T1s), and batches of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bhx_model.config import FunctionConfig
from bhx_model.data import augment, shards, volumes
from bhx_model.data.memory import Memory
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.shards import Sample
from bhx_model.errors import DataError


@dataclasses.dataclass
class Batch:
    """Samples of one bucket, stacked, and the masks that go with them."""

    keys: list[str]
    tensors: dict[str, Tensor]
    patch_frames: int = 0
    n_patches: int = 0

    def pin(self) -> Batch:
        """Copy the tensors to memory that a GPU, if there is one, reads by itself; that takes long, so do it ahead."""
        if not torch.cuda.is_available():
            return self
        return dataclasses.replace(self, tensors={name: t.pin_memory() for name, t in self.tensors.items()})

    def to(self, device: torch.device) -> Batch:
        """Move the tensors; out of pinned memory, the copy overlaps with work."""
        moved = {name: t.to(device, non_blocking=True) for name, t in self.tensors.items()}
        return dataclasses.replace(self, tensors=moved)


@dataclasses.dataclass
class Draft:
    """A batch with the memory of its tensors, and what puts the samples there.

    Each call of `fills` puts one array into a place of its own: they may run in any order, and at once.
    """

    batch: Batch
    fills: list[Callable[[], None]]

    def read(self) -> Batch:
        """Put everything in its place."""
        for fill in self.fills:
            fill()
        return self.batch


def intensities(steps: Tensor) -> Tensor:
    """Float32 intensities in sd of stored volumes, made where they are computed with: half as much to move there."""
    return steps.float() / volumes.STEPS_PER_SD


def plan_series(
    sample: Sample, config: FunctionConfig, *, seed: int = 0, epoch: int = 0, number: int | None = None
) -> augment.SeriesPlan:
    """Plan what is read of a run; errors name it.

    Raises
    ------
    DataError
        If the model cannot read it.
    """
    try:
        return augment.plan_series(
            sample.tr_s,
            sample.n_frames,
            config,
            segments=sample.segments,
            seed=seed,
            epoch=epoch,
            sample=number,
        )
    except DataError as error:
        msg = f"{sample.key}: {error}"
        raise DataError(msg) from error


def read_series(sample: Sample, rois: RoiMetadata, config: FunctionConfig) -> np.ndarray:
    """Read a run, (R, T) float32, and refuse what the model cannot embed.

    Raises
    ------
    DataError
        If it cannot be read or embedded, with its key and shard.
    """
    series = shards.read_bold(sample, len(rois))
    try:
        augment.check_series(series, sample.tr_s, len(rois), config, sample.segments)
    except DataError as error:
        msg = f"{sample.key} in {sample.shard}: {error}"
        raise DataError(msg) from error
    return series


def draft_runs(
    runs: Sequence[Sample],
    plans: Sequence[augment.SeriesPlan],
    rois: RoiMetadata,
    config: FunctionConfig,
    memory: Memory,
) -> Draft:
    """Begin to read the series of runs of one bucket as planned."""
    patch_frames, n_patches = plans[0].bucket
    series = memory.empty((len(runs), len(rois), n_patches * patch_frames), torch.float32)
    fills = [
        functools.partial(_read_run, run, plan, rois, config, place)
        for run, plan, place in zip(runs, plans, series.numpy(), strict=True)
    ]
    return Draft(Batch([run.key for run in runs], {"series": series}, patch_frames, n_patches), fills)


def _read_run(
    run: Sample, plan: augment.SeriesPlan, rois: RoiMetadata, config: FunctionConfig, place: np.ndarray
) -> None:
    augment.apply_plan(read_series(run, rois, config), plan, config, out=place)


def draft_both(runs: Draft, volumes: Draft) -> Draft:
    """Pairs of series and T1 volumes, named after the runs."""
    tensors = runs.batch.tensors | volumes.batch.tensors
    return Draft(dataclasses.replace(runs.batch, tensors=tensors), runs.fills + volumes.fills)


def draft_volumes(samples: Sequence[Sample], grid: Sequence[int], memory: Memory) -> Draft:
    """Begin to read T1 volumes, (B, *grid) int16, in steps (see `bhx_model.data.volumes`)."""
    steps = memory.empty((len(samples), *grid), torch.int16)
    fills = [
        functools.partial(shards.read_t1w_into, sample, place)
        for sample, place in zip(samples, steps.numpy(), strict=True)
    ]
    return Draft(Batch([sample.key for sample in samples], {"volume": steps}), fills)


def read_runs(
    runs: Sequence[Sample], plans: Sequence[augment.SeriesPlan], rois: RoiMetadata, config: FunctionConfig
) -> Batch:
    """Read the series of runs of one bucket as planned."""
    return draft_runs(runs, plans, rois, config, Memory()).read()


def of_equal_bucket(
    runs: Sequence[Sample], plans: Mapping[str, augment.SeriesPlan], size: int
) -> list[list[Sample]]:
    """Cut runs into batches of at most `size` runs of equal bucket; `plans` by the key of the run."""
    batches = []
    for bucket in sorted({plans[run.key].bucket for run in runs}):
        alike = [run for run in runs if plans[run.key].bucket == bucket]
        batches += [alike[first : first + size] for first in range(0, len(alike), size)]
    return batches
