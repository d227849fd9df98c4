"""Size of a stored T1 volume by storage method, and whether bfloat16 would see the difference.

    python tests/benchmarks/volumes.py [--t1w T1W_IN_MNI.nii.gz --mask BRAIN_MASK.nii.gz] [--noise 0.15] [--encoder]

Without a head of yours it is the MNI152 template, an average of 152. Both get noise, in sd of the brain's intensities:
a template and Colin27, an average of 27 scans, have less than a scan has. Errors are of what a bfloat16 model takes in,
against the float32 volume, in the same unit; `moved` is the share of brain voxels whose bfloat16 is another than that of
the float32 volume, `> 1` the share where it is more than one unit in the last place away. CPU milliseconds of one
thread, the median of nine. With `--encoder`, an untrained encoder of reference size in bfloat16 shows how far its tokens
are from those of the same in float32 on the float32 volume.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numcodecs import Blosc
from shards import GRID, template

from bhx_model.data import volumes


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


def head(t1w: Path | None, mask: Path | None, noise: float) -> tuple[np.ndarray, str]:
    """A volume on the model's grid, float32, and its name."""
    if t1w is not None:
        from bhx_prep.features.t1w import conform, model_grid

        volume, name = conform(t1w, model_grid(1.0, GRID), mask), t1w.name
    else:
        brain, inside = template()
        volume, name = np.where(inside, brain, 0).astype(np.float32), "MNI152 template"
    drawn = noise * np.random.default_rng(0).standard_normal(GRID, dtype=np.float32)
    return np.where(volume != 0, volume + drawn, 0).astype(np.float32), f"{name}, noise of {noise:g} sd"


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16."""
    return (volumes._bfloat16(values).view(np.uint32) >> 16).astype(np.uint16)


def floats(bits: np.ndarray) -> np.ndarray:
    """Values of the bits of bfloat16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def ways(volume: np.ndarray) -> Iterator[tuple[str, str, bytes, Callable[[], object], np.ndarray]]:
    """Name of the values and of the code, what is stored, what reads it, and the values."""
    inside, low, high = volume != 0, volume.min(), volume.max()
    half = volume.astype(np.float16)
    rounded = {scale: np.rint(np.where(np.abs(volume) < 128 / scale, volume, floats(bfloat16(volume))) * scale)
               for scale in (128, 256)}  # fmt: skip
    few = np.where(inside, 1 + np.rint((volume - low) / (high - low) * 254), 0).astype(np.uint8)
    stored = {
        "float16": (half, half.astype(np.float32)),
        "bfloat16": (bfloat16(volume), floats(bfloat16(volume))),
        "1/256 sd": (rounded[256].astype(np.int16), (rounded[256] / 256).astype(np.float32)),
        "1/128 sd": (rounded[128].astype(np.int16), (rounded[128] / 128).astype(np.float32)),
        "256 steps": (few, np.where(inside, (few - np.float32(1)) / 254 * (high - low) + low, 0).astype(np.float32)),
    }  # fmt: skip
    for name, (array, values) in stored.items():
        for code, level in (("lz4hc", 5), ("zstd", 1)):
            codec = Blosc(code, level, Blosc.SHUFFLE, 1 << 20)
            content = codec.encode(array)
            yield name, code, content, partial(codec.decode, content), values
    content = volumes.encode(volume)
    yield "1/128 sd", "as stored", content, partial(volumes.decode, content), stored["1/128 sd"][1]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--t1w", type=Path)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--noise", type=float, default=0.15, help="sd (%(default)s)")
    parser.add_argument("--encoder", action="store_true", help="half a minute more")
    args = parser.parse_args()
    volume, name = head(args.t1w, args.mask, args.noise)
    inside, exact = volume != 0, last_places(bfloat16(volume))
    print(f"{name}: {inside.mean():.0%} of the voxels are brain, {volume.min():.1f} to {volume.max():.1f} sd")
    print("  values     code            MB   of float16   largest error   rms      moved     > 1   decode")
    for values, code, content, decode, found in ways(volume):
        # what a model computing in bfloat16 makes of it
        error = np.abs(floats(bfloat16(found)) - volume)[inside]
        places = np.abs(last_places(bfloat16(found)) - exact)[inside]
        errors = f"{error.max():.4f}        {np.sqrt((error**2).mean()):.4f}"
        errors += f"   {(places > 0).mean():6.1%}  {(places > 1).mean():6.1%}"
        share = f"{len(content) / 1e6:7.2f}   {len(content) / 2 / volume.size:8.0%}"
        print(f"  {values:10s} {code:10s} {share}      {errors}   {milliseconds(decode):4.1f} ms")
    if args.encoder:
        encoder(volume)


def encoder(volume: np.ndarray) -> None:
    """How far bfloat16 takes the tokens of an encoder from those in float32, by what it is given."""
    import torch

    from bhx_model.config import StructureConfig
    from bhx_model.nets.mae import StructureMAE

    torch.manual_seed(0)
    model = StructureMAE(StructureConfig(), GRID).eval()
    stored = volumes.to_float32(volumes.decode(volumes.encode(volume)))
    noise = 0.15 * np.random.default_rng(1).standard_normal(GRID, dtype=np.float32)
    again = np.where(volume != 0, volume + noise, 0).astype(np.float32)
    with torch.no_grad():
        truth = model.encode(torch.from_numpy(volume)[None])
        for name, given in (
            ("float32 volume", volume),
            ("as stored", stored),
            ("another scan's noise", again),
        ):
            with torch.autocast("cpu", torch.bfloat16):
                error = model.encode(torch.from_numpy(given)[None]).float() - truth
            far = error.square().mean().sqrt() / truth.std()
            print(f"  tokens in bfloat16, {name:21s} {far:.4f} of their spread from those in float32")


if __name__ == "__main__":
    main()
