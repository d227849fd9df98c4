"""How small a T1 volume gets, and whether bfloat16 would see the difference: the ways to store it beside each other.

    python tests/benchmarks/volumes.py [--t1w T1W_IN_MNI.nii.gz --mask BRAIN_MASK.nii.gz]

Without a head of yours it is the MNI152 template, an average of 152, with noise of 0.15 sd. Errors are against the
float32 volume, in sd of the brain's intensities; `visible` is the share of brain voxels whose bfloat16 differs by more
than one unit in the last place from that of the float32 volume. CPU milliseconds of one thread, the median of nine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numcodecs import Blosc
from shards import GRID, template

from bhx_model import volumes


def milliseconds(work: Callable[[], object]) -> float:
    """Median CPU time of nine calls."""
    times = []
    for _ in range(9):
        began = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - began))
    return statistics.median(times)


def last_places(bits: np.ndarray) -> np.ndarray:
    """Bits of bfloat16 as whole numbers that count its values in their order."""
    magnitude = (bits & 0x7FFF).astype(np.int32)
    return np.where(bits >> 15, -magnitude, magnitude)


def head(t1w: Path | None, mask: Path | None) -> tuple[np.ndarray, str]:
    """A volume on the model's grid, float32, and its name."""
    if t1w is not None:
        from bhx_prep.t1w import conform, model_grid

        return conform(t1w, model_grid(1.0, GRID), mask), t1w.name
    brain, inside = template()
    noise = 0.15 * np.random.default_rng(0).standard_normal(GRID, dtype=np.float32)
    return np.where(inside, brain + noise, 0).astype(np.float32), "MNI152 template with noise"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--t1w", type=Path)
    parser.add_argument("--mask", type=Path)
    args = parser.parse_args()
    volume, name = head(args.t1w, args.mask)
    inside = volume != 0
    low, high = volume.min(), volume.max()
    bits = volumes.decode(volumes.encode(volume))
    steps = np.where(inside, 1 + np.rint((volume - low) / (high - low) * 254), 0).astype(np.uint8)
    from_steps = np.where(inside, (steps - np.float32(1)) / 254 * (high - low) + low, 0).astype(np.float32)
    half = volume.astype(np.float16)
    ways = [("float16", half, half.astype(np.float32)), ("bfloat16", bits, volumes.to_float32(bits))]
    ways.append(("256 steps", steps, from_steps))
    print(f"{name}: {inside.mean():.0%} of the voxels are brain, {low:.1f} to {high:.1f} sd")
    print(f"  {'values':10s} {'code':10s}      MB   of float16   largest error   rms    visible   decode")
    for kind, stored, values in ways:
        error = np.abs(values - volume)[inside]
        places = np.abs(last_places(volumes.decode(volumes.encode(values))) - last_places(bits))[inside]
        told = f"{error.max():.4f}        {np.sqrt((error**2).mean()):.4f}  {(places > 1).mean():6.1%}"
        for code, level in (("lz4", 5), ("lz4hc", 5), ("zstd", 1)):
            codec = Blosc(code, level, Blosc.SHUFFLE, 1 << 20)
            content = codec.encode(stored)
            decoding = milliseconds(partial(codec.decode, content))
            share = f"{len(content) / 1e6:7.2f}   {len(content) / half.nbytes:8.0%}"
            print(f"  {kind:10s} {code:10s} {share}      {told}   {decoding:4.1f} ms")


if __name__ == "__main__":
    main()
