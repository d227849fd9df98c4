"""Time several implementations of attention with weighted groups of keys, forward and backward.

Sizes are those of the fusion's encoder: hub tokens, 400 ROIs of some time patches, and 1,200 patches of a T1, all of
which attend to each other. The ways are compared with attention in which all keys count the same.

::

    python tests/benchmarks/attention.py --device cpu --dtype fp32 --patches 11 --batch 1
    python tests/benchmarks/attention.py --device cuda --dtype bf16 --patches 11 18 --batch 16
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bhx_model.config import load_preset
from bhx_model.nets.attention import BlockAttention, JoinedAttention, KeyWeights, attend, key_weights

Way = Callable[[Tensor, Tensor, Tensor, KeyWeights], Tensor]


def even(q: Tensor, k: Tensor, v: Tensor, weights: KeyWeights) -> Tensor:
    """No weights."""
    return attend(q, k, v)


def as_mask(q: Tensor, k: Tensor, v: Tensor, weights: KeyWeights) -> Tensor:
    """Logarithms of the weights as a mask."""
    bias_K = weights.log_K.to(q.dtype)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return BlockAttention.apply(q, k, v, bias_K)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias_K[None, None, None])


def as_dimension(q: Tensor, k: Tensor, v: Tensor, weights: KeyWeights) -> Tensor:
    """A one in queries and the logarithm in keys, in one more dimension; widths of heads stay multiples of 8."""
    width = q.shape[-1]
    scale = width**-0.5
    more = F.pad(q.new_ones(*q.shape[:-1], 1), (0, 7))
    logs = F.pad((weights.log_K / scale).to(k.dtype)[:, None].expand(*k.shape[:-1], 1), (0, 7))
    wide = torch.cat([q, more], dim=-1), torch.cat([k, logs], dim=-1), F.pad(v, (0, 8))
    return F.scaled_dot_product_attention(*wide, scale=scale)[..., :width]


def joined(q: Tensor, k: Tensor, v: Tensor, weights: KeyWeights) -> Tensor:
    """A call for each group, joined by their log-sum-exp."""
    return JoinedAttention.apply(q, k, v, weights.log_G, weights.sizes, weights.kernel or "cpu")


def flexible(q: Tensor, k: Tensor, v: Tensor, weights: KeyWeights) -> Tensor:
    """FlexAttention, which compiles a kernel."""
    from torch.nn.attention.flex_attention import flex_attention

    global _flex
    _flex = _flex or torch.compile(flex_attention, dynamic=False)
    return _flex(q, k, v, score_mod=lambda score, b, h, i, j: score + weights.log_K[j])


_flex: Callable[..., Tensor] | None = None
WAYS: dict[str, Way] = {
    "even": even,
    "mask": as_mask,
    "dimension": as_dimension,
    "joined": joined,
    "flex": flexible,
}


def measure(
    device: torch.device, dtype: torch.dtype, preset: str, patches: int, batch: int, rounds: int
) -> None:
    """Print a row for every way, interleaved over rounds; what a device refuses is said."""
    config = load_preset("fusion", preset).model
    sizes = (config.hub_tokens, 400 * patches, 1200)
    half = (sizes[1] + sizes[2]) / 2
    n, heads, width = sum(sizes), config.heads, config.width // config.heads
    groups = list(zip(sizes, (1.0, half / sizes[1], half / sizes[2]), strict=True))
    weights = key_weights(groups, device, dtype, width)
    torch.manual_seed(0)
    inputs = [
        torch.randn(batch, n, heads, width, device=device, dtype=dtype).transpose(1, 2).requires_grad_()
        for _ in range(3)
    ]
    gradient = torch.randn_like(inputs[0])
    flop = 14 * batch * heads * n * n * width  # 4 forward, 10 backward: the logits are computed again
    ways, seconds, results = dict(WAYS), {name: [] for name in WAYS}, {}
    if device.type == "cpu":
        del ways["flex"]  # its kernel for CPUs has no backward pass
    for number in range(rounds + 1):
        for name, way in list(ways.items()):
            began = clock(device)
            try:
                y = way(*inputs, weights)
                grads = torch.autograd.grad(y, inputs, gradient)
            except (RuntimeError, NotImplementedError) as error:
                print(f"{preset} {patches} {name}: {str(error).splitlines()[0]}")
                del ways[name]
                continue
            taken = clock(device) - began
            if number:  # the first time is for warming up
                seconds[name].append(taken)
            results[name] = [y.detach(), *grads]
    for name in ways:
        taken = statistics.median(seconds[name])
        off = max(float((a - b).abs().max()) for a, b in zip(results[name], results["mask"], strict=True))
        said = "" if name == "even" else f"{off:12.1e}"
        print(
            f"{preset:8s} {patches:7d} {name:10s} {1e3 * taken:10.2f} {flop / taken / 1e12:9.3f} {said:12s}",
            flush=True,
        )


def clock(device: torch.device) -> float:
    """Seconds: of a GPU when it has done its work, of this process on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--preset", nargs="+", default=["base", "small"])
    parser.add_argument("--patches", nargs="+", type=int, default=[11])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    a = parser.parse_args()
    dtype = torch.float32 if a.dtype == "fp32" else torch.bfloat16
    print(
        f"torch {torch.__version__}, {a.device}, {a.dtype}, {a.batch} samples, {torch.get_num_threads()} threads"
    )
    print(f"{'preset':8s} {'patches':>7s} {'way':10s} {'ms':>10s} {'TFLOP/s':>9s} off the mask")
    for preset in a.preset:
        for patches in a.patches:
            measure(torch.device(a.device), dtype, preset, patches, a.batch, a.rounds)


if __name__ == "__main__":
    main()
