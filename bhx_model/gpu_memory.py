"""Estimate the GPU memory of a training by counting what it keeps for the backward pass. Needs no torch.

Counted per sample, layer by layer, as the networks in `bhx_model.nets` keep it; tests compare the count with what
autograd keeps. Blocks are nearly all of it: 36 bytes per token, channel and block in bfloat16 with four times as wide a
hidden layer, 64 in float32, 4 with checkpointing. Added are what a step holds beside that (inputs, targets, losses, the
gradients of one block), the weights with their gradients and both moments of AdamW, and `RESERVED` for CUDA itself, which
was not measured. On an H200 steps allocated 4 to 10 % less than is counted, but for masks that are smaller than the largest
(docs/explanation/gpu.md); `torch.compile` keeps 5 to 7 % less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from bhx_model.config import FunctionConfig, FusionConfig, StageConfig, StructureConfig

GIB: Final = 2**30
#: CUDA's context, workspaces of its libraries, and what NCCL holds, bytes.
RESERVED: Final = 1.5 * GIB
#: Share of a GPU's memory that is planned with: the rest goes to gaps between tensors.
USABLE: Final = 0.92
#: Weights and their gradients (float32), both moments of AdamW, bytes a parameter.
_PER_PARAMETER: Final = 16
#: Bytes a number takes in float32.
_F: Final = 4
#: More samples than any batch has: what fits in memory without end.
_MANY: Final = 2.0**62

Precision: TypeAlias = Literal[2, 4]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a training's data: voxels of the T1 grid, ROIs, patches of the longest series, frames of a patch.

    `structure_width` and `function_width` are those of the tokens that a fusion reads.
    """

    grid: tuple[int, int, int] = (160, 192, 160)
    rois: int = 400
    patches: int = 18
    frames: int = 48
    structure_tokens: int = 1200
    structure_width: int = 768
    function_width: int = 768


@dataclass(frozen=True)
class Need:
    """Bytes that a training holds on a GPU whatever the number of samples, and for every sample of a part of a batch."""

    fixed: float
    per_sample: float

    def of(self, samples: int) -> float:
        """Bytes with so many samples at a time."""
        return self.fixed + samples * self.per_sample

    def samples(self, memory: float) -> int:
        """Samples that fit in a GPU's memory (bytes) at a time; 0 if not even one does."""
        fit = (USABLE * memory - self.fixed) / self.per_sample
        return max(math.floor(min(fit, _MANY)), 0)


def need(config: StageConfig, sizes: Sizes, *, processes: int = 1) -> Need:
    """Count what a stage's training needs on each of its GPUs."""
    model, half = config.model, _precision(config)
    trained, frozen = parameters(config, sizes)
    # under autocast a copy in half the precision is kept from the forward pass to the backward pass
    cast = half if half == 2 else 0
    # DistributedDataParallel exchanges gradients in buckets of their own
    exchanged = _F if processes > 1 else 0
    fixed = trained * (_PER_PARAMETER + cast + exchanged) + frozen * (_F + cast) + RESERVED
    if isinstance(model, StructureConfig):
        kept, passing = _structure(model, sizes, half)
    elif isinstance(model, FunctionConfig):
        kept, passing = _function(model, sizes, half)
    else:
        kept, passing = _fusion(model, sizes, half)
    return Need(fixed, kept + passing)


def part_size(config: StageConfig, processes: int, accumulate: int) -> int:
    """Samples that a process computes at a time."""
    return math.ceil(config.train.batch_size / (processes * accumulate))


def fitting_accumulate(config: StageConfig, what: Need, memory: float, processes: int) -> int | None:
    """Least number of parts by which a stage's training fits.

    Parameters
    ----------
    config : StageConfig
    what : Need
        From `need`.
    memory : float
        Of each GPU, bytes.
    processes : int
        GPUs of the training.

    Returns
    -------
    int or None
        A divisor of the batch size; None if not even one sample at a time fits.
    """
    most, batch = what.samples(memory), config.train.batch_size
    if most < 1:
        return None
    low = [n for n in range(1, math.isqrt(batch) + 1) if batch % n == 0]
    divisors = [*low, *(batch // n for n in reversed(low))]
    return next(n for n in divisors if part_size(config, processes, n) <= most)


def parameters(config: StageConfig, sizes: Sizes) -> tuple[int, int]:
    """Numbers of trained and of frozen parameters.

    What ROIs' position codes read is left out of the count: its size is that of the atlas, and next to nothing.
    """
    model = config.model
    if isinstance(model, StructureConfig):
        d, c, v = model.width, model.decoder_width, model.patch**3
        encoder = v * d + d + d + _stack(d, model.depth, model.mlp_ratio) + 2 * d
        decoder = d * c + c + c + _stack(c, model.decoder_depth, model.mlp_ratio) + 2 * c + c * v + v
        return encoder + decoder, 0
    if isinstance(model, FunctionConfig):
        d, e, m = model.width, model.predictor_width, model.connectivity_code
        encoder = (
            d * model.base_patch
            + d
            + _stack(d, model.depth, model.mlp_ratio)
            + 2 * d
            + (m * d + d if m else 0)
        )
        predictor = d * e + e + e + (d // 2) * (e // 2) + e // 2
        predictor += _stack(e, model.predictor_depth, model.mlp_ratio) + 2 * e + e * d + d
        head = d * m + m if m and model.connectivity_weight else 0
        return encoder + predictor + head, encoder
    d, c, h = model.width, model.decoder_width, model.hub_tokens
    widths = (sizes.structure_width, sizes.function_width)
    if model.modality_embedding:
        maps = sum(w * d + d + c * w + w for w in widths) + 2 * (d + c)
    else:
        maps = (widths[0] * d + d if widths[0] != d else 0) + c * widths[0] + widths[0]
    hub = h * (d + c) + c + (d if model.cls_bypass else 0)
    if model.hub_start == "places":
        hub += (h - h // 2) * sizes.rois + h // 2 * sizes.structure_tokens
    stacks = _stack(d, model.depth, model.mlp_ratio) + _stack(c, model.decoder_depth, model.mlp_ratio)
    return maps + hub + stacks + 2 * d + d * c + c + 2 * c, 0


def _stack(width: int, depth: int, mlp_ratio: float) -> int:
    hidden = int(width * mlp_ratio)
    return depth * (4 * width**2 + 2 * width * hidden + 9 * width + hidden)


def _precision(config: StageConfig) -> Precision:
    return 2 if config.train.amp == "bf16" else 4


def _block(n: int, q: int, width: int, heads: int, mlp_ratio: float, half: int) -> float:
    """What a block keeps of `n` tokens, of which it computes `q`; residual stream and norms are in float32."""
    hidden = int(width * mlp_ratio)
    of_all = (
        _F * width + half * width + 2 * half * width + 2 * _F
    )  # x, normed, keys and values, moments of the norm
    of_wanted = half * width + half * width + _F * heads  # queries, attention, its log-sum-exp
    of_wanted += _F * width + half * width + 2 * half * hidden + 2 * _F  # y, normed, before and after GELU
    return n * of_all + q * of_wanted


def _blocks(
    n: int, q: int, width: int, depth: int, heads: int, mlp_ratio: float, half: int, checkpointing: bool
) -> tuple[float, float]:
    """What a stack keeps, and what passes while a block of it runs backward; its last block computes `q` of `n` tokens."""
    whole = _block(n, n, width, heads, mlp_ratio, half)
    gradients = n * (2 * _F * width + 2 * half * int(width * mlp_ratio))
    if checkpointing:
        return depth * n * _F * width, whole + gradients
    return (depth - 1) * whole + _block(n, q, width, heads, mlp_ratio, half), gradients


def _structure(model: StructureConfig, sizes: Sizes, half: int) -> tuple[float, float]:
    voxels, per_patch = math.prod(sizes.grid), model.patch**3
    tokens = voxels // per_patch
    seen = min(max(round(tokens * (1 - model.mask_ratio)), 1), tokens - 1)
    hidden, d, c = tokens - seen, model.width, model.decoder_width
    encoder, passing = _blocks(
        seen + 1, seen + 1, d, model.depth, model.heads, model.mlp_ratio, half, model.checkpointing
    )
    decoder, passing_too = _blocks(
        tokens + 1,
        hidden,
        c,
        model.decoder_depth,
        model.decoder_heads,
        model.mlp_ratio,
        half,
        model.checkpointing,
    )
    kept = seen * per_patch * half + (seen + 1) * (_F + half) * d + hidden * (_F + half) * c
    kept += hidden * per_patch * _F  # differences, squared
    # volume, its patches, targets, predictions, and the mean patch's distance
    beside = 2 * _F * voxels + hidden * per_patch * (4 * _F + half)
    return encoder + decoder + kept, max(passing, passing_too) + beside


def _function(model: FunctionConfig, sizes: Sizes, half: int) -> tuple[float, float]:
    """The largest masks decide: all that may be seen is seen, and few or many ROIs are held out."""
    return max((_jepa(model, sizes, half, held) for held in model.mask_target_rois), key=sum)


def _jepa(model: FunctionConfig, sizes: Sizes, half: int, held_out: float) -> tuple[float, float]:
    r, n, d, e = sizes.rois, sizes.patches, model.width, model.predictor_width
    held = min(max(round(r * held_out), 1), max(r - 1, 1))
    seen = max(round((r - held) * model.mask_context_rois[1]), 1)
    window = min(max(round(n * model.mask_context_times[1]), 1), max(n - 1, 1))
    outside = min(round(n * model.mask_target_times[1]), n - window)
    context = seen * window
    targets = held * window + (round(seen * model.mask_time_rois[1]) + held) * outside
    encoder, passing = _blocks(
        context, context, d, model.depth, model.heads, model.mlp_ratio, half, model.checkpointing
    )
    predictor, passing_too = _blocks(
        context + targets, targets, e, model.predictor_depth, model.predictor_heads, model.mlp_ratio, half,
        model.checkpointing,
    )  # fmt: skip
    tokens, series = r * n, r * n * sizes.frames
    kept = series * half + context * (_F + half) * d + context * (half * d + 8) + targets * (_F + half) * e
    kept += 2 * targets * _F * d  # predictions and targets
    if model.connectivity_code:
        # patches that are seen, which correlations are taken of, and components before and after their norms
        kept += tokens * _F * d + 3 * _F * model.connectivity_code * n * d
        kept += context * 8 + (r * _F * d if model.connectivity_weight else 0)
    if model.whitening_weight:
        kept += 2 * _F * d**2 + _F * (d + sizes.frames) * sizes.frames
    hidden = int(d * model.mlp_ratio)
    # the target encoder keeps nothing: its stream, a norm, and a hidden layer pass before the others begin
    target = tokens * (3 * _F * d + 2 * half * hidden)
    beside = 3 * _F * series + tokens * half * d + targets * (_F + half) * d
    beside += tokens * _F * d * bool(model.connectivity_code)
    return encoder + predictor + kept, beside + max(passing, passing_too, target - encoder)


def _fusion(model: FusionConfig, sizes: Sizes, half: int) -> tuple[float, float]:
    function, structure = sizes.rois * sizes.patches, sizes.structure_tokens
    encoder, passing = _fusion_encoder(model, sizes, half)
    first, wanted, c = model.hub_tokens + model.cls_bypass, function + structure, model.decoder_width
    decoder, passing_too = _blocks(
        first + wanted, wanted, c, model.decoder_depth, model.decoder_heads, model.mlp_ratio, half,
        model.checkpointing,
    )  # fmt: skip
    numbers = function * sizes.function_width + structure * sizes.structure_width
    kept = first * (_F + half) * model.width + wanted * (_F + half) * c
    kept += numbers * _F  # differences, squared
    # targets, predictions in both precisions, and the mean token's distance
    beside = numbers * (3 * _F + half)
    return encoder + decoder + kept, max(passing, passing_too) + beside + numbers * _F


def _fusion_encoder(model: FusionConfig, sizes: Sizes, half: int) -> tuple[float, float]:
    function, structure, d = sizes.rois * sizes.patches, sizes.structure_tokens, model.width
    first = model.hub_tokens + model.cls_bypass
    kept, passing = _blocks(
        first + function + structure,
        first,
        d,
        model.depth,
        model.heads,
        model.mlp_ratio,
        half,
        model.checkpointing,
    )
    kept += (function * sizes.function_width + structure * sizes.structure_width) * half
    if model.hub_start == "places":
        kept += (structure + sizes.rois) * half * d
    return kept, passing


def finetuning(config: StageConfig, sizes: Sizes) -> Need:
    """Count what fine-tuning of a fusion needs: its encoder alone, and a head that is next to nothing.

    Raises
    ------
    TypeError
        If it is of another stage.
    """
    if not isinstance(config.model, FusionConfig):
        raise TypeError(config.stage)
    half = _precision(config)
    kept, passing = _fusion_encoder(config.model, sizes, half)
    numbers = (
        sizes.rois * sizes.patches * sizes.function_width + sizes.structure_tokens * sizes.structure_width
    )
    trained, _ = parameters(config, sizes)
    return Need(
        trained * (_PER_PARAMETER + (half if half == 2 else 0)) + RESERVED, kept + passing + numbers * _F
    )
