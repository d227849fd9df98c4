"""The three stages of the training: what each reads, how its model is built, and how batches are fed to it."""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import nn

from bhx_model.config import (
    FunctionConfig,
    FusionConfig,
    StageConfig,
    StructureConfig,
    to_dict,
)
from bhx_model.data import augment, loader, masking, shard_hashes, shards, token_index
from bhx_model.data.batch import (
    Batch,
    Draft,
    draft_runs,
    draft_volumes,
    intensities,
    plan_series,
    read_series,
)
from bhx_model.data.memory import Memory
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.shards import Index, Sample, Shard, check_rois
from bhx_model.data.split import read_split
from bhx_model.errors import ConfigError, DataError
from bhx_model.file_hash import file_sha256
from bhx_model.nets.factory import describe_rois
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.remote.urls import Place
from bhx_model.training.encoders import Encoders

CPU = torch.device("cpu")
#: Runs that mean and spread of the connectivity code are taken from, about; they change little with more.
CODE_RUNS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Files that a training reads."""

    shards: Sequence[Place]
    """Indices of the cohorts, or their URLs."""
    split: Path
    rois: Path | None = None
    """Metadata of the ROIs; the structure stage reads no series, and none of it."""
    tokens: Sequence[Place] = ()
    """Indices of cached tokens (fusion)."""
    structure: Path | None = None
    """Folder of the trained structure stage (fusion with ``inputs: online``)."""
    function: Path | None = None


Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")


class _Recent(Generic[Key, Made]):
    """Keeps the last few results of a function, each of which is computed once even if several threads ask for it."""

    def __init__(self, make: Callable[[Key], Made]):
        self._lock = threading.Lock()
        self._make = functools.lru_cache(maxsize=3)(make)

    def __call__(self, key: Key) -> Made:
        with self._lock:
            return self._make(key)


class Stage(abc.ABC):
    """What the loop needs to know of a stage; the subclasses say how it is read and fed to the model.

    Samples are known by their number: those of the training first, those of the holdout after them, each sorted by
    key, so that neither the order of the cohorts nor that of the shards matters.

    Raises
    ------
    ConfigError
        If a cohort is named twice, or the metadata of the ROIs are missing or not those of the shards.
    """

    modalities: tuple[str, ...] = ()
    reads_series = True
    #: Whether the number of tokens that are attended to is drawn in every step.
    draws_lengths = False

    def __init__(self, config: StageConfig, sources: Sources, seed: int):
        self.config, self.seed = config, seed
        self.indices = sorted((shards.open_index(path) for path in sources.shards), key=lambda i: i.cohort)
        for one, next_ in itertools.pairwise(self.indices):
            if one.cohort == next_.cohort:
                msg = (
                    f"the index of {one.cohort} is named twice, or two cohorts have its name: name each once"
                )
                raise ConfigError(msg)
        self.split = read_split(sources.split)
        self.hashes: dict[str, Any] = {
            "shards": [[index.cohort, index.sha256] for index in self.indices],
            "split": file_sha256(sources.split),
        }
        self.known_rois = self._read_rois(sources.rois) if self.reads_series else None
        self._epochs = _Recent(self._epoch)

    def _read_rois(self, path: Path | None) -> RoiMetadata:
        """Metadata of the ROIs, which those of the shards have to be."""
        if path is None:
            msg = f"the stage {self.config.stage} reads series: name the metadata of their ROIs, rois.npz, with --rois"
            raise ConfigError(msg)
        rois = RoiMetadata.load(path)
        self.hashes["rois"] = file_sha256(path)
        for index in self.indices:
            check_rois(index, rois)
        return rois

    @property
    def rois(self) -> RoiMetadata:
        """Metadata of the ROIs of the series, of a stage that reads any."""
        assert self.known_rois is not None
        return self.known_rois

    def _divide(self, samples: Iterable[Any]) -> None:
        """Set `samples`: those of the training, then those of the holdout; an item's first sample has its subject."""
        ordered = sorted(samples, key=lambda item: _first(item).key)
        unknown = sorted({_first(item).subject for item in ordered} - self.split.keys())
        if unknown:
            msg = f"{unknown[0]} and {len(unknown) - 1} more subjects are not in the split: make the split again"
            raise DataError(msg)
        train = [item for item in ordered if self.split[_first(item).subject] == "train"]
        holdout = [item for item in ordered if self.split[_first(item).subject] == "holdout"]
        if not train:
            msg = (
                f"no samples to train the {self.config.stage} stage on: see why the cohorts' scans are excluded; for "
                "cohorts without T1 images set the experiment's `stages` to [function]"
            )
            raise DataError(msg)
        self.samples = [*train, *holdout]
        self.n_train, self.n_holdout = len(train), len(holdout)
        self.n_subjects = len({_first(item).subject for item in train})

    def epoch(self, epoch: int, batch_size: int) -> list[list[list[int]]]:
        """Batches of an epoch of the training, see `bhx_model.data.loader`; made once, whichever threads ask."""
        return self._epochs((epoch, batch_size))

    def _epoch(self, which: tuple[int, int]) -> list[list[list[int]]]:
        epoch, batch_size = which
        buckets = [self.bucket(number, epoch) for number in range(self.n_train)]
        return loader.epoch_batches(buckets, batch_size=batch_size, seed=self.seed, epoch=epoch)

    def holdout(self, batch_size: int) -> list[list[int]]:
        """Batches of the holdout, each of one bucket."""
        by_bucket: dict[Hashable, list[int]] = {}
        for number in range(self.n_train, self.n_train + self.n_holdout):
            by_bucket.setdefault(self.bucket(number, None), []).append(number)
        return [
            numbers[start : start + batch_size]
            for numbers in by_bucket.values()
            for start in range(0, len(numbers), batch_size)
        ]

    def verify(self, record: Path, rank_share: tuple[int, int]) -> None:
        """Check the bytes of all shards that this stage reads; see `bhx_model.data.shard_hashes.verify`."""
        shard_hashes.verify(self._shards(), record=record, rank_share=rank_share)

    def _shards(self) -> list[Shard]:
        return [shard for index in self.indices for m in self.modalities for shard in index.shards[m]]

    def autocast(self, device: torch.device) -> torch.autocast:
        """Compute in the precision of the configuration."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.config.train.amp == "bf16")

    @property
    def synthetic(self) -> bool:
        """Whether any of the data were made, not measured."""
        return any(index.synthetic for index in self.indices)

    @abc.abstractmethod
    def bucket(self, number: int, epoch: int | None) -> Hashable:
        """Bucket of a sample; in training it depends on the epoch, in which a series may be down-sampled."""

    @abc.abstractmethod
    def draft(self, numbers: Sequence[int], step: int, epoch: int | None, memory: Memory) -> Draft:
        """Begin to read samples of one bucket; `epoch` None (holdout) changes nothing about them."""

    def load(self, numbers: Sequence[int], step: int, epoch: int | None) -> Batch:
        """Read samples of one bucket."""
        return self.draft(numbers, step, epoch, Memory()).read()

    @abc.abstractmethod
    def metadata(self) -> dict[str, Any]:
        """What is needed besides the configuration to build the model."""

    @abc.abstractmethod
    def build(self) -> nn.Module:
        """Make the model with new weights from torch's random state."""

    @abc.abstractmethod
    def inputs(self, batch: Batch, *, diagnose: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the model's forward pass, which gives the loss and what to log."""


class StructureStage(Stage):
    """Masked autoencoding of T1 volumes."""

    modalities = ("t1w",)
    reads_series = False

    def __init__(self, config: StageConfig, sources: Sources, seed: int):
        super().__init__(config, sources, seed)
        self.model_config = cast(StructureConfig, config.model)
        self.grid = t1w_grid(self.indices)
        self.n_tokens = int(np.prod([n // self.model_config.patch for n in self.grid]))
        self._divide(sample for index in self.indices for sample in index.samples["t1w"])

    def bucket(self, number: int, epoch: int | None) -> int:
        """All volumes are alike."""
        return 0

    def draft(self, numbers: Sequence[int], step: int, epoch: int | None, memory: Memory) -> Draft:
        """Begin to read volumes, and draw which of their patches are seen."""
        draft = draft_volumes([self.samples[number] for number in numbers], self.grid, memory)
        visible = masking.mae_visible(self.n_tokens, self.model_config.mask_ratio, self.seed, step, numbers)
        draft.batch.tensors["visible"] = torch.from_numpy(visible)
        return draft

    def metadata(self) -> dict[str, Any]:
        """Voxels of the grid."""
        return {"grid": list(self.grid)}

    def build(self) -> nn.Module:
        """Make a new model."""
        return StructureMAE(self.model_config, self.grid)

    def inputs(self, batch: Batch, *, diagnose: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Volumes and visible patches."""
        return (intensities(batch.tensors["volume"]), batch.tensors["visible"]), {}


class FunctionStage(Stage):
    """JEPA on parcel series."""

    modalities = ("bold",)
    draws_lengths = True

    def __init__(self, config: StageConfig, sources: Sources, seed: int):
        super().__init__(config, sources, seed)
        self.model_config = cast(FunctionConfig, config.model)
        self._plans = _Recent(self._plans_of)
        self._divide(sample for index in self.indices for sample in index.samples["bold"])

    def _plan(self, number: int, epoch: int | None) -> augment.SeriesPlan:
        if epoch is None:
            return plan_series(self.samples[number], self.model_config)
        return self._plans(epoch)[number]

    def _plans_of(self, epoch: int) -> list[augment.SeriesPlan]:
        """Plans of all runs of the training."""
        return [
            plan_series(sample, self.model_config, seed=self.seed, epoch=epoch, number=number)
            for number, sample in enumerate(self.samples[: self.n_train])
        ]

    def bucket(self, number: int, epoch: int | None) -> tuple[int, int]:
        """Frames of a patch, and patches."""
        return self._plan(number, epoch).bucket

    def draft(self, numbers: Sequence[int], step: int, epoch: int | None, memory: Memory) -> Draft:
        """Begin to read series, cut and down-sampled as planned, and draw context and targets."""
        chosen = [self.samples[number] for number in numbers]
        plans = [self._plan(number, epoch) for number in numbers]
        draft = draft_runs(chosen, plans, self.rois, self.model_config, memory)
        masks = masking.jepa_masks(
            len(self.rois), plans[0].n_patches, self.model_config, self.seed, step, numbers
        )
        draft.batch.tensors |= {
            "context": torch.from_numpy(masks.context),
            "target": torch.from_numpy(masks.target),
        }
        return draft

    def metadata(self) -> dict[str, Any]:
        """Names and sizes of the per-ROI metadata; their numbers are buffers of the model."""
        return describe_rois(self.rois)

    def build(self) -> nn.Module:
        """Make a new model, and measure how far its connectivity code differs between runs of the training."""
        model = FunctionJEPA(self.model_config, self.rois)
        if self.model_config.connectivity_code:
            step = max(self.n_train // CODE_RUNS, 1)
            model.fit_connectivity(self._whole(self.samples[n]) for n in range(0, self.n_train, step))
        return model

    def _whole(self, sample: Sample) -> tuple[torch.Tensor, int]:
        plan = plan_series(sample, self.model_config)
        series = augment.apply_plan(
            read_series(sample, self.rois, self.model_config), plan, self.model_config
        )
        return torch.from_numpy(series), plan.patch_frames

    def inputs(self, batch: Batch, *, diagnose: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Series and masks."""
        t = batch.tensors
        return (t["series"], batch.patch_frames, t["context"], t["target"]), {"diagnose": diagnose}


class CachedFusionStage(Stage):
    """Hub tokens over both encoders' tokens, read from the cache.

    Raises
    ------
    ConfigError
        If no tokens are named, those of other cohorts, or the loss asks for more tokens than a cache holds.
    """

    def __init__(self, config: StageConfig, sources: Sources, seed: int):
        super().__init__(config, sources, seed)
        self.model_config = cast(FusionConfig, config.model)
        if self.model_config.loss_tokens == "all":
            msg = (
                "model.loss_tokens is all, but the cache holds valid tokens only: set model.inputs to online"
            )
            raise ConfigError(msg)
        if not sources.tokens:
            msg = "the fusion reads cached tokens: name their indices with --tokens, or set model.inputs to online"
            raise ConfigError(msg)
        self.caches = sorted(
            (token_index.open_tokens(path) for path in sources.tokens), key=lambda i: i.cohort
        )
        self._check_sources()
        self.hashes["tokens"] = [[cache.cohort, cache.sha256] for cache in self.caches]
        self.fusion_inputs = token_index.fusion_inputs(self.caches)
        for cache in self.caches:
            check_rois(cache, self.rois)
        self._divide(pair for cache in self.caches for pair in token_index.pairs(cache))

    def _check_sources(self) -> None:
        """Refuse tokens that were not made of these shards."""
        cached, packed = ([index.cohort for index in listed] for listed in (self.caches, self.indices))
        if cached != packed:
            named = " and ".join(", ".join(cohorts) for cohorts in (cached, packed))
            msg = f"tokens and shards are of different cohorts ({named}): name one of each for every cohort"
            raise ConfigError(msg)
        for cache, index in zip(self.caches, self.indices, strict=True):
            if cache.metadata["source"] != index.sha256:
                msg = f"{cache.path} were made of other shards than {index.path}: make the tokens again"
                raise DataError(msg)

    def _shards(self) -> list[Shard]:
        return [shard for cache in self.caches for listed in cache.shards.values() for shard in listed]

    def bucket(self, number: int, epoch: int | None) -> int:
        """Time patches."""
        return self.samples[number][0].n_tokens // len(self.rois)

    def draft(self, numbers: Sequence[int], step: int, epoch: int | None, memory: Memory) -> Draft:
        """Begin to read pairs of tokens, and how much each function token counts."""
        return token_index.draft_pairs([self.samples[number] for number in numbers], len(self.rois), memory)

    def metadata(self) -> dict[str, Any]:
        """Sizes of the tokens that are read, their encoders, and the ROIs they belong to."""
        encoders = self.caches[0].metadata["encoders"]
        return {"inputs": to_dict(self.fusion_inputs), "encoders": encoders, **describe_rois(self.rois)}

    def build(self) -> nn.Module:
        """Make a new model."""
        return FusionModel(self.model_config, self.fusion_inputs)

    def inputs(self, batch: Batch, *, diagnose: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Tokens and weights."""
        t = batch.tensors
        return (t["structure"].float(), t["function"].float(), batch.n_patches, t["weight"]), {}


class OnlineFusionStage(Stage):
    """Hub tokens over both encoders' tokens, computed from the shards by the frozen encoders in every step.

    Raises
    ------
    ConfigError
        If an encoder is not named.
    """

    modalities = ("bold", "t1w")

    def __init__(self, config: StageConfig, sources: Sources, seed: int, device: torch.device):
        super().__init__(config, sources, seed)
        self.model_config = cast(FusionConfig, config.model)
        if sources.structure is None or sources.function is None:
            msg = "model.inputs is online: name the trained encoders with --structure and --function"
            raise ConfigError(msg)
        self.encoders = Encoders.open(sources.structure, sources.function).to(device)
        self.encoders.check(self.indices)
        self.hashes |= {"encoders": self.encoders.hashes, "encoder_settings": self.encoders.settings}
        pairs = [shards.pair(index.samples["bold"], index.samples["t1w"])[0] for index in self.indices]
        self._divide(pair for listed in pairs for pair in listed)

    def bucket(self, number: int, epoch: int | None) -> tuple[int, int]:
        """Frames of a patch, and patches."""
        return plan_series(self.samples[number][0], self.encoders.function.config).bucket

    def draft(self, numbers: Sequence[int], step: int, epoch: int | None, memory: Memory) -> Draft:
        """Begin to read pairs of series and volumes."""
        return self.encoders.draft([self.samples[number] for number in numbers], memory)

    def metadata(self) -> dict[str, Any]:
        """Sizes of the tokens that are read, their encoders, and the ROIs they belong to."""
        inputs = to_dict(self.encoders.fusion_inputs())
        return {"inputs": inputs, "encoders": dict(self.encoders.hashes), **describe_rois(self.rois)}

    def build(self) -> nn.Module:
        """Make a new model."""
        return FusionModel(self.model_config, self.encoders.fusion_inputs())

    def inputs(self, batch: Batch, *, diagnose: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Tokens and weights."""
        padded = (
            self.encoders.function.config.time_patches if self.model_config.loss_tokens == "all" else None
        )
        structure, function, weight = self.encoders.encode(batch, pad_to=padded)
        weights = None if padded else weight
        return (structure.float(), function.float(), batch.n_patches, weights), {}


def open_stage(config: StageConfig, sources: Sources, seed: int, device: torch.device = CPU) -> Stage:
    """Open the inputs of a stage and check that they fit each other.

    Parameters
    ----------
    config, sources, seed
        Of the training.
    device
        Where frozen encoders compute, which a fusion with ``inputs: online`` reads through.

    Raises
    ------
    DataError
        If they do not.
    """
    if config.stage == "structure":
        return StructureStage(config, sources, seed)
    if config.stage == "function":
        return FunctionStage(config, sources, seed)
    if cast(FusionConfig, config.model).inputs == "online":
        return OnlineFusionStage(config, sources, seed, device)
    return CachedFusionStage(config, sources, seed)


def t1w_grid(indices: Sequence[Index]) -> tuple[int, int, int]:
    """Voxels of the T1 volumes, which all cohorts must share.

    Raises
    ------
    DataError
        If they do not, or no cohort has a T1.
    """
    grids = {tuple(index.metadata["t1w_shape"]): index for index in indices if index.samples["t1w"]}
    if len(grids) != 1:
        named = ", ".join(f"{index.cohort} {grid}" for grid, index in grids.items()) or "none"
        msg = f"all cohorts need T1 volumes on one grid, there are: {named}; pack them with one features.t1w_shape"
        raise DataError(msg)
    ((x, y, z),) = grids
    return x, y, z


def _first(item: Sample | tuple[Sample, Sample]) -> Sample:
    return item if isinstance(item, Sample) else item[0]
