"""Time of a training step of each stage on one GPU of this machine, and the resulting time of a preset's training.

    python tests/benchmarks/steps.py --preset base --batch 32                 # on a GPU
    python tests/benchmarks/steps.py --preset tiny --batch 4 --device cpu     # to see what it prints

Forward, backward, clipping, AdamW and the moving target, of drawn inputs of the paper's sizes that lie on the device:
400 ROIs, 11 time patches of 48 frames (a UK Biobank run), a T1 of 160 x 192 x 160 voxels. Reading is not measured. The
fusion is measured with either `modality_attention`, of which `equal` attends to groups of tokens by calls of their own,
and with either decoder. Medians of the steps after the first few. No part of the test suite.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from model import GRID, INPUTS, ROIS, rois
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bhx_model.config import PRESETS, StageConfig, load_preset
from bhx_model.data import masking
from bhx_model.nets import vit
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.training import optim
from bhx_model.training.runlog import duration

PATCHES, FRAMES, WARM = 11, 48, 3

Loss = Callable[[nn.Module], torch.Tensor]


def structure(config: StageConfig, batch: int, device: torch.device) -> tuple[nn.Module, Loss]:
    """Masked autoencoding."""
    model = StructureMAE(config.model, GRID).to(device)
    drawn = masking.mae_visible(model.n_tokens, config.model.mask_ratio, 0, 0, range(batch))
    volume, visible = torch.randn(batch, *GRID, device=device), torch.from_numpy(drawn).to(device)
    return model, lambda objective: objective(volume, visible)[0]


def function(config: StageConfig, batch: int, device: torch.device) -> tuple[nn.Module, Loss]:
    """JEPA."""
    model = FunctionJEPA(config.model, rois()).to(device)
    drawn = masking.jepa_masks(ROIS, PATCHES, config.model, 0, 0, range(batch))
    context, target = (torch.from_numpy(a).to(device) for a in (drawn.context, drawn.target))
    series = torch.randn(batch, ROIS, PATCHES * FRAMES, device=device)
    return model, lambda objective: objective(series, FRAMES, context, target)[0]


def fusion(config: StageConfig, batch: int, device: torch.device) -> tuple[nn.Module, Loss]:
    """Hub tokens, of tokens that are as wide as the paper's."""
    model = FusionModel(config.model, INPUTS).to(device)
    t1 = torch.randn(batch, INPUTS.structure_tokens, INPUTS.structure_width, device=device)
    run = torch.randn(batch, ROIS * PATCHES, INPUTS.function_width, device=device)
    return model, lambda objective: objective(t1, run, PATCHES)[0]


CASES = {
    "structure": (structure, "structure", {}),
    "function": (function, "function", {}),
    "function, connectivity and whitening off": (
        function,
        "function",
        {"model.connectivity_code": 0, "model.connectivity_weight": 0.0, "model.whitening_weight": 0.0},
    ),
    "fusion": (fusion, "fusion", {}),
    "fusion, modality_attention: tokens": (fusion, "fusion", {"model.modality_attention": "tokens"}),
    "fusion, decoder: cross": (fusion, "fusion", {"model.decoder": "cross"}),
}


def measure(name: str, preset: str, batch: int, device: torch.device, steps: int, compiled: bool) -> None:
    """Print a row."""
    make, stage, changes = CASES[name]
    config = load_preset(stage, preset).override(changes)
    train = config.train
    torch.manual_seed(0)
    model, loss = make(config, batch, device)
    if compiled:
        vit.compile_blocks(model)
    optimizer = optim.adamw(optim.parameter_groups(model.named_parameters()), betas=train.betas)
    on_gpu = device.type == "cuda"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=train.amp == "bf16"):
            value = loss(model)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), train.clip or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if train.ema is not None:
            model.update_target(train.ema[0])
        if on_gpu:
            torch.cuda.synchronize()

    for _ in range(WARM):
        step()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    taken = statistics.median(seconds)
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:8.1f}" if on_gpu else f"{'':8s}"
    rate = f"{'':10s}"
    if on_gpu and not compiled:  # CPUs' attention is unknown to PyTorch's counter
        with FlopCounterMode(display=False) as counter:
            step()
        rate = f"{counter.get_total_flops() / taken / 1e12:10.1f}"
    whole = duration(train.steps * train.batch_size / batch * taken)
    print(f"{name:42s} {1e3 * taken:10.1f} {batch / taken:10.1f} {peak} {rate}  {whole}", flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="base")
    parser.add_argument("--batch", type=int, default=16, help="samples of a step on this device")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--compile", action="store_true", help="as train.compile does")
    parser.add_argument("--only", default="", help="cases whose name starts so")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here: --device cpu shows what is printed")
    device = torch.device(args.device)
    kind = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"{kind}, torch {torch.__version__}, preset {args.preset}, {args.batch} samples a step")
    print(f"{'case':42s}  ms a step  samples/s  peak GB   TFLOP/s  the preset's steps on one such device")
    for name in CASES:
        if name.startswith(args.only):
            measure(name, args.preset, args.batch, device, args.steps, args.compile)


if __name__ == "__main__":
    main()
