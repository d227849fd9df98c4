"""Shards: packing beside plain tarfile, and reading beside webdataset's own pipeline.

    python tests/benchmarks/shards.py --people 60

People are drawn: T1 volumes at 1 mm with a brain's share of background, series of 490 frames. Every measurement is a
process of its own on warm files; rounds are interleaved, ratios are of medians of CPU seconds. No part of the test
suite.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

GRID, FRAMES, ROIS, BATCH = (160, 192, 160), 490, 400, 20


def write_features(folder: Path, people: int) -> None:
    """Features of batches of drawn people, in the files that packing reads."""
    import pyarrow.parquet as pq

    from bhx_model.contract import canonical_json, roi_sha256
    from bhx_prep import features

    rng = np.random.default_rng(0)
    distance = np.sqrt(
        sum((a - 0.5) ** 2 for a in np.meshgrid(*[np.linspace(0, 1, n) for n in GRID], indexing="ij"))
    )
    inside = distance < 0.42
    names = [f"17Networks_{'LR'[i * 2 // ROIS]}H_{i}" for i in range(ROIS)]
    facts = {
        "atlas": "Schaefer17n400p", "names": names, "hemisphere": [i * 2 // ROIS for i in range(ROIS)],
        "roi_sha256": roi_sha256("Schaefer17n400p", names), "strategy": "paper", "shape_order": "roi,frame",
    }  # fmt: skip
    schema = features.SERIES_SCHEMA.with_metadata({b"bhx": canonical_json(facts)})
    for batch in range(people // BATCH):
        out = folder / f"batch-{batch:05d}"
        out.mkdir(parents=True)
        rows, volumes = [], features._Volumes(out / "t1w.npz")
        with volumes:
            for i in range(BATCH):
                subject = f"{batch * BATCH + i:05d}"
                anat = f"uk_sub-{subject}"
                noise = rng.standard_normal(GRID, dtype=np.float32)
                volume = np.where(inside, np.rint((noise + 3 * np.cos(9 * distance)) * 40) / 40, 0).astype(
                    np.float16
                )
                about = {"subject": subject, "session": None, "synthetic": True}
                volumes.add(anat, volume, {**about, "zooms_mm": [1, 1, 1], "affine": np.eye(4).tolist()})
                rows.append({
                    **about, "key": f"{anat}_task-rest", "task": "rest", "run": None, "anat": anat, "tr_s": 0.735,
                    "n_frames": FRAMES, "series": (9000 + rng.standard_normal(ROIS * FRAMES)).astype(np.float32),
                    "coverage": np.ones(ROIS, np.float32),
                })  # fmt: skip
        import pyarrow as pa

        pq.write_table(
            pa.Table.from_pylist(rows, schema=schema), out / "timeseries.parquet", compression="none"
        )


def pack_ours(features: Path, out: Path) -> None:
    from bhx_prep import shards

    yield
    for number, folder in enumerate(sorted(features.iterdir())):
        shards.pack("uk", number, folder, out)
    shards.write_json(out / "index.json", shards.index("uk", out, list(range(number + 1))))
    yield


def pack_tarfile(features: Path, out: Path) -> None:
    """The same members by plain tarfile, read from the finished shards before the clock runs."""
    members = [
        [(info, tar.extractfile(info).read()) for info in tar]
        for tar in map(tarfile.open, sorted(features.parent.glob("packed/*.tar")))
    ]
    yield
    for number, listed in enumerate(members):
        with tarfile.open(out / f"{number}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for info, content in listed:
                tar.addfile(info, io.BytesIO(content))
    yield


def pack_webdataset(features: Path, out: Path) -> None:
    import webdataset as wds

    samples = [
        list(wds.WebDataset(str(p), shardshuffle=False)) for p in sorted(features.parent.glob("packed/*.tar"))
    ]
    yield
    for number, listed in enumerate(samples):
        with wds.TarWriter(str(out / f"{number}.tar")) as sink:
            for sample in listed:
                sink.write({k: v for k, v in sample.items() if k in ("__key__",) or not k.startswith("__")})
    yield


def read_ours(packed: Path, out: Path) -> None:
    from bhx_model import data

    index = data.open_index(packed / "index.json")
    samples = index.samples["t1w"]
    order = np.random.default_rng(0).permutation(len(samples))
    yield
    total = sum(float(data.read_t1w(samples[i], GRID)[80, 96, 80]) for i in order)
    yield total


def read_webdataset(packed: Path, out: Path) -> None:
    import webdataset as wds

    pipeline = wds.WebDataset([str(p) for p in sorted(packed.glob("t1w-*.tar"))], shardshuffle=100, seed=0)
    pipeline = pipeline.shuffle(20).decode().to_tuple("t1w.npy")
    yield
    yield sum(float(volume[80, 96, 80]) for (volume,) in pipeline)


def read_bytes(packed: Path, out: Path) -> None:
    """The limit: the bytes of the files, and nothing done with them."""
    files = sorted(packed.glob("t1w-*.tar"))
    buffer = bytearray(1 << 22)
    yield
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    yield


PACK = {"ours": pack_ours, "tarfile": pack_tarfile, "webdataset": pack_webdataset}
READ = {"ours": read_ours, "webdataset": read_webdataset, "bytes alone": read_bytes}


def one(case: str, source: Path) -> None:
    """Run one measurement and print its numbers."""
    kind, name = case.split(": ")
    with tempfile.TemporaryDirectory() as out:
        steps = {"pack": PACK, "read": READ}[kind][name](source, Path(out))
        next(steps)  # imports, and what is no part of the task
        before = resource.getrusage(resource.RUSAGE_SELF)
        value = next(steps)
        after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu": cpu, "mb": after.ru_maxrss / 1024, "value": value}))


def compare(kind: str, cases: dict, source: Path, rounds: int) -> dict[str, float]:
    """Measure cases in turns; the median CPU seconds of each."""
    found: dict[str, list[dict]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name in cases:
            command = [sys.executable, __file__, "--one", f"{kind}: {name}", "--source", str(source)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    values = {name: listed[0]["value"] for name, listed in found.items() if listed[0]["value"] is not None}
    assert len({round(v, 3) for v in values.values()}) <= 1, f"the sides read different volumes: {values}"
    return {name: statistics.median(m["cpu"] for m in listed) for name, listed in found.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=60, help="a multiple of 20 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one, args.source)
        return
    with tempfile.TemporaryDirectory() as folder:
        features, packed = Path(folder) / "features", Path(folder) / "packed"
        write_features(features, args.people)
        list(pack_ours(features, packed))
        size = sum(p.stat().st_size for p in packed.glob("*.tar"))
        print(
            f"{args.people} people, {size / args.people / 1e6:.2f} MB a person in shards; goal 2.5 MB or less"
        )
        packing = compare("pack", PACK, features, args.rounds)
        for name, seconds in packing.items():
            print(f"  packing, {name:12s} {seconds:6.2f} s CPU, {size / seconds / 1e6:6.0f} MB/s")
        rate = packing["tarfile"] / packing["ours"]
        print(f"    {rate:.2f} of the rate of tarfile (ours also reads features and hashes); goal 0.8")
        reading = compare("read", READ, packed, args.rounds)
        for name, seconds in reading.items():
            print(f"  reading T1, {name:12s} {args.people / seconds:7.0f} samples per CPU second")
        print(f"    {reading['webdataset'] / reading['ours']:.1f} x webdataset; goal 2.5 x")
        print("    litdata: not installed here, not measured")


if __name__ == "__main__":
    main()
