"""What a training keeps in memory: the count, beside what autograd keeps and the parameters that models have."""

from __future__ import annotations

import contextlib
import functools
import math

import pytest
import torch
from torch import nn

from bhx_model import gpu_memory
from bhx_model.config import PRESETS, STAGES, FunctionConfig, FusionInputs, StageConfig, load_preset
from bhx_model.data import masking
from bhx_model.gpu_memory import GIB, Sizes
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE

SIZES = Sizes(
    grid=(32, 48, 32),
    rois=8,
    patches=12,
    frames=48,
    structure_tokens=96,
    structure_width=64,
    function_width=48,
)
#: Masks of one size only, so that a step is the largest there can be.
MASKS = {
    "mask_context_rois": [1.0, 1.0], "mask_context_times": [0.5, 0.5], "mask_target_rois": [0.25, 0.25],
    "mask_target_times": [0.25, 0.25], "mask_time_rois": [0.5, 0.5],
}  # fmt: skip
DEEP = {
    "structure": {"patch": 8, "width": 64, "depth": 5, "heads": 4, "decoder_width": 48, "decoder_depth": 3,
                  "decoder_heads": 2},
    "function": {"width": 64, "depth": 5, "heads": 4, "predictor_width": 32, "predictor_depth": 3, "predictor_heads": 2,
                 "connectivity_code": 6, **MASKS},
    "fusion": {"hub_tokens": 8, "width": 64, "depth": 5, "heads": 4, "decoder_width": 48, "decoder_depth": 3,
               "decoder_heads": 2, "decoder": "joint"},
}  # fmt: skip


def stage_of(stage: str, **changes) -> StageConfig:
    model = {f"model.{name}": value for name, value in (DEEP[stage] | changes).items()}
    return load_preset(stage, "base").override(model)


def made(config: StageConfig, rois, batch: int):
    """A model, and a function that gives the loss of a batch."""
    model, inputs = config.model, SIZES
    if config.stage == "structure":
        net = StructureMAE(model, inputs.grid)
        seen = torch.from_numpy(masking.mae_visible(net.n_tokens, model.mask_ratio, 0, 0, range(batch)))
        volume = torch.randn(batch, *inputs.grid)
        return net, lambda: net(volume, seen)[0]
    if isinstance(model, FunctionConfig):
        net = FunctionJEPA(model, rois)
        masks = masking.jepa_masks(inputs.rois, inputs.patches, model, 0, 0, range(batch))
        context, target = torch.from_numpy(masks.context), torch.from_numpy(masks.target)
        series = torch.randn(batch, inputs.rois, inputs.patches * inputs.frames)
        return net, lambda: net(series, inputs.frames, context, target)[0]
    tokens = FusionInputs(
        structure_grid=(4, 6, 4), structure_width=inputs.structure_width, rois=inputs.rois,
        time_patches=inputs.patches, function_width=inputs.function_width,
    )  # fmt: skip
    net = FusionModel(model, tokens)
    t1 = torch.randn(batch, inputs.structure_tokens, inputs.structure_width)
    run = torch.randn(batch, inputs.rois * inputs.patches, inputs.function_width)
    return net, lambda: net(t1, run, inputs.patches)[0]


def kept(net: nn.Module, loss, amp: str) -> int:
    """Bytes that autograd keeps of a forward pass, without the model itself."""
    own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    found: dict[int, tuple[torch.UntypedStorage, int]] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage, storage.nbytes())
        return t

    autocast = torch.autocast("cpu", torch.bfloat16) if amp == "bf16" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), autocast:
        loss()
    return sum(size for _, size in found.values())


def counted(config: StageConfig) -> float:
    """Bytes a sample that the count says are kept."""
    count = {
        "structure": gpu_memory._structure,
        "function": gpu_memory._function,
        "fusion": gpu_memory._fusion,
    }
    half = 2 if config.train.amp == "bf16" else 4
    return count[config.stage](config.model, SIZES, half)[0]


@pytest.mark.parametrize("changes", [{}, {"mlp_ratio": 2.0}, {"checkpointing": True}], ids=str)
@pytest.mark.parametrize("amp", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_count_is_what_autograd_keeps(stage, amp, changes, make_rois):
    rois = make_rois(SIZES.rois)
    config = stage_of(stage, **changes).override({"train.amp": amp})
    by_batch = []
    for batch in (2, 6):  # the difference is per sample: copies of weights are the same in both
        net, loss = made(config, rois, batch)
        by_batch.append(kept(net, loss, amp))
    measured = (by_batch[1] - by_batch[0]) / 4
    assert counted(config) == pytest.approx(measured, rel=0.15 if "checkpointing" in changes else 0.1)


@pytest.mark.parametrize("amp", ["fp32", "bf16"])
def test_fine_tuning_keeps_what_is_counted(amp, make_rois):
    config = stage_of("fusion").override({"train.amp": amp})
    by_batch = []
    for batch in (2, 6):
        net, _ = made(config, make_rois(SIZES.rois), batch)
        t1 = torch.randn(batch, SIZES.structure_tokens, SIZES.structure_width)
        run = torch.randn(batch, SIZES.rois * SIZES.patches, SIZES.function_width)
        encode = functools.partial(net.encode, t1, run, SIZES.patches, normed=False)
        by_batch.append(kept(net, encode, amp))
    counted_bytes = gpu_memory._fusion_encoder(config.model, SIZES, 2 if amp == "bf16" else 4)[0]
    assert counted_bytes == pytest.approx((by_batch[1] - by_batch[0]) / 4, rel=0.1)
    with pytest.raises(TypeError, match="structure"):
        gpu_memory.finetuning(stage_of("structure"), SIZES)


@pytest.mark.parametrize("stage", STAGES)
def test_the_parameters_are_those_of_the_model(stage, make_rois):
    config = stage_of(stage)
    net, _ = made(config, make_rois(SIZES.rois), 1)
    trained, frozen = gpu_memory.parameters(config, SIZES)
    assert trained == pytest.approx(sum(p.numel() for p in net.parameters() if p.requires_grad), rel=0.01)
    assert frozen == pytest.approx(sum(p.numel() for p in net.parameters() if not p.requires_grad), rel=0.01)


@pytest.mark.parametrize(
    ("stage", "preset", "patches", "measured_gb", "within"),
    [
        ("fusion", "base", 11, 2.8, 0.1), ("fusion", "base", 18, 4.0, 0.1),
        ("fusion", "small", 11, 1.1, 0.15), ("fusion", "small", 18, 1.7, 0.1),
        ("function", "base", 11, 1.0, 0.25), ("function", "small", 11, 0.5, 0.25),
        ("structure", "base", 11, 0.5, 0.2), ("structure", "small", 11, 0.15, 0.55),
    ],
)  # fmt: skip
def test_presets_take_about_what_was_measured(stage, preset, patches, measured_gb, within):
    width = 768 if preset == "base" else 384
    sizes = Sizes(patches=patches, structure_width=width, function_width=width)
    counted_gb = gpu_memory.need(load_preset(stage, preset), sizes).per_sample / 1e9
    assert counted_gb == pytest.approx(measured_gb, rel=within)


def test_parts_are_as_large_as_fit():
    config = load_preset("fusion", "base")
    assert config.train.batch_size == 128
    need = gpu_memory.Need(fixed=4 * GIB, per_sample=4 * GIB)

    def parts(gb: float, processes: int) -> int | None:
        return gpu_memory.fitting_accumulate(config, need, gb * GIB, processes)

    assert [parts(80, 1), parts(80, 8), parts(40, 8), parts(16, 8)] == [8, 1, 2, 8]
    assert parts(8, 8) is None
    most = need.samples(80 * GIB)
    assert need.of(most) <= 0.92 * 80 * GIB < need.of(most + 1)


@pytest.mark.parametrize(("batch", "parts"), [(36, 4), (10**9 + 7, 10**9 + 7), (10**15, 125 * 10**12)])
def test_parts_of_any_batch_are_found_at_once(batch, parts):
    """By the divisors, not by one number after the other; in memory without end all fits, and in none nothing."""
    config = load_preset("fusion", "base").override({"train.batch_size": batch, "train.accumulate": "auto"})
    need = gpu_memory.Need(fixed=0.0, per_sample=1.0)
    assert gpu_memory.fitting_accumulate(config, need, 10.5, 1) == parts
    assert gpu_memory.fitting_accumulate(config, need, 0.5, 1) is None
    assert gpu_memory.fitting_accumulate(config, need, math.inf, 1) == 1


def test_more_processes_checkpointing_and_halves_change_what_is_needed():
    config, sizes = load_preset("function", "base"), Sizes()
    alone, beside = (gpu_memory.need(config, sizes, processes=n) for n in (1, 8))
    assert beside.fixed > alone.fixed
    assert beside.per_sample == alone.per_sample
    in_full = gpu_memory.need(config.override({"train.amp": "fp32"}), sizes)
    again = gpu_memory.need(config.override({"model.checkpointing": True}), sizes)
    assert again.per_sample < 0.5 * alone.per_sample < alone.per_sample < in_full.per_sample


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("stage", STAGES)
def test_every_preset_trains_on_one_gpu_of_24_gb(stage, preset):
    config = load_preset(stage, preset)
    assert gpu_memory.fitting_accumulate(config, gpu_memory.need(config, Sizes()), 24 * GIB, 1) is not None
