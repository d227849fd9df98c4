"""The three stages of the training: what each reads, how its model is built, and how a trained one is found again."""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from bhx_model.atomic_write import read_json
from bhx_model.config import (
    FunctionConfig,
    FusionConfig,
    FusionInputs,
    ModelConfig,
    StageConfig,
    StructureConfig,
    from_dict,
    stage_from_dict,
    to_dict,
)
from bhx_model.data import augment, masking, shards, token_index, volumes
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.shards import Index, Sample, Shard
from bhx_model.errors import DataError
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.nets.vit import hold_in_bfloat16
from bhx_model.training import checkpoint

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Files that a training reads."""

    shards: Sequence[Path]
    split: Path
    rois: Path
    tokens: Sequence[Path] = ()
    """Indices of cached tokens (fusion)."""
    structure: Path | None = None
    """Folder of the trained structure stage (fusion with ``inputs: online``)."""
    function: Path | None = None


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


class Stage(abc.ABC):
    """What the loop needs to know of a stage; the subclasses say how it is read and fed to the model.

    Samples are known by their number: those of the training first, those of the holdout after them, each sorted by
    key, so that neither the order of the cohorts nor that of the shards matters.
    """

    modalities: tuple[str, ...] = ()

    def __init__(self, config: StageConfig, sources: Sources, seed: int):
        self.config, self.seed = config, seed
        self.indices = sorted((shards.open_index(path) for path in sources.shards), key=lambda i: i.cohort)
        for one, next_ in itertools.pairwise(self.indices):
            if one.cohort == next_.cohort:
                msg = (
                    f"the index of {one.cohort} is named twice, or two cohorts have its name: name each once"
                )
                raise DataError(msg)
        self.rois = RoiMetadata.load(sources.rois)
        self.people = read_split(sources.split)
        self.hashes: dict[str, Any] = {
            "shards": [[index.cohort, index.sha256] for index in self.indices],
            "split": shards.file_sha256(sources.split),
            "rois": shards.file_sha256(sources.rois),
        }
        for index in self.indices:
            check_rois(index, self.rois)
        self.epoch = functools.lru_cache(maxsize=2)(self._epoch)

    def _divide(self, samples: Iterable[Any]) -> None:
        """Set `samples`: those of the training, then those of the holdout; an item's first sample says whose it is."""
        ordered = sorted(samples, key=lambda item: _first(item).key)
        strangers = sorted({_first(item).subject for item in ordered} - self.people.keys())
        if strangers:
            msg = f"{strangers[0]} and {len(strangers) - 1} more people are not in the split: make the split again"
            raise DataError(msg)
        train = [item for item in ordered if self.people[_first(item).subject] == "train"]
        holdout = [item for item in ordered if self.people[_first(item).subject] == "holdout"]
        if not train:
            msg = f"no samples to train the {self.config.stage} stage on: look at the cohorts' excluded scans"
            raise DataError(msg)
        self.samples = [*train, *holdout]
        self.n_train, self.n_holdout = len(train), len(holdout)
        self.n_people = len({_first(item).subject for item in train})

    def _epoch(self, epoch: int, batch_size: int) -> list[list[list[int]]]:
        """Batches of an epoch of the training, see `data.epoch_batches`; the last few epochs asked for are kept."""
        buckets = [self.bucket(number, epoch) for number in range(self.n_train)]
        return shards.epoch_batches(buckets, batch_size=batch_size, seed=self.seed, epoch=epoch)

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

    def verify(self, record: Path, share: tuple[int, int]) -> None:
        """Check the bytes of all shards that this stage reads; see `data.verify`."""
        shards.verify(self._shards(), record=record, share=share)

    def _shards(self) -> list[Shard]:
        return [shard for index in self.indices for m in self.modalities for shard in index.shards[m]]

    @property
    def synthetic(self) -> bool:
        """Whether any of the data were made, not measured."""
        return any(index.synthetic for index in self.indices)

    @abc.abstractmethod
    def bucket(self, number: int, epoch: int | None) -> Hashable:
        """Bucket of a sample; in training it depends on the epoch, in which a series may be down-sampled."""

    @abc.abstractmethod
    def load(self, numbers: Sequence[int], step: int, epoch: int | None) -> Batch:
        """Read samples of one bucket; `epoch` None (holdout) changes nothing about them."""

    @abc.abstractmethod
    def metadata(self) -> dict[str, Any]:
        """What it takes besides the configuration to build the model."""

    @abc.abstractmethod
    def build(self) -> nn.Module:
        """Make the model with new weights from torch's random state."""

    @abc.abstractmethod
    def inputs(self, batch: Batch, *, diagnose: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the model's forward pass, which gives the loss and what to log."""


class StructureStage(Stage):
    """Masked autoencoding of T1 volumes."""

    modalities = ("t1w",)

    def __init__(self, config: StageConfig, sources: Sources, seed: int):
        super().__init__(config, sources, seed)
        self.model_config = cast(StructureConfig, config.model)
        self.grid = t1w_grid(self.indices)
        self.n_tokens = int(np.prod([n // self.model_config.patch for n in self.grid]))
        self._divide(sample for index in self.indices for sample in index.samples["t1w"])

    def bucket(self, number: int, epoch: int | None) -> int:
        """All volumes are alike."""
        return 0

    def load(self, numbers: Sequence[int], step: int, epoch: int | None) -> Batch:
        """Read volumes, and draw which of their patches are seen."""
        chosen = [self.samples[number] for number in numbers]
        visible = masking.mae_visible(self.n_tokens, self.model_config.mask_ratio, self.seed, step, numbers)
        tensors = {
            "volume": torch.from_numpy(shards.read_t1w(chosen, self.grid)),
            "visible": torch.from_numpy(visible),
        }
        return Batch([sample.key for sample in chosen], tensors)

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

    def __init__(self, config: StageConfig, sources: Sources, seed: int):
        super().__init__(config, sources, seed)
        self.model_config = cast(FunctionConfig, config.model)
        self._divide(sample for index in self.indices for sample in index.samples["bold"])

    def _plan(self, number: int, epoch: int | None) -> augment.SeriesPlan:
        sample: Sample = self.samples[number]
        return plan_series(
            sample,
            self.model_config,
            seed=self.seed,
            epoch=epoch or 0,
            number=None if epoch is None else number,
        )

    def bucket(self, number: int, epoch: int | None) -> tuple[int, int]:
        """Frames of a patch, and patches."""
        return self._plan(number, epoch).bucket

    def load(self, numbers: Sequence[int], step: int, epoch: int | None) -> Batch:
        """Read series, cut and down-sample them as planned, and draw context and targets."""
        chosen = [self.samples[number] for number in numbers]
        plans = [self._plan(number, epoch) for number in numbers]
        series = np.stack([
            augment.apply_plan(read_series(sample, self.rois, self.model_config), plan, self.model_config)
            for sample, plan in zip(chosen, plans, strict=True)
        ])  # fmt: skip
        masks = masking.jepa_masks(
            len(self.rois), plans[0].n_patches, self.model_config, self.seed, step, numbers
        )
        tensors = {
            "series": torch.from_numpy(series),
            "context": torch.from_numpy(masks.context),
            "target": torch.from_numpy(masks.target),
        }
        return Batch([s.key for s in chosen], tensors, plans[0].patch_frames, plans[0].n_patches)

    def metadata(self) -> dict[str, Any]:
        """Names and sizes of the per-ROI metadata; their numbers are buffers of the model."""
        return roi_facts(self.rois)

    def build(self) -> nn.Module:
        """Make a new model."""
        return FunctionJEPA(self.model_config, self.rois)

    def inputs(self, batch: Batch, *, diagnose: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Series and masks."""
        t = batch.tensors
        return (t["series"], batch.patch_frames, t["context"], t["target"]), {"diagnose": diagnose}


class CachedFusionStage(Stage):
    """Hub tokens over both encoders' tokens, read from the cache."""

    def __init__(self, config: StageConfig, sources: Sources, seed: int):
        super().__init__(config, sources, seed)
        self.model_config = cast(FusionConfig, config.model)
        if self.model_config.loss_tokens == "all":
            msg = (
                "model.loss_tokens is all, but the cache holds valid tokens only: set model.inputs to online"
            )
            raise DataError(msg)
        if not sources.tokens:
            msg = "the fusion reads cached tokens: name their indices with --tokens, or set model.inputs to online"
            raise DataError(msg)
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
            raise DataError(msg)
        for cache, index in zip(self.caches, self.indices, strict=True):
            if cache.metadata["source"] != index.sha256:
                msg = f"{cache.path} were made of other shards than {index.path}: make the tokens again"
                raise DataError(msg)

    def _shards(self) -> list[Shard]:
        return [shard for cache in self.caches for listed in cache.shards.values() for shard in listed]

    def bucket(self, number: int, epoch: int | None) -> int:
        """Time patches."""
        return self.samples[number][0].n_tokens // len(self.rois)

    def load(self, numbers: Sequence[int], step: int, epoch: int | None) -> Batch:
        """Read pairs of tokens, and how much each function token counts."""
        pairs = [self.samples[number] for number in numbers]
        tensors = token_index.read_pairs(pairs, len(self.rois))
        return Batch(
            [function.key for function, _ in pairs], tensors, n_patches=self.bucket(numbers[0], None)
        )

    def metadata(self) -> dict[str, Any]:
        """Sizes of the tokens that come in, whose they are, and the ROIs they belong to."""
        encoders = self.caches[0].metadata["encoders"]
        return {"inputs": to_dict(self.fusion_inputs), "encoders": encoders, **roi_facts(self.rois)}

    def build(self) -> nn.Module:
        """Make a new model."""
        return FusionModel(self.model_config, self.fusion_inputs)

    def inputs(self, batch: Batch, *, diagnose: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Tokens and weights."""
        t = batch.tensors
        return (t["structure"].float(), t["function"].float(), batch.n_patches, t["weight"]), {}


class OnlineFusionStage(Stage):
    """Hub tokens over both encoders' tokens, computed from the shards by the frozen encoders in every step."""

    modalities = ("bold", "t1w")

    def __init__(self, config: StageConfig, sources: Sources, seed: int, device: torch.device):
        super().__init__(config, sources, seed)
        self.model_config = cast(FusionConfig, config.model)
        if sources.structure is None or sources.function is None:
            msg = "model.inputs is online: name the trained encoders with --structure and --function"
            raise DataError(msg)
        self.encoders = Encoders.open(sources.structure, sources.function).to(device)
        self.encoders.check(self.indices)
        self.hashes["encoders"] = self.encoders.hashes
        pairs = [shards.pair(index.samples["bold"], index.samples["t1w"])[0] for index in self.indices]
        self._divide(pair for listed in pairs for pair in listed)

    def bucket(self, number: int, epoch: int | None) -> tuple[int, int]:
        """Frames of a patch, and patches."""
        return plan_series(self.samples[number][0], self.encoders.function.config).bucket

    def load(self, numbers: Sequence[int], step: int, epoch: int | None) -> Batch:
        """Read pairs of series and volumes."""
        return self.encoders.load([self.samples[number] for number in numbers])

    def metadata(self) -> dict[str, Any]:
        """Sizes of the tokens that come in, whose they are, and the ROIs they belong to."""
        inputs = to_dict(self.encoders.fusion_inputs())
        return {"inputs": inputs, "encoders": dict(self.encoders.hashes), **roi_facts(self.rois)}

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
    ValueError
        If they do not.
    """
    if config.stage == "structure":
        return StructureStage(config, sources, seed)
    if config.stage == "function":
        return FunctionStage(config, sources, seed)
    if cast(FusionConfig, config.model).inputs == "online":
        return OnlineFusionStage(config, sources, seed, device)
    return CachedFusionStage(config, sources, seed)


# --- trained stages


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained stage: its model, and what its ``run.json`` tells."""

    model: nn.Module
    config: StageConfig
    run: Mapping[str, Any]
    sha256: str
    """Of the weights' file."""


def load_trained(folder: Path, stage: str) -> Trained:
    """Build the model of a trained stage and load its weights.

    Raises
    ------
    ValueError
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
    config, model = model_of(run, folder / "run.json")
    weights = folder / "model.safetensors"
    checkpoint.load_weights(model, weights)
    return Trained(model.eval().requires_grad_(False), config, run, shards.file_sha256(weights))


def model_of(about: Mapping[str, Any], source: Path) -> tuple[StageConfig, nn.Module]:
    """Configuration and model, into which weights are then loaded, of what `source` tells about a stage.

    Raises
    ------
    ValueError
        If that is not whole.
    """
    config = stage_from_dict(about["config"])
    try:
        model = build_model(config.model, about["model_metadata"])
        if config.stage == "fusion":
            dict(about["model_metadata"]["encoders"])  # whose tokens it reads
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{source}: its metadata do not make a {config.stage} model ({error!r}): take it as it was made"
        raise DataError(msg) from error
    return config, model


def build_model(config: ModelConfig, metadata: Mapping[str, Any]) -> nn.Module:
    """Make a model into which weights are then loaded, from its configuration and the metadata beside it."""
    if isinstance(config, StructureConfig):
        x, y, z = metadata["grid"]
        return StructureMAE(config, (x, y, z))
    if isinstance(config, FunctionConfig):
        return FunctionJEPA(config, empty_rois(metadata))
    return FusionModel(config, from_dict(FusionInputs, metadata["inputs"], "inputs"))


def roi_facts(rois: RoiMetadata) -> dict[str, Any]:
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


@dataclasses.dataclass(frozen=True)
class Encoders:
    """Both frozen encoders: from pairs of a BOLD run and a T1 to pairs of tokens."""

    structure: StructureMAE
    function: FunctionJEPA
    metadata: Mapping[str, Any]
    """Of the function stage: ROI names and sizes."""
    hashes: Mapping[str, str]
    """Of the weights."""
    amp: Mapping[str, str]
    """Precision they were trained in."""

    @classmethod
    def open(cls, structure: Path, function: Path) -> Encoders:
        """Load the encoders from the folders of the trained stages."""
        s, f = load_trained(structure, "structure"), load_trained(function, "function")
        for trained in (s, f):
            if trained.config.train.amp == "bf16":
                hold_in_bfloat16(trained.model)
        return cls(
            cast(StructureMAE, s.model),
            cast(FunctionJEPA, f.model),
            f.run["model_metadata"],
            {"structure": s.sha256, "function": f.sha256},
            {"structure": s.config.train.amp, "function": f.config.train.amp},
        )

    def to(self, device: torch.device) -> Encoders:
        """Move both."""
        return dataclasses.replace(
            self, structure=self.structure.to(device), function=self.function.to(device)
        )

    def autocast(self, device: torch.device, stage: Literal["structure", "function"]) -> torch.autocast:
        """Compute as this encoder was trained."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.amp[stage] == "bf16")

    def check(self, indices: Iterable[Index]) -> None:
        """Refuse shards of another T1 grid or other ROIs than the encoders were trained on."""
        rois = empty_rois(self.metadata)
        for index in indices:
            check_rois(index, rois)
            shape = index.metadata["t1w_shape"]  # none where nobody has a T1
            if shape is not None and tuple(shape) != self.structure.grid:
                msg = (
                    f"{index.path}: T1 volumes on a grid of {tuple(shape)} voxels, the structure "
                    f"encoder was trained on {self.structure.grid}: set features.t1w_shape accordingly"
                )
                raise DataError(msg)

    def fusion_inputs(self) -> FusionInputs:
        """Sizes of the tokens for the fusion."""
        return FusionInputs(
            structure_grid=self.structure.patches,
            structure_width=self.structure.config.width,
            rois=self.function.n_rois,
            time_patches=self.function.config.time_patches,
            function_width=self.function.config.width,
        )

    def load(self, pairs: Sequence[tuple[Sample, Sample]]) -> Batch:
        """Read pairs of one bucket."""
        runs = [run for run, _ in pairs]
        batch = self.read_runs(runs, [plan_series(run, self.function.config) for run in runs])
        volumes = shards.read_t1w([anat for _, anat in pairs], self.structure.grid)
        return dataclasses.replace(batch, tensors={**batch.tensors, "volume": torch.from_numpy(volumes)})

    def read_runs(self, runs: Sequence[Sample], plans: Sequence[augment.SeriesPlan]) -> Batch:
        """Read the series of runs of one bucket as planned."""
        config, rois = self.function.config, empty_rois(self.metadata)
        series = np.stack([
            augment.apply_plan(read_series(run, rois, config), plan, config)
            for run, plan in zip(runs, plans, strict=True)
        ])  # fmt: skip
        tensors = {"series": torch.from_numpy(series)}
        return Batch([run.key for run in runs], tensors, plans[0].patch_frames, plans[0].n_patches)

    @torch.no_grad()
    def encode(self, batch: Batch, *, pad_to: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of a batch, rounded as the cache rounds them.

        Returns
        -------
        structure : Tensor, (B, S, D) bfloat16
        function : Tensor, (B, R * N, D) bfloat16
        weight : Tensor, (B, R * N) float32
            How much each function token counts; the weights of a sample add up to the number of its tokens.
        """
        volume, series = batch.tensors["volume"], batch.tensors["series"]
        with self.autocast(volume.device, "structure"):
            structure = self.structure.encode(intensities(volume))
        with self.autocast(series.device, "function"):
            function = self.function.encode(series, batch.patch_frames, pad_to=pad_to)
        weight = self.function.token_weights(series, batch.patch_frames)
        return structure.bfloat16(), function.bfloat16(), token_index.even_samples(weight)


# --- checks that several stages share


def read_split(path: Path) -> dict[str, str]:
    """People of a pretraining split: ``cohort/label`` to ``train`` or ``holdout``."""
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
        people = {person: part for part in ("train", "holdout") for person in split[part]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} is no split with the lists train and holdout ({error}): make it again"
        raise DataError(msg) from error
    if len(people) != len(split["train"]) + len(split["holdout"]):
        msg = f"{path} names a person twice, so the holdout would be trained on: make it again"
        raise DataError(msg)
    return people


def check_rois(index: Index, rois: RoiMetadata) -> None:
    """Refuse data whose ROIs are not these, in this order."""
    if index.metadata["roi_sha256"] != rois.roi_sha256:
        try:
            rois.check_order(index.metadata.get("roi_names", rois.names))
        except ValueError as error:
            msg = f"{index.path}: {error}"
            raise DataError(msg) from error
        msg = f"{index.path} is of atlas {index.metadata['atlas']}, the ROI metadata of {rois.atlas}: use one atlas"
        raise DataError(msg)


def t1w_grid(indices: Sequence[Index]) -> tuple[int, int, int]:
    """Voxels of the T1 volumes, which all cohorts must share."""
    grids = {tuple(index.metadata["t1w_shape"]): index for index in indices if index.samples["t1w"]}
    if len(grids) != 1:
        named = ", ".join(f"{index.cohort} {grid}" for grid, index in grids.items()) or "none"
        msg = f"all cohorts need T1 volumes on one grid, there are: {named}; pack them with one features.t1w_shape"
        raise DataError(msg)
    ((x, y, z),) = grids
    return x, y, z


def intensities(steps: Tensor) -> Tensor:
    """Float32 intensities in sd of stored volumes, made where they are computed with: half as much to move there."""
    return steps.float() / volumes.STEPS_PER_SD


def plan_series(
    sample: Sample, config: FunctionConfig, *, seed: int = 0, epoch: int = 0, number: int | None = None
) -> augment.SeriesPlan:
    """Plan what is read of a run; a fault is named after it."""
    try:
        return augment.plan_series(
            sample.tr_s, sample.n_frames, config, seed=seed, epoch=epoch, sample=number
        )
    except ValueError as error:
        msg = f"{sample.key}: {error}"
        raise DataError(msg) from error


def read_series(sample: Sample, rois: RoiMetadata, config: FunctionConfig) -> np.ndarray:
    """Read a run, (R, T) float32, and refuse what the model cannot embed; a fault is named after it."""
    series = shards.read_bold(sample, len(rois))
    try:
        augment.check_series(series, sample.tr_s, len(rois), config)
    except ValueError as error:
        msg = f"{sample.key} in {sample.shard}: {error}"
        raise DataError(msg) from error
    return series


def _first(item: Sample | tuple[Sample, Sample]) -> Sample:
    return item if isinstance(item, Sample) else item[0]
