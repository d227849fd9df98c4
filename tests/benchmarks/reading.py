"""Reading rate of T1 volumes and series by number of threads, and its bottleneck.

    python tests/benchmarks/reading.py                       # this checkout
    python tests/benchmarks/reading.py --against COMMIT      # and another one, in turns

What is measured is what a training does: the plan of each epoch, masks, and samples read from shards that lie in the page
cache into batches on the host. Nothing is computed with them. Subjects are drawn as in `shards.py`. Every measurement is a
process of its own that reads each sample as often as it takes; rounds are interleaved. On a machine that is busy with other
things samples per second of the clock say little: seconds of the processor a sample are printed beside them. Memory that
a batch takes is given twice: as it stands in the shards, and as the device gets it. No part of the test suite.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1] / "builders"), str(HERE.parent)]

#: Samples of a batch.
BATCH = {"structure": 16, "function": 64}
#: Cores of a node that the rates are extrapolated to, and what eight H100s would take of T1 volumes a second.
CORES, GOAL = 16, 4000
#: How much faster than before two threads shall read than one did.
FASTER = 1.8


def prepare(folder: Path, subjects: int) -> None:
    """Write shards, ROI metadata and a split."""
    import shards
    from tiny_shards import write_rois

    shards.write_features(folder / "features", subjects)
    list(shards.pack_ours(folder / "features", folder / "packed"))
    index = json.loads((folder / "packed" / "index.json").read_text())
    drawn = write_rois(folder / "rois.npz", index["roi_names"])
    with np.load(drawn) as arrays:
        described = {**arrays, "atlas": np.array(index["atlas"])}
    np.savez(drawn, **described)
    people = [f"uk/{number:05d}" for number in range(subjects)]
    (folder / "split.json").write_text(json.dumps({"train": people[1:], "holdout": people[:1]}))


def batches(stage: Any, steps: range, threads: int) -> Iterator[list[Any]]:
    """The parts of each step, as this checkout's training reads them."""
    from bhx_model.training.distributed import ALONE

    if importlib.util.find_spec("bhx_model.training.feed"):
        from bhx_model.training import feed

        return (list(parts) for parts, _ in feed.steps(stage, steps, ALONE, threads))
    import functools  # up to commit e8e8fd8

    from bhx_model.data import loader
    from bhx_model.training.loop import rank_share

    tasks = (functools.partial(rank_share, stage, step, ALONE) for step in steps)
    return (parts for parts, _ in loader.in_order(tasks, workers=threads, ahead=max(2, threads)))


def child(folder: Path, name: str, threads: int, samples: int) -> None:
    """Read, and print what it took."""
    import torch

    from bhx_model.config import load_preset
    from bhx_model.training import stages

    torch.set_num_threads(1)
    changes = {"train.batch_size": BATCH[name], "train.accumulate": 1, "train.steps": 10_000_000}
    sources = stages.Sources(
        shards=[folder / "packed" / "index.json"], split=folder / "split.json", rois=folder / "rois.npz"
    )
    stage = stages.open_stage(load_preset(name, "base").override(changes), sources, 0)
    for shard in stage._shards():
        shard.path.read_bytes()  # into the page cache
    warm, n_steps = 8, -(-samples // BATCH[name])
    seen = device_bytes = 0
    for step, parts in enumerate(batches(stage, range(warm + n_steps), threads)):
        if step == warm - 1:
            began, cpu = time.perf_counter(), time.process_time()
        elif step >= warm:
            seen += sum(len(batch.keys) for batch in parts)
            device_bytes += sum(t.nbytes for batch in parts for t in batch.tensors.values())
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {
        "rate": seen / wall,
        "cpu_ms": 1e3 * cpu / seen,
        "mb": device_bytes / seen / 1e6,
        "peak_mb": peak,
    }
    print(json.dumps(found))


def parts_of_a_volume(folder: Path) -> dict[str, float]:
    """Milliseconds of one thread's processor that each part of reading a volume takes; the interpreter's lock among them."""
    from bhx_model.data import frames, shards, volumes

    samples = shards.open_index(folder / "packed" / "index.json").samples["t1w"]
    contents = [shards._content(sample).copy() for sample in samples[:8]]
    shape = tuple(contents[0][:6].view("<u2").tolist())
    out = np.zeros(shape, np.int16)
    *_, n_x, n_y, n_planes = contents[0][:16].view("<u2").tolist()
    slab = np.empty((n_planes, n_y * shape[2]), np.uint16)

    def decompress(content: np.ndarray) -> None:
        place, left = 16, n_x
        while place < content.size:
            # volumes differ in their boxes
            lines = content[14:16].view("<u2")[0]
            rows = min(int(lines), left)
            size = int(content[place + 4 : place + 8].view("<u4")[0]) // 2
            memory = slab.reshape(-1)[:size] if size <= slab.size else np.empty(size, np.uint16)
            place += frames.decompress(content[place:], memory)
            left -= rows

    # the same number of calls with next to nothing to do in each: what is left holds the interpreter's lock
    little = np.zeros((n_x, 4, 4), np.float32)
    little[:, 1:3], little[0], little[-1] = 1, 2, 3
    tiny = np.frombuffer(volumes.encode(little), np.uint8)
    small = np.zeros(little.shape, np.int16)
    fresh: Callable[[], Any] = lambda: np.zeros(shape, np.int16) + np.int16(1)  # noqa: E731
    return {
        "read from the page cache": _cpu_ms([lambda s=s: shards._content(s) for s in samples[:8]]),
        "decompress": _cpu_ms([lambda c=c: decompress(c) for c in contents]),
        "decode (decompress, and add up)": _cpu_ms([lambda c=c: volumes.decode(c, out) for c in contents]),
        "of it with the interpreter's lock": _cpu_ms([lambda: volumes.decode(tiny, small)]),
        "memory that is new to the process, which is spared": _cpu_ms([fresh]),
    }


def _cpu_ms(calls: list[Callable[[], Any]]) -> float:
    found = []
    for _ in range(10):
        began = time.thread_time()
        for call in calls:
            call()
        found.append((time.thread_time() - began) / len(calls))
    return 1e3 * min(found)


def measure(checkout: Path, folder: Path, name: str, threads: int, samples: int) -> dict[str, float]:
    """Read in a process of its own, with the code of a checkout."""
    words = ["--child", name, "--threads", str(threads), "--samples", str(samples), "--folder", str(folder)]
    path = os.pathsep.join([str(checkout), str(checkout / "workflow")])
    done = subprocess.run(
        [sys.executable, str(HERE), *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compare(
    sides: dict[str, Path], folder: Path, name: str, threads: list[int], samples: int, rounds: int
) -> None:
    """Measure in turns and print a table."""
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for count in threads:
            for side, checkout in sides.items():
                found.setdefault((side, count), []).append(measure(checkout, folder, name, count, samples))
    what = "T1 volumes" if name == "structure" else "series"
    print(
        f"\n{what} of batches of {BATCH[name]}; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    print("                  threads   a second: median (best)   MB/s   CPU ms each   peak MB")
    for (side, count), listed in found.items():
        rates = [one["rate"] for one in listed]
        middle, cpu = statistics.median(rates), min(one["cpu_ms"] for one in listed)
        print(
            f"  {side:14s} {count:8d} {middle:18.0f} ({max(rates):.0f}) {middle * listed[0]['mb']:10.0f} {cpu:11.2f}"
            f" {max(one['peak_mb'] for one in listed):11.0f}"
        )
    if len(sides) == 2:
        ours, theirs = sides
        pairs = zip(found[ours, threads[-1]], found[theirs, threads[0]], strict=True)
        ratios = [a["rate"] / b["rate"] for a, b in pairs]
        cpu = [min(one["cpu_ms"] for one in found[side, threads[0]]) for side in (theirs, ours)]
        print(
            f"  {threads[-1]} threads here beside {threads[0]} there: {statistics.median(ratios):.2f} x"
            f" ({min(ratios):.2f} to {max(ratios):.2f}), goal {FASTER}; by CPU seconds a sample {cpu[0] / cpu[1]:.2f} x"
        )
    if name == "structure":
        _extrapolate(min(one["cpu_ms"] for one in found[next(iter(sides)), threads[-1]]), folder)


def _extrapolate(cpu_ms: float, folder: Path) -> None:
    print("  of one volume, in ms of a processor:")
    parts = parts_of_a_volume(folder)
    for part, ms in parts.items():
        print(f"    {part:52s} {ms:6.2f}")
    lock = 1e3 / parts["of it with the interpreter's lock"]
    cores = CORES * 1e3 / cpu_ms
    bound = "the processors" if cores < lock else "the interpreter's lock, in one process"
    print(
        f"  on {CORES} cores by arithmetic: {cores:.0f} a second by the processors' time; {lock:.0f} by the interpreter's"
        f" lock in one process, {8 * lock:.0f} in eight; so {min(cores, lock):.0f} in one process, bounded by {bound}, and"
        f" {min(cores, 8 * lock):.0f} in eight (goal {GOAL})"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=60, help="a multiple of 20 (%(default)s)")
    parser.add_argument("--samples", type=int, default=256, help="samples of a measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--against", metavar="COMMIT", help="commit of this repository to measure beside")
    parser.add_argument("--folder", type=Path, help="shards of an earlier run, or where to write them")
    parser.add_argument("--child", choices=BATCH, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.folder, args.child, args.threads[0], args.samples)
        return
    top = HERE.parents[2]
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        if not (folder / "split.json").exists():
            prepare(folder, args.subjects)
        sides = {"this checkout": top}
        if args.against:
            other = Path(scratch) / "other"
            other.mkdir()
            archive = subprocess.run(
                ["git", "-C", str(top), "archive", args.against], check=True, capture_output=True
            )
            subprocess.run(["tar", "-x", "-C", str(other)], input=archive.stdout, check=True)
            sides[args.against] = other
        for name in BATCH:
            compare(sides, folder, name, args.threads, args.samples, args.rounds)


if __name__ == "__main__":
    main()
