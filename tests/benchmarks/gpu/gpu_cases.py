"""A training step of every stage on random inputs: by this code, and as the published code computes it.

Sizes are the paper's: 400 ROIs, patches of 48 frames, T1 volumes of 160 x 192 x 160 voxels; preset `tiny` has tiny ones.
"""

# Shapes: B batch, R ROIs, N time patches, X Y Z voxels

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, cast
from unittest import mock

import gpu_published as published
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from bhx_model.config import EvaluationConfig, FusionInputs, StageConfig, load_preset
from bhx_model.data import masking
from bhx_model.data.rois import RoiMetadata
from bhx_model.nets import vit
from bhx_model.nets.attention import KeyWeights, without_cudnn
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.heads import EndpointModel, HubHead, endpoint_loss
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE

#: Frames of a patch: UK Biobank's repetition time.
FRAMES = 48
TIME_PATCHES = 18
FINETUNING = "fine-tuning"
#: How a step is computed.
NOW, COMPILED, BEFORE, TOKENS, PUBLISHED = (
    "now", "now, compiled", "before", "modality_attention: tokens", "published",
)  # fmt: skip

Objective = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of what is drawn."""

    rois: int = 400
    grid: tuple[int, int, int] = (160, 192, 160)
    modes: int = 200
    gradients: int = 30

    @classmethod
    def of(cls, preset: str) -> Sizes:
        """The paper's; small ones of preset `tiny`."""
        return cls(20, (32, 48, 32), 12, 5) if preset == "tiny" else cls()

    def metadata(self) -> RoiMetadata:
        """Per-ROI metadata, drawn by chance."""
        rng = np.random.default_rng(0)
        half = np.arange(self.rois) * 2 // self.rois
        return RoiMetadata(
            atlas="drawn",
            names=tuple(f"17Networks_{'LR'[h]}H_{i:03d}" for i, h in enumerate(half)),
            hemisphere=half.astype(np.int8),
            harmonics=rng.standard_normal((self.rois, self.modes)).astype(np.float32),
            eigenvalues=np.sort(rng.random((2, self.modes))),
            gradients=rng.standard_normal((self.rois, self.gradients)).astype(np.float32),
            median=np.zeros(self.rois, np.float32),
            iqr=np.ones(self.rois, np.float32),
        )

    def fusion_inputs(self, preset: str) -> FusionInputs:
        """Sizes of the tokens of the preset's encoders."""
        structure, function = (cast(Any, load_preset(s, preset).model) for s in ("structure", "function"))
        x, y, z = (n // structure.patch for n in self.grid)
        return FusionInputs(
            structure_grid=(x, y, z), structure_width=structure.width, rois=self.rois,
            time_patches=function.time_patches, function_width=function.width,
        )  # fmt: skip


@dataclasses.dataclass
class Case:
    """A model, and its loss of inputs of a batch."""

    config: StageConfig
    model: nn.Module
    draw: Callable[[int, torch.device], Callable[[Objective], Tensor]]
    """Of a batch and a device: what gives the loss of an objective, which is the model or what was made of it."""
    draws_lengths: bool = False
    """Whether a training draws another number of tokens in every step; here they are the same in all steps."""

    @property
    def ema(self) -> bool:
        """Whether a target encoder follows."""
        return self.config.train.ema is not None


def drawn_quickly(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    """Normal numbers, which PyTorch draws several times faster than those that a training starts from."""
    with torch.no_grad():
        return tensor.normal_(std=0.02)


def left_as_it_is(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    """Any numbers: to draw some takes longer than to count."""
    return tensor


def case(
    stage: str, way: str, patches: int, preset: str, fill: Callable[..., Tensor] = drawn_quickly
) -> Case:
    """Build a case on the CPU.

    Parameters
    ----------
    stage
        A stage, or `FINETUNING`.
    way
        How it is computed.
    patches
        Time patches that hold data.
    preset
        Its sizes; the published way has those of `reference` where that is not `tiny`.
    fill
        Takes the place of PyTorch's functions that draw initial weights.
    """
    sizes = Sizes.of(preset)
    of = "fusion" if stage == FINETUNING else stage
    config = load_preset(of, preset)
    if way == PUBLISHED:
        config = published.config(config)
    elif way == TOKENS:
        config = config.override({"model.modality_attention": "tokens"})
    torch.manual_seed(0)
    build = {"structure": _structure, "function": _function, "fusion": _fusion, FINETUNING: _finetuning}
    with contextlib.ExitStack() as stack:
        for name in ("trunc_normal_", "kaiming_uniform_", "normal_"):
            stack.enter_context(mock.patch.object(nn.init, name, fill))
        return build[stage](config, sizes, preset, patches, way == PUBLISHED)


def _structure(config: StageConfig, sizes: Sizes, preset: str, patches: int, is_published: bool) -> Case:
    model = StructureMAE(cast(Any, config.model), sizes.grid)
    if is_published:
        published.change_structure(model)

    def draw(batch: int, device: torch.device) -> Callable[[Objective], Tensor]:
        drawn = masking.mae_visible(model.n_tokens, model.config.mask_ratio, 0, 0, range(batch))
        volume, visible = (
            torch.randn(batch, *sizes.grid, device=device),
            torch.from_numpy(drawn).to(device),
        )
        return lambda objective: objective(volume, visible)[0]

    return Case(config, model, draw)


def _function(config: StageConfig, sizes: Sizes, preset: str, patches: int, is_published: bool) -> Case:
    model = FunctionJEPA(cast(Any, config.model), sizes.metadata())
    if is_published:
        published.change_function(model, patches)
    computed = TIME_PATCHES if is_published else patches

    def draw(batch: int, device: torch.device) -> Callable[[Objective], Tensor]:
        drawn = masking.jepa_masks(sizes.rois, patches, model.config, 0, 0, range(batch))
        # tokens are numbered roi * patches + patch
        context, target = (
            torch.from_numpy(a // patches * computed + a % patches).to(device)
            for a in (drawn.context, drawn.target)
        )
        series = torch.randn(batch, sizes.rois, computed * FRAMES, device=device)
        return lambda objective: objective(series, FRAMES, context, target)[0]

    return Case(config, model, draw, draws_lengths=True)


def _tokens(inputs: FusionInputs, batch: int, patches: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return (
        torch.randn(batch, inputs.structure_tokens, inputs.structure_width, device=device),
        torch.randn(batch, inputs.rois * patches, inputs.function_width, device=device),
    )


def _fusion(config: StageConfig, sizes: Sizes, preset: str, patches: int, is_published: bool) -> Case:
    inputs = sizes.fusion_inputs(preset)
    model = FusionModel(cast(Any, config.model), inputs)
    if is_published:
        published.change_fusion(model, patches)
    computed = TIME_PATCHES if is_published else patches

    def draw(batch: int, device: torch.device) -> Callable[[Objective], Tensor]:
        structure, function = _tokens(inputs, batch, computed, device)
        return lambda objective: objective(structure, function, computed)[0]

    return Case(config, model, draw)


def _finetuning(config: StageConfig, sizes: Sizes, preset: str, patches: int, is_published: bool) -> Case:
    inputs = sizes.fusion_inputs(preset)
    drop_path = EvaluationConfig().drop_path
    fusion = FusionModel(dataclasses.replace(cast(Any, config.model), drop_path=drop_path), inputs)
    if is_published:
        published.change_fusion(fusion, patches)
    model = EndpointModel(fusion, HubHead(fusion.config.width, 2))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(("fusion.decoder", "fusion.mask")))
    computed = TIME_PATCHES if is_published else patches

    def draw(batch: int, device: torch.device) -> Callable[[Objective], Tensor]:
        structure, function = _tokens(inputs, batch, computed, device)
        labels = torch.arange(batch, device=device) % 2
        return lambda objective: endpoint_loss(
            objective(structure, function, computed), labels, "binary", EvaluationConfig().label_smoothing
        )

    return Case(config, model, draw)


def masked_attend(
    q_BHQE: Tensor, k_BHKE: Tensor, v_BHKE: Tensor, weights: KeyWeights | None = None
) -> Tensor:
    """Attention as it was before: what a key counts is a mask, for which there is no flash kernel on GPUs."""
    mask = None if weights is None else weights.log_K.to(q_BHQE.dtype)[None, None, None]
    return F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE, attn_mask=mask)


@contextlib.contextmanager
def attention_of(case: Case, way: str) -> Iterator[None]:
    """Compute attention as a training does; of `BEFORE` as it was before it had a kernel for `equal`."""
    before = mock.patch.object(vit, "attend", masked_attend) if way == BEFORE else contextlib.nullcontext()
    with before, without_cudnn(case.draws_lengths):
        yield


#: PyTorch's counter knows the attention of GPUs only.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(
        q, k, v
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
}


@functools.cache
def flops_per_sample(stage: str, way: str, patches: int, preset: str) -> int:
    """Floating point operations of forward and backward of one sample, by matrix products and attention.

    What is needed, whatever kernels compute it: `equal` attention counts as attention without a constant. Counted by
    PyTorch on tensors that hold no numbers, in which the backward pass of attention makes its shares again, as flash
    attention does. Optimizer and moving average are not counted.
    """
    counted = case(stage, PUBLISHED if way == PUBLISHED else _plain(stage), patches, preset, left_as_it_is)
    parameters = [p for p in counted.model.parameters() if p.requires_grad]
    with (
        mock.patch.object(vit, "attend", masked_attend),
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter,
    ):
        loss = counted.draw(1, torch.device("cpu"))(counted.model)
        torch.autograd.grad(loss, parameters, allow_unused=True)
    return counter.get_total_flops()


def _plain(stage: str) -> str:
    return TOKENS if stage in ("fusion", FINETUNING) else NOW
