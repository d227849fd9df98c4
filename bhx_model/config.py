"""Configuration of the three stages as frozen dataclasses, and the presets. Importing it needs neither torch nor PyYAML.

What depends on the data is not configured: the number of ROIs, harmonics and gradients come from ``rois.npz``,
the T1 grid from the shard index. Switches whose value ``reference`` or ``False`` keeps the behaviour of the
published code say so; preset ``reference`` sets all of them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from bhx_model.errors import ConfigError
from bhx_model.strict_fields import (
    check_at_least,
    check_chance,
    check_positive,
    check_rates,
    check_width,
    from_dict,
    to_dict,
    unknown_name,
)

STAGES: Final = ("structure", "function", "fusion")
_PRESETS: Final = Path(__file__).parent / "presets"
#: A preset is a file in `presets/`: everything that lists presets takes them from here.
PRESETS: Final = tuple(sorted(path.stem for path in _PRESETS.glob("*.yaml")))

Range = tuple[float, float]
Scaling = Literal["run", "population"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructureConfig:
    """BrainHarmonix-S: a masked autoencoder of T1 volumes."""

    patch: int = 16
    """Edge of a cubic patch, voxels."""
    width: int = 768
    """Width of the encoder."""
    depth: int = 12
    """Blocks of the encoder."""
    heads: int = 12
    """Attention heads of the encoder."""
    mlp_ratio: float = 4.0
    """Width of a block's perceptron, in widths."""
    decoder_width: int = 512
    """Width of the decoder, which only training needs."""
    decoder_depth: int = 8
    """Blocks of the decoder."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""
    mask_ratio: float = 0.75
    """Share of the patches that the encoder does not see."""
    norm_pix_loss: bool = True
    """Standardise every target patch, so that the loss is about its texture and not its brightness."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        check_width(self, "width", "heads")
        check_width(self, "decoder_width", "decoder_heads")
        check_positive(self, "patch", "depth", "decoder_depth", "mlp_ratio")
        check_at_least(self, 6, "width", "decoder_width")  # a sine and a cosine for each axis
        if not 0 < self.mask_ratio < 1:
            msg = f"structure mask_ratio is {self.mask_ratio}: choose a share between 0 and 1"
            raise ConfigError(msg)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FunctionConfig:
    """BrainHarmonix-F: a joint-embedding predictive model of ROI series."""

    width: int = 768
    """Width of the encoder."""
    depth: int = 12
    """Blocks of the encoder."""
    heads: int = 12
    """Attention heads of the encoder."""
    mlp_ratio: float = 4.0
    """Width of a block's perceptron, in widths."""
    predictor_width: int = 384
    """Width of the predictor, which only training needs."""
    predictor_depth: int = 6
    """Blocks of the predictor."""
    predictor_heads: int = 12
    """Attention heads of the predictor."""
    base_patch: int = 48
    """Frames per patch at `base_tr_s`; the patch kernel is stored at this length."""
    base_tr_s: float = 0.735
    """Repetition time of the stored kernel, s. `base_patch` x `base_tr_s` is the window, 35.28 s."""
    time_patches: int = 18
    """Longest series in patches; longer ones are cropped when they are read."""
    scaling: Scaling = "run"
    """`population` (reference): by median and range over all subjects only, so the level of a run, which is the
    scanner's gain, dwarfs its fluctuations, and denoised series are far off; `run` also centres every ROI of a run and
    gives all runs one spread."""
    gradients: bool = True
    """Connectivity gradients are part of the position code."""
    harmonics: Literal["standardised", "reference", "none"] = "standardised"
    """`reference`: modes and gradients as computed, the modes 7 times smaller, and a constant mode that only
    distinguishes the hemispheres. `standardised`: unit variance, and a hemisphere flag for the constant mode. `none`:
    gradients alone; what `features.harmonics: none` asks for."""
    position_scale: Literal["rms", "minmax"] = "rms"
    """`minmax` (reference) lets one extreme ROI rescale all others; `rms` scales each ROI by itself."""
    resize: Literal["aligned", "reference"] = "aligned"
    """`reference` treats frame i of a patch as the middle of its part of the window, although it is the start;
    `aligned` resizes the kernel for the time at which a frame was acquired."""
    partial_patch: Literal["fraction", "whole"] = "fraction"
    """`whole` (reference): in the loss, a last patch that is mostly padding weighs as much as a full one."""
    tr: Literal["adaptive", "fixed"] = "adaptive"
    """`fixed` (the ablation; Brain-JEPA's way): a patch has `base_patch` frames at any repetition time. Series are
    down-sampled by the integer factor that brings them nearest to `base_tr_s`, and then treated as having it."""
    tr_augment: bool = True
    """Also train on down-sampled copies, of integer factors up to `max_tr_s`."""
    max_tr_s: float = 3.0
    """Longest repetition time that `tr_augment` down-samples to, s."""
    downsampling: Literal["antialiased", "reference"] = "antialiased"
    """`reference` picks unevenly spaced frames and folds fast fluctuations onto slow ones."""
    mask_context_rois: Range = (0.84, 1.0)
    """Share that the encoder sees of the ROIs that are not held out."""
    mask_context_times: Range = (0.45, 0.6)
    """Length of the window that the encoder sees, as a share of the patches."""
    mask_target_rois: Range = (0.15, 0.3)
    """Share of the ROIs that are held out and predicted (Cross-ROI, Double-Cross)."""
    mask_target_times: Range = (0.1, 0.4)
    """Share of the patches outside the window that are predicted (Cross-Time, Double-Cross)."""
    mask_time_rois: Range = (0.2, 0.6)
    """Share of the seen ROIs whose other times are predicted (Cross-Time)."""
    connectivity_code: int = 0
    """Number of components whose correlations with its ROI every token gets, computed from what the encoder sees of the
    run; 0 for none (reference). A token of an ROI's own series contains nothing of them, and small models do not find a
    product of two series by attention."""
    connectivity_weight: float = 0.0
    """Weight, beside the JEPA's loss, of predicting the whole run's connectivity code from what is seen; 0: reference.
    It asks for what stays the same over a run; the next moment, which a JEPA predicts, contains little of that."""
    whitening_weight: float = 0.0
    """Weight of whitening the embedded patches; 0: reference. BOLD is slow: without whitening, a correlation of patches
    rests on a handful of degrees of freedom."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        check_width(self, "width", "heads")
        check_width(self, "predictor_width", "predictor_heads")
        check_at_least(self, 0, "connectivity_code", "connectivity_weight", "whitening_weight")
        if self.connectivity_weight and not self.connectivity_code:
            msg = "function connectivity_weight has nothing to predict: give connectivity_code a number, or make it 0"
            raise ConfigError(msg)
        if self.tr == "fixed" and self.tr_augment:
            msg = "function tr_augment varies the repetition time that tr: fixed holds still: set tr_augment: false with it"
            raise ConfigError(msg)
        check_positive(
            self,
            "depth",
            "predictor_depth",
            "mlp_ratio",
            "base_patch",
            "base_tr_s",
            "time_patches",
            "max_tr_s",
        )
        for name in ("width", "predictor_width"):
            if getattr(self, name) % 4:
                msg = f"function {name} must be a multiple of 4: half codes time, in pairs of sine and cosine"
                raise ConfigError(msg)
        for name in (f.name for f in dataclasses.fields(self) if f.name.startswith("mask_")):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 1:
                msg = f"function {name} is ({low}, {high}): give a lower and an upper share, 0 <= lower <= upper <= 1"
                raise ConfigError(msg)

    @property
    def window_s(self) -> float:
        """Duration of a patch, s."""
        return self.base_patch * self.base_tr_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Harmonizer: hub tokens that compress the tokens of both encoders."""

    hub_tokens: int = 128
    """Number of hub tokens that represent a subject."""
    width: int = 768
    """Width of the fusion and of a hub token."""
    depth: int = 12
    """Blocks of the fusion."""
    heads: int = 12
    """Attention heads of the fusion."""
    mlp_ratio: float = 4.0
    """Width of a block's perceptron, in widths."""
    decoder_width: int = 512
    """Width of the decoder, which only training needs."""
    decoder_depth: int = 8
    """Blocks of the decoder."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""
    decoder: Literal["joint", "cross"] = "joint"
    """`joint`: all decoder tokens attend to each other; `cross`: to the hub tokens only, at a fraction of the cost."""
    loss_tokens: Literal["valid", "all"] = "valid"
    """`all` (reference) also reconstructs tokens of padding, a third of the loss for a UK Biobank run."""
    balance: bool = True
    """Both modalities weigh the same; False (reference): by their number of tokens, 14 % for the T1."""
    cls_bypass: bool = False
    """True (reference): a CLS token also passes from encoder to decoder, around the hub tokens."""
    modality_attention: Literal["equal", "tokens"] = "equal"
    """`tokens` (reference): even attention gives the T1 its share of the tokens, 14 to 21 % in the paper's cohorts;
    `equal`: half, however many tokens each modality has, until training makes it more or less."""
    modality_embedding: bool = True
    """False (reference): both modalities share one input map, output map and position axis."""
    hub_start: Literal["learned", "places"] = "learned"
    """`places`: every hub token starts from the mean of the tokens of its own ROIs or places of the T1; `learned`
    (reference): from a learned vector alone, so until they have been trained for long, all contain the mean over all
    tokens."""
    norm_targets: bool = True
    """Standardise every target token."""
    inputs: Literal["cache", "online"] = "cache"
    """Tokens from the cache, or computed from the shards by the frozen encoders in every step."""
    drop_path: float = 0.0
    """Chance that a sample skips a residual branch, at the last block; it rises linearly from 0. Fine-tuning: 0.1. In
    pretraining, the skipped branches depend on how a batch is cut: above 0, `train.accumulate` changes more than
    rounding."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        check_width(self, "width", "heads")
        check_width(self, "decoder_width", "decoder_heads")
        check_positive(self, "hub_tokens", "depth", "decoder_depth", "mlp_ratio")
        check_at_least(self, 6, "width", "decoder_width")
        for name in ("width", "decoder_width"):
            if getattr(self, name) % 2:
                msg = f"fusion {name} is {getattr(self, name)}: positions need pairs of sine and cosine, choose an even one"
                raise ConfigError(msg)
        check_chance(self, "drop_path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a stage is trained."""

    steps: int
    """Optimiser steps."""
    batch_size: int
    """Samples per optimiser step, over all processes and accumulated parts."""
    accumulate: int | Literal["auto"] = 1
    """Parts into which a process cuts its share of a batch. `auto`: as few as fit in the memory of its GPU, by
    `bhx_model.gpu_memory`; 1 on a CPU."""
    lr: float
    """Peak learning rate, used as it is: nothing multiplies it by the batch size."""
    min_lr: float = 0.0
    """Learning rate at the last step, approached along a cosine."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = 0.05
    """Decoupled weight decay of AdamW, at the first step."""
    weight_decay_end: float | None = None
    """Value at the last step, approached along a cosine; null keeps `weight_decay`."""
    betas: Range = (0.9, 0.95)
    """Decay of AdamW's means of gradients and of their squares."""
    clip: float | None = None
    """Largest norm of the gradient; null does not clip."""
    ema: Range | None = None
    """Momentum of the target encoder at the first and the last step (function only). The target keeps the product of
    all momenta of its random start; `train` warns above a half."""
    amp: Literal["fp32", "bf16"] = "bf16"
    """Precision of activations; weights and the optimiser are in float32."""
    save_every: int = 1000
    """Steps between checkpoints, and between evaluations of the holdout."""
    keep_every: int = 10000
    """Steps between checkpoints that are kept permanently; of the others, the last two are kept."""
    log_every: int = 50
    """Steps between lines of metrics."""
    deterministic: bool = False
    """Only deterministic kernels: the same bits on the same machine, slower on GPUs."""
    compile: bool = False
    """Run the network through torch.compile."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        check_positive(self, "steps", "batch_size", "lr", "save_every", "keep_every", "log_every")
        if self.accumulate != "auto":
            check_positive(self, "accumulate")
        check_rates(self, "lr", "min_lr", "weight_decay", "weight_decay_end")
        check_chance(self, "betas")
        if self.clip is not None:
            check_positive(self, "clip")
        if self.ema is not None and not all(0 <= momentum <= 1 for momentum in self.ema):
            msg = f"train.ema is {self.ema}: a momentum lies between 0 (follow at once) and 1 (stand still)"
            raise ConfigError(msg)
        if self.ema is not None and self.ema[0] == 1 and (self.ema[1] == 1 or self.steps == 1):
            msg = (
                f"train.ema {self.ema} never moves the target encoder, which is what is used downstream, in {self.steps} "
                "steps: lower the first momentum, e.g. to 0.98"
            )
            raise ConfigError(msg)
        if self.accumulate != "auto" and self.batch_size % self.accumulate:
            msg = f"train.batch_size {self.batch_size} cannot be cut into train.accumulate {self.accumulate} equal parts"
            raise ConfigError(msg)
        if not 0 <= self.warmup_steps <= self.steps:
            msg = f"train.warmup_steps is {self.warmup_steps}: it must lie between 0 and train.steps ({self.steps})"
            raise ConfigError(msg)

    @property
    def parts(self) -> int:
        """`accumulate` as a number; 1 while it is still `auto`."""
        return 1 if self.accumulate == "auto" else self.accumulate


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How endpoints are evaluated: the training of an attentive probe and of fine-tuning, and the scoring."""

    epochs: int = 50
    """Passes over the training subjects."""
    batch_size: int = 16
    """Subjects per optimiser step."""
    accumulate: int = 1
    """Parts into which fine-tuning cuts a batch, processed in turn: less memory, the same gradient."""
    lr: float = 5e-4
    """Peak learning rate of the head; lower layers have less."""
    min_lr: float = 1e-6
    """Learning rate at the end, approached along a cosine."""
    warmup_epochs: int = 5
    """Epochs over which the learning rate rises from 0."""
    layer_decay: float = 0.65
    """Factor from the learning rate of a layer to that of the layer below."""
    weight_decay: float = 0.05
    """Decoupled weight decay of AdamW."""
    drop_path: float = 0.1
    """Chance that a block is skipped, at the last block; less below."""
    label_smoothing: float = 0.1
    """Share of a class's target that is spread over all classes."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    choose_on: Literal["val", "test"] = "val"
    """`test` (reference): the published code swaps the two parts. It chooses the epoch on the test subjects and reports
    on the validation subjects, so splits do not mean what they are called."""
    scores_over: Literal["dataset", "batches"] = "dataset"
    """`batches` (reference): the mean of the scores of batches of `batch_size` subjects. Averages of F1 and AUROC over
    small batches are not those of all subjects, and change with the order."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        check_positive(self, "epochs", "batch_size", "accumulate", "lr", "layer_decay", "clip")
        check_at_least(self, 0, "warmup_epochs")
        check_rates(self, "lr", "min_lr", "weight_decay")
        check_chance(self, "drop_path", "label_smoothing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionInputs:
    """Sizes of what the fusion reads; metadata of the encoders and the data, not choices."""

    structure_grid: tuple[int, int, int]
    """Patches along X, Y, Z; the T1 tokens are their product."""
    structure_width: int
    rois: int
    time_patches: int
    """Longest series in patches."""
    function_width: int

    def __post_init__(self) -> None:
        """Refuse sizes of nothing."""
        check_positive(self, "structure_tokens", "structure_width", "rois", "time_patches", "function_width")

    @property
    def structure_tokens(self) -> int:
        """Number of T1 tokens."""
        x, y, z = self.structure_grid
        return x * y * z


ModelConfig = StructureConfig | FunctionConfig | FusionConfig
MODELS: Final[dict[str, type[ModelConfig]]] = {
    "structure": StructureConfig,
    "function": FunctionConfig,
    "fusion": FusionConfig,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
    """A stage, its model and its training."""

    stage: Literal["structure", "function", "fusion"]
    model: ModelConfig
    train: TrainConfig

    def __post_init__(self) -> None:
        """Refuse settings that this stage would ignore."""
        if not isinstance(self.model, MODELS[self.stage]):
            msg = (
                f"stage {self.stage} needs a {MODELS[self.stage].__name__}, not a {type(self.model).__name__}"
            )
            raise ConfigError(msg)
        if (self.stage == "function") != (self.train.ema is not None):
            msg = "train.ema is the momentum of the function stage's target encoder: give it there and only there"
            raise ConfigError(msg)

    def to_dict(self) -> dict[str, Any]:
        """Return all values, defaults included, as plain dicts, lists and scalars (JSON, YAML)."""
        return to_dict(self)

    def override(self, changes: Mapping[str, Any]) -> StageConfig:
        """Return a copy with dotted fields replaced, e.g. ``{"train.steps": 10, "model.depth": 2}``.

        Raises
        ------
        ConfigError
            For a field that does not exist, with the nearest that does, or a value of the wrong type.
        """
        raw = self.to_dict()
        known = [f"{section}.{name}" for section in ("model", "train") for name in raw[section]]
        for dotted, value in changes.items():
            if dotted not in known:
                raise ConfigError(unknown_name(dotted, known, f"overrides of stage {self.stage}"))
            section, _, name = dotted.partition(".")
            raw[section][name] = value
        return stage_from_dict(raw)


def stage_from_dict(raw: Mapping[str, Any]) -> StageConfig:
    """Inverse of `StageConfig.to_dict`, as strict as `from_dict`.

    Raises
    ------
    ConfigError
        If a part is missing, unknown, or of another stage.
    """
    unknown = set(raw) - {"stage", "model", "train"}
    if unknown or len(raw) != 3:
        msg = f"a stage's configuration has stage, model and train; got {sorted(raw)}"
        raise ConfigError(msg)
    stage = raw["stage"]
    if stage not in MODELS:
        raise ConfigError(unknown_name(str(stage), list(STAGES), "stage"))
    return StageConfig(
        stage=stage,
        model=from_dict(MODELS[stage], raw["model"], f"{stage}.model"),
        train=from_dict(TrainConfig, raw["train"], f"{stage}.train"),
    )


def load_preset(stage: str, preset: str) -> StageConfig:
    """Read the configuration of `stage` from ``presets/<preset>.yaml``.

    Raises
    ------
    ConfigError
        For a stage or preset that does not exist, with the nearest that does.
    """
    if stage not in STAGES:
        raise ConfigError(unknown_name(stage, STAGES, "stage"))
    return stage_from_dict({"stage": stage, **_read_preset(preset)[stage]})


def preset_evaluation(preset: str) -> dict[str, Any]:
    """Read what a preset changes about the evaluation of endpoints: fields of `EvaluationConfig`."""
    return _read_preset(preset).get("evaluation", {})


def _read_preset(preset: str) -> dict[str, Any]:
    if preset not in PRESETS:
        raise ConfigError(unknown_name(preset, PRESETS, "presets"))
    return copy.deepcopy(_preset_file(preset))


@cache
def _preset_file(preset: str) -> dict[str, Any]:
    """Read once: parsing it takes longer than most of what a plan asks of it."""
    import yaml  # only reading presets needs it

    return yaml.safe_load((_PRESETS / f"{preset}.yaml").read_text(encoding="utf-8"))
