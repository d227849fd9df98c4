"""Samples as the model reads them (BOLD runs and T1s), and batches of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

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
    on_device: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
    """Makes the tensors of those that were copied to a device; None if they are those."""

    def pin(self) -> Batch:
        """Copy the tensors to memory that a GPU, if there is one, reads by itself; that takes long, so do it ahead."""
        if not torch.cuda.is_available():
            return self
        return dataclasses.replace(self, tensors={name: t.pin_memory() for name, t in self.tensors.items()})

    def to(self, device: torch.device) -> Batch:
        """Move the tensors; out of pinned memory, the copy overlaps with work."""
        moved = {name: t.to(device, non_blocking=True) for name, t in self.tensors.items()}
        if self.on_device is not None:
            moved = self.on_device(moved)
        return dataclasses.replace(self, tensors=moved, on_device=None)


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
    both = dataclasses.replace(runs.batch, tensors=tensors, on_device=volumes.batch.on_device)
    return Draft(both, runs.fills + volumes.fills)


def draft_volumes(samples: Sequence[Sample], grid: Sequence[int], memory: Memory) -> Draft:
    """Begin to read T1 volumes, (B, *grid) int16, in steps (see `bhx_model.data.volumes`).

    Of those for a GPU the differences of planes are read; the GPU adds them up.
    """
    keys = [sample.key for sample in samples]
    if memory.pinned:
        return _draft_differences(keys, samples, tuple(grid), memory)
    steps = memory.empty((len(samples), *grid), torch.int16)
    fills = [
        functools.partial(shards.read_t1w_into, sample, place)
        for sample, place in zip(samples, steps.numpy(), strict=True)
    ]
    return Draft(Batch(keys, {"volume": steps}), fills)


def _draft_differences(
    keys: list[str], samples: Sequence[Sample], grid: tuple[int, ...], memory: Memory
) -> Draft:
    differences_BN = memory.empty((len(samples), math.prod(grid)), torch.int16)
    boxes: list[volumes.Box | None] = [None] * len(samples)

    def fill(number: int, place_N: np.ndarray) -> None:
        boxes[number] = shards.decompress_t1w(samples[number], grid, place_N)

    def on_device(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**tensors, "volume": add_up(tensors["volume"], cast(list[volumes.Box], boxes), grid)}

    places = differences_BN.numpy().view(np.uint16)
    fills = [functools.partial(fill, number, place_N) for number, place_N in enumerate(places)]
    return Draft(Batch(keys, {"volume": differences_BN}, on_device=on_device), fills)


def add_up(differences_BN: Tensor, boxes: Sequence[volumes.Box], grid: Sequence[int]) -> Tensor:
    """Volumes, (B, *grid) int16, of what `bhx_model.data.volumes.decompress` gives of each, on its device.

    Parameters
    ----------
    differences_BN : (B, N) int16
        Bits of the differences (uint16).
    boxes
        Where those of each sample belong.
    grid
        Shape of the volumes.
    """
    out_BXYZ = differences_BN.new_zeros((len(boxes), *grid))
    biases_X = torch.arange(1, grid[0] + 1, device=out_BXYZ.device).mul(volumes.BIAS).to(out_BXYZ.dtype)
    for differences_N, box, out_XYZ in zip(differences_BN, boxes, out_BXYZ, strict=True):
        (x, y), (n_x, n_y) = box.corner, box.size
        if box.voxels:
            lines_XYZ = differences_N[: box.voxels].view(n_x, n_y, grid[2])
            sums_XYZ = lines_XYZ.cumsum(0, dtype=lines_XYZ.dtype)  # modulo 2**16, as they were taken
            torch.sub(sums_XYZ, biases_X[:n_x, None, None], out=out_XYZ[x : x + n_x, y : y + n_y])
    return out_BXYZ


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
