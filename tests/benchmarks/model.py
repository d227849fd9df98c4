"""The model at the paper's sizes on one CPU thread: this code, compared with the published computation.

    python tests/benchmarks/model.py --quick                # forward passes at 6 patches, some 3 minutes
    python tests/benchmarks/model.py --goals --rounds 1     # what has a goal, some 40 minutes
    python tests/benchmarks/model.py --rounds 1             # everything, two hours and more
    python tests/benchmarks/model.py --only 'function forward 11 bf16' --where    # and where our side's time goes

Both sides are our own code with the same weights. "as published" takes all 18 patches of 400 ROIs through every linear
layer whatever the length of the run (attention alone excludes padding), computes the last block for tokens that nothing
reads, embeds T1 patches with Conv3d, and reconstructs tokens of padding; "ours" is what the preset does.
Every measurement is a process of its own; sides are interleaved, and ratios are of the best of the rounds. CPU
seconds and peak memory (MB) of the process without the making of the model. FLOPs are counted by PyTorch, the rate is
compared with a matrix product of this machine at this moment. No part of the test suite.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bhx_model.config import FusionInputs, load_preset
from bhx_model.data.rois import RoiMetadata
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.heads import EndpointModel, HubHead, endpoint_loss
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.nets.vit import ALL, Blocks, hold_in_bfloat16

ROIS, TIME_PATCHES, GRID, FRAMES = 400, 18, (160, 192, 160), 18
INPUTS = FusionInputs(
    structure_grid=(10, 12, 10), structure_width=768, rois=ROIS, time_patches=TIME_PATCHES, function_width=768
)
SIDES = ("as published", "ours")

#: case, patches, precision -> ratio of CPU time that is wanted
GOALS = {
    ("function forward", 6, "fp32"): 2.2,
    ("function forward", 6, "bf16"): 2.5,
    ("function forward", 11, "fp32"): 1.3,
    ("function forward", 11, "bf16"): 1.9,
    ("function forward", 18, "fp32"): 1.0,
    ("function forward", 18, "bf16"): 1.5,
    ("structure forward", 0, "bf16"): 1.5,
    ("fusion step, all tokens", 11, "bf16"): 1.1,
    ("fusion step, valid tokens", 11, "bf16"): 1.4,
    ("fusion step, cross decoder", 11, "bf16"): 1.9,
    ("fine-tuning step", 6, "bf16"): 1.5,
}

#: As above -> share of the published code's peak memory that is allowed; 1 for all others.
MEMORY_GOALS = {("fine-tuning step", 6, "bf16"): 0.7}

Steps = Callable[[], object]


def rois() -> RoiMetadata:
    """Metadata of the right sizes, drawn by chance."""
    rng = np.random.default_rng(0)
    return RoiMetadata(
        atlas="drawn",
        names=tuple(f"{'LR'[i * 2 // ROIS]}H_{i}" for i in range(ROIS)),
        hemisphere=(np.arange(ROIS) * 2 // ROIS).astype(np.int8),
        harmonics=rng.standard_normal((ROIS, 200)).astype(np.float32),
        eigenvalues=np.sort(rng.random((2, 200))),
        gradients=rng.standard_normal((ROIS, 30)).astype(np.float32),
        median=np.zeros(ROIS, np.float32),
        iqr=np.ones(ROIS, np.float32),
    )


class Conv3dStem(nn.Module):
    """The published code's stem: the same weights in a convolution of stride 16."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        self.patches, p = ours.patches, ours.patch
        self.conv = nn.Conv3d(1, ours.proj.out_features, p, stride=p)
        self.conv.weight.data = ours.proj.weight.data.reshape(-1, 1, p, p, p)
        self.conv.bias.data = ours.proj.bias.data

    def cut(self, volume_BXYZ: torch.Tensor) -> torch.Tensor:
        return volume_BXYZ

    def forward(self, volume_BXYZ: torch.Tensor) -> torch.Tensor:
        return self.conv(volume_BXYZ[:, None]).flatten(2).transpose(1, 2)


def as_published(blocks: Blocks, valid: int | None = None) -> None:
    """Make a stack compute every token in every layer, with attention among the first `valid` of them (all if None).

    Which tokens those are makes no difference to the time; the published code gathers them, which is not counted here.
    """

    def attention(attn: nn.Module) -> Callable[..., torch.Tensor]:
        def forward(x_BND: torch.Tensor, *_: slice | None) -> torch.Tensor:
            q, k, v = (
                t[:, :valid].unflatten(-1, (attn.heads, -1)).transpose(1, 2)
                for t in attn.qkv(x_BND).chunk(3, dim=-1)
            )
            y_BND = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return attn.proj(F.pad(y_BND, (0, 0, 0, x_BND.shape[1] - y_BND.shape[1])))

        return forward

    def forward(
        x_BND: torch.Tensor,
        queries: slice = ALL,
        keys: slice = ALL,
        weights: None = None,
        kept: object = None,
    ) -> torch.Tensor:
        for block in blocks:
            x_BND = block(x_BND)
        return x_BND[:, queries]

    for block in blocks:
        block.attn.forward = attention(block.attn)
    blocks.forward = forward


def function(side: str, n: int, backward: bool) -> tuple[nn.Module, Steps]:
    """The encoder over one run."""
    model = FunctionJEPA(load_preset("function", "base").model, rois())
    published = side == "as published"
    series = torch.randn(1, ROIS, (TIME_PATCHES if published else n) * FRAMES)
    if published:
        for encoder in (model.encoder, model.target):
            as_published(encoder.blocks, ROIS * n)
    return model, lambda: model.encode(series, FRAMES, target=not backward)


def structure(side: str, n: int, backward: bool) -> tuple[nn.Module, Steps]:
    """The encoder over one T1."""
    model = StructureMAE(load_preset("structure", "base").model, GRID)
    volume = torch.randn(1, *GRID)
    if side == "as published":
        model.encoder.patch_embed = Conv3dStem(model.encoder.patch_embed)
        as_published(model.encoder.blocks)
    return model, lambda: model.encode(volume)


def fusion(side: str, n: int, backward: bool, **changes: str) -> tuple[nn.Module, Steps]:
    """Loss of one pair. Published: the decoder and the loss run over all tokens, and so does the encoder."""
    published = side == "as published"
    preset = load_preset("fusion", "reference" if published else "base").override(
        {} if published else {f"model.{name}": value for name, value in changes.items()}
    )
    model = FusionModel(preset.model, INPUTS)
    all_tokens = published or changes.get("loss_tokens") == "all"
    t1 = torch.randn(1, INPUTS.structure_tokens, 768)
    run = torch.randn(1, ROIS * (TIME_PATCHES if all_tokens else n), 768)
    if published:
        as_published(model.blocks, 1 + preset.model.hub_tokens + ROIS * n + INPUTS.structure_tokens)
        as_published(model.decoder_blocks)
    return model, lambda: model(t1, run, TIME_PATCHES if published else n)[0]


def finetuning(side: str, n: int, backward: bool) -> tuple[nn.Module, Steps]:
    """Loss of a binary endpoint of one pair."""
    published = side == "as published"
    fusion_model = FusionModel(load_preset("fusion", "reference" if published else "base").model, INPUTS)
    model = EndpointModel(fusion_model, HubHead(768, 2))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(("fusion.decoder", "fusion.mask")))
    t1, label = torch.randn(1, INPUTS.structure_tokens, 768), torch.tensor([1])
    run = torch.randn(1, ROIS * (TIME_PATCHES if published else n), 768)
    if published:
        as_published(fusion_model.blocks, 1 + 128 + ROIS * n + INPUTS.structure_tokens)
    return model, lambda: endpoint_loss(
        model(t1, run, TIME_PATCHES if published else n), label, "binary", 0.1
    )


CASES: dict[str, tuple[Callable[..., tuple[nn.Module, Steps]], bool, dict[str, str]]] = {
    "function forward": (function, False, {}),
    "function forward+backward": (function, True, {}),
    "structure forward": (structure, False, {}),
    "structure forward+backward": (structure, True, {}),
    "fusion forward": (fusion, False, {}),
    "fusion step, all tokens": (fusion, True, {"loss_tokens": "all"}),
    "fusion step, valid tokens": (fusion, True, {}),
    "fusion step, cross decoder": (fusion, True, {"decoder": "cross"}),
    "fine-tuning forward": (finetuning, False, {}),
    "fine-tuning step": (finetuning, True, {}),
}
QUICK = [("function forward", 6, "fp32"), ("function forward", 6, "bf16"), ("structure forward", 0, "bf16")]
FULL = [
    (case, n, precision)
    for case, counts in {
        "function forward": (6, 11, 18), "structure forward": (0,), "fusion forward": (11, 18),
        "fine-tuning forward": (6, 11, 18), "function forward+backward": (6, 11, 18),
        "structure forward+backward": (0,), "fine-tuning step": (6, 11, 18), "fusion step, all tokens": (11, 18),
        "fusion step, valid tokens": (11, 18), "fusion step, cross decoder": (11, 18),
    }.items()
    for n in counts for precision in ("fp32", "bf16")
]  # fmt: skip


#: PyTorch's counter knows the attention of GPUs only.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(
        q, k, v
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def matmul_rate(precision: str) -> float:
    """GFLOP per CPU second of a large matrix product, the best of a few."""
    a, b = torch.randn(2048, 768), torch.randn(768, 3072)
    if precision == "bf16":
        a, b = a.bfloat16(), b.bfloat16()
    rates = []
    for _ in range(6):
        start = time.process_time()
        for _ in range(4):
            a @ b
        rates.append(4 * 2 * 2048 * 768 * 3072 / (time.process_time() - start) / 1e9)
    return max(rates)


def where(run: Callable[[], None]) -> dict[str, float]:
    """CPU seconds by operation, the longest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        run()
    seconds = {op.key: op.self_cpu_time_total / 1e6 for op in profiler.key_averages()}
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def measure(case: str, n: int, precision: str, side: str, *, profiled: bool = False) -> dict[str, Any]:
    """Run one measurement; in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    make, backward, changes = CASES[case]
    model, step = make(side, n, backward, **changes)
    model.train(backward)
    if side == "ours" and precision == "bf16" and make in (function, structure) and not backward:
        hold_in_bfloat16(model)  # as frozen encoders are, for the cache and for an online fusion
    cast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")

    def run() -> None:
        with cast, contextlib.nullcontext() if backward else torch.inference_mode():
            out = step()
        if backward:
            out.float().mean().backward()

    if not backward:
        with cast, torch.inference_mode():  # threads, caches and weights that autocast keeps
            step()
    base_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, wall = time.process_time(), time.perf_counter()
    run()
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    spent = where(run) if profiled else {}
    rate = matmul_rate(precision)
    model.zero_grad(set_to_none=True)
    # counted on tensors without numbers, which takes no time
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        run()
    gflop = counter.get_total_flops() / 1e9
    return {
        "cpu_s": seconds, "wall_s": wall, "peak_mb": peak_mb, "base_mb": base_mb, "gflop": gflop,
        "share": gflop / seconds / rate, "rate": rate, "where": spent,
    }  # fmt: skip


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="forward passes at 6 patches only")
    parser.add_argument("--goals", action="store_true", help="only the cases that have a goal")
    parser.add_argument("--only", help="cases that match this pattern, e.g. 'step, valid.* 11 bf16'")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write all numbers here")
    parser.add_argument("--where", action="store_true", help="also profile our side: where its time goes")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        case, n, precision, side = args.one
        print(json.dumps(measure(case, int(n), precision, side, profiled=args.where)))
        return
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, 1 thread, batch 1, preset base"
    )
    print(f"{'case':28s} patches precision {'side':13s}  CPU s   GFLOP  of matmul rate  peak MB")
    wanted = [
        c
        for c in (QUICK if args.quick else FULL)
        if not args.only or re.search(args.only, " ".join(map(str, c)))
    ]
    wanted = [c for c in wanted if c in GOALS or not args.goals]
    measured = []
    for case, n, precision in wanted:
        rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(args.rounds):
            for side in SIDES:
                command = [sys.executable, __file__, "--one", case, str(n), precision, side]
                command += ["--where"] if args.where and side == "ours" else []
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rounds[side].append(json.loads(done.stdout.splitlines()[-1]))
        best = {side: min(found, key=lambda m: m["cpu_s"]) for side, found in rounds.items()}
        for side, m in best.items():
            print(
                f"{case:28s} {n or '':>7} {precision:9s} {side:13s} {m['cpu_s']:6.2f} {m['gflop']:7.0f}"
                f" {100 * m['share']:13.0f} % {m['peak_mb']:9.0f}", flush=True,
            )  # fmt: skip
        theirs, ours = best.values()
        ratio, memory = theirs["cpu_s"] / ours["cpu_s"], ours["peak_mb"] / theirs["peak_mb"]
        goal, most = GOALS.get((case, n, precision)), MEMORY_GOALS.get((case, n, precision), 1.0)
        verdict = "" if goal is None else f", goal {goal:g} x: {'met' if ratio >= goal else 'MISSED'}"
        verdict += "" if memory <= most else f", memory goal {most:g}: MISSED"
        print(f"    {ratio:.2f} x as fast, {memory:.2f} of the memory{verdict}", flush=True)
        if args.where:
            longest = [f"{op} {seconds:.2f}" for op, seconds in list(ours["where"].items())[:8]]
            print(
                f"    ours, at {ours['rate']:.0f} GFLOP/s of a matrix product: {', '.join(longest)}",
                flush=True,
            )
        measured.append(
            {"case": case, "patches": n, "precision": precision, "ratio": ratio, "goal": goal, **best}
        )
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
