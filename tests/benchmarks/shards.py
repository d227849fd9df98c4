"""Shards: packing compared with tarfile, and reading compared with webdataset's own pipeline.

    python tests/benchmarks/shards.py --subjects 60

Subjects are simulated: the brain of the MNI152 template at 1 mm with noise of 0.15 sd, drawn series of 490 frames at a TR of
0.735 s between 0.009 and 0.08 Hz, as the strategy `paper` leaves them. Every measurement is a process of its own on
warm files; rounds are interleaved, ratios are of medians of CPU seconds. All sides read batches of volumes, as a
training takes them (`--batch 1`: single volumes). webdataset reads twice: our shards, with a handler for stored
volumes; and tars of plain float16 arrays, which it decodes by itself. litdata stores the values of ours, 9.8 MB each,
and is measured where it is installed. No part of the test suite.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

GRID, FRAMES, ROIS, TR_S = (160, 192, 160), 490, 400, 0.735
#: Subjects of a shard.
SHARD = 20
#: Volumes that are read at once.
batch_size = 4


def template() -> tuple[np.ndarray, np.ndarray]:
    """The template's brain on the model's grid, z-scored, and its mask."""
    from nilearn import datasets

    head, mask = datasets.load_mni152_template(resolution=1), datasets.load_mni152_brain_mask(resolution=1)
    cut = tuple(slice((n - g) // 2, (n - g) // 2 + g) for n, g in zip(head.shape, GRID, strict=True))
    values, inside = head.get_fdata(dtype=np.float32)[cut], np.asarray(mask.dataobj)[cut] > 0
    return (values - values[inside].mean()) / values[inside].std(), inside


def series(rng: np.random.Generator) -> np.ndarray:
    """Drawn parcel means after a band-pass, (R, T) float32."""
    spectrum = np.fft.rfft(rng.standard_normal((ROIS, FRAMES)))
    hertz = np.fft.rfftfreq(FRAMES, TR_S)
    spectrum[:, (hertz < 0.009) | (hertz > 0.08)] = 0
    slow = np.fft.irfft(spectrum, FRAMES)
    return (9000 + 60 * slow / slow.std(axis=1, keepdims=True)).astype(np.float32)


def write_features(folder: Path, subjects: int, size: int = SHARD) -> None:
    """Features of batches of drawn subjects, in the files that packing reads."""
    from bhx_model.contract import roi_sha256
    from bhx_model.data import timeseries, volumes
    from bhx_prep.features import store

    rng = np.random.default_rng(0)
    brain, inside = template()
    names = [f"17Networks_{'LR'[i * 2 // ROIS]}H_{i}" for i in range(ROIS)]
    metadata = {
        "atlas": "Schaefer17n400p",
        "names": names,
        "roi_sha256": roi_sha256("Schaefer17n400p", names),
    }
    run = {"task": "rest", "run": None, "tr_s": TR_S, "n_frames": FRAMES, "segments": None}
    space = {"shape": GRID, "zooms_mm": [1, 1, 1], "affine": np.eye(4).tolist()}
    for batch in range(subjects // size):
        out = folder / f"batch-{batch:05d}"
        out.mkdir(parents=True)
        with (
            store.Writer(out / "bold.arrow", "bold", metadata) as bold,
            store.Writer(out / "t1w.arrow", "t1w", {}) as t1w,
        ):
            for i in range(size):
                subject = f"{batch * size + i:05d}"
                about = {"subject": subject, "session": None, "synthetic": True}
                anat = f"uk_sub-{subject}"
                noise = 0.15 * rng.standard_normal(GRID, dtype=np.float32)
                t1w.add({**about, **space, "key": anat}, volumes.encode(np.where(inside, brain + noise, 0)))
                row = {**about, **run, "key": f"{anat}_task-rest", "anat": anat}
                bold.add(row, timeseries.encode(series(rng)))


def pack_ours(features: Path, out: Path) -> Iterator:
    from bhx_model.atomic_write import write_json
    from bhx_prep.shards import index_json, pack

    pack.pack(
        "uk", 0, min(features.iterdir()), out / "warm"
    )  # Arrow and Blosc load what they need when first called
    yield
    for number, folder in enumerate(sorted(features.iterdir())):
        pack.pack("uk", number, folder, out)
    write_json(out / "index.json", index_json.collect("uk", out, list(range(number + 1))), canonical=True)
    yield


def pack_tarfile(features: Path, out: Path) -> Iterator:
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


def pack_files(features: Path, out: Path) -> Iterator:
    """Plain tarfile, the members in files of their own: it has to read them, as ours does."""
    loose = []
    for path in sorted(features.parent.glob("packed/*.tar")):
        with tarfile.open(path) as tar:
            tar.extractall(out / path.stem, filter="data")
            loose.append((path.name, [out / path.stem / name for name in tar.getnames()]))
    yield
    for name, files in loose:
        with tarfile.open(out / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for file in files:
                tar.add(file, file.name)
    yield


def pack_hashing(features: Path, out: Path) -> Iterator:
    """Plain tarfile, then the hash of every file, which an index of shards needs."""
    steps = pack_tarfile(features, out)
    next(steps)
    yield
    next(steps)
    for path in out.iterdir():
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    yield


def pack_webdataset(features: Path, out: Path) -> Iterator:
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


def read_ours(packed: Path, out: Path) -> Iterator:
    from bhx_model.data import shards, volumes

    index = shards.open_index(packed / "index.json")
    samples = index.samples["t1w"]
    order = np.random.default_rng(0).permutation(len(samples))
    shards.read_t1w(samples[:1], GRID)  # Blosc loads what it needs when first called
    yield
    total = 0
    for start in range(0, len(order), batch_size):
        batch = shards.read_t1w([samples[i] for i in order[start : start + batch_size]], GRID)
        total += int(batch[:, 80, 96, 80].sum())
    yield total / volumes.STEPS_PER_SD


def read_webdataset(packed: Path, out: Path) -> Iterator:
    import webdataset as wds

    from bhx_model.data import volumes

    pipeline = wds.WebDataset([str(p) for p in sorted(packed.glob("t1w-*.tar"))], shardshuffle=100, seed=0)
    member = "t1w.blosc"
    handler = wds.handle_extension(member, volumes.decode)
    list(pipeline.decode(handler).slice(1))
    pipeline = _batched(pipeline.shuffle(20).decode(handler).to_tuple(member))
    yield
    yield sum(int(batch[..., 80, 96, 80].sum()) for (batch,) in pipeline) / volumes.STEPS_PER_SD


def _batched(pipeline: Any) -> Any:
    return pipeline.batched(batch_size) if batch_size > 1 else pipeline


def read_plain(packed: Path, out: Path) -> Iterator:
    """Float16 arrays, not compressed: what webdataset decodes without help."""
    import webdataset as wds

    from bhx_model.data import shards, volumes

    tars = []
    samples = shards.open_index(packed / "index.json").samples["t1w"]
    for start in range(0, len(samples), SHARD):
        tars.append(str(out / f"{start}.tar"))
        with wds.TarWriter(tars[-1]) as sink:
            for sample in samples[start : start + SHARD]:
                volume = volumes.to_float32(shards.read_t1w([sample], GRID)[0]).astype(np.float16)
                sink.write({"__key__": sample.key, "npy": volume})
    pipeline = _batched(wds.WebDataset(tars, shardshuffle=100, seed=0).shuffle(20).decode().to_tuple("npy"))
    yield
    total = sum(float(batch[..., 80, 96, 80].sum()) for (batch,) in pipeline)
    assert np.isfinite(total)
    yield


def read_litdata(packed: Path, out: Path) -> Iterator:
    """The same values in litdata's own format."""
    import litdata

    from bhx_model.data import shards, volumes

    inputs = list(shards.open_index(packed / "index.json").samples["t1w"])
    litdata.optimize(_steps, inputs, str(out / "lit"), chunk_bytes="100MB", num_workers=1)
    dataset = litdata.StreamingDataset(str(out / "lit"), shuffle=True, seed=0)
    if batch_size > 1:
        dataset = litdata.StreamingDataLoader(dataset, batch_size=batch_size)
    yield
    yield sum(int(item["volume"][..., 80, 96, 80].sum()) for item in dataset) / volumes.STEPS_PER_SD


def _steps(sample: Any) -> dict:
    from bhx_model.data import shards

    return {"volume": shards.read_t1w([sample], GRID)[0]}


def read_bytes(packed: Path, out: Path) -> Iterator:
    """The limit: the bytes of the files, and nothing done with them."""
    files = sorted(packed.glob("t1w-*.tar"))
    buffer = bytearray(1 << 22)
    yield
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    yield


PACK = {
    "ours": pack_ours,
    "tarfile": pack_tarfile,
    "tarfile from files": pack_files,
    "tarfile and hash": pack_hashing,
    "webdataset": pack_webdataset,
}
READ = {
    "ours": read_ours,
    "webdataset": read_webdataset,
    "webdataset, plain": read_plain,
    "bytes alone": read_bytes,
}
if importlib.util.find_spec("litdata"):
    READ["litdata"] = read_litdata


def one(case: str, source: Path) -> None:
    """Run one measurement and print its numbers."""
    kind, name = case.split(": ")
    with tempfile.TemporaryDirectory() as out:
        steps = {"pack": PACK, "read": READ}[kind][name](source, Path(out))
        next(steps)  # imports, and what is no part of the task
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        value = next(steps)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu": cpu, "wall": wall, "mb": after.ru_maxrss / 1024, "value": value}))


def compare(kind: str, cases: dict, source: Path, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Measure cases in turns; the median CPU seconds and the median seconds of the clock of each."""
    found: dict[str, list[dict]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name in cases:
            command = [sys.executable, __file__, "--one", f"{kind}: {name}", "--source", str(source)]
            command += ["--batch", str(batch_size)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    values = {name: listed[0]["value"] for name, listed in found.items() if listed[0]["value"] is not None}
    assert len({round(v, 3) for v in values.values()}) <= 1, f"the sides read different volumes: {values}"
    cpu, wall = (
        {name: statistics.median(m[clock] for m in listed) for name, listed in found.items()}
        for clock in ("cpu", "wall")
    )
    return cpu, wall


def sweep(subjects: int, sizes: list[int], rounds: int) -> None:
    """Rates by subjects per shard."""
    packers, readers = (
        {k: v for k, v in cases.items() if k in ("ours", "webdataset")} for cases in (PACK, READ)
    )
    print("subjects a shard   MB a T1 shard   packed a CPU second   read a CPU second: ours   webdataset")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            features, packed = Path(folder) / "features", Path(folder) / "packed"
            write_features(features, subjects, size)
            list(pack_ours(features, packed))
            shard = max(p.stat().st_size for p in packed.glob("t1w-*.tar")) / 1e6
            packing = compare("pack", packers, features, rounds)[0]["ours"]
            reading, _ = compare("read", readers, packed, rounds)
        rates = "".join(f"{subjects / reading[name]:17.0f}" for name in ("ours", "webdataset"))
        print(f"{size:14d} {shard:15.1f} {subjects / packing:21.0f} {rates}")


def main() -> None:
    """Run the command line."""
    global batch_size
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=60, help="a multiple of 20 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4, help="volumes that are read at once (%(default)s)")
    parser.add_argument("--sweep", type=int, nargs="+", help="subjects per shard to compare, e.g. 1 5 20 60")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    batch_size = args.batch
    if args.one:
        one(args.one, args.source)
        return
    if args.sweep:
        sweep(args.subjects, args.sweep, args.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        features, packed = Path(folder) / "features", Path(folder) / "packed"
        write_features(features, args.subjects)
        list(pack_ours(features, packed))
        size = sum(p.stat().st_size for p in packed.glob("*.tar"))
        print(
            f"{args.subjects} subjects, {size / args.subjects / 1e6:.2f} MB a subject in shards; goal 2.5 MB or less"
        )
        packing, wall = compare("pack", PACK, features, args.rounds)
        for name, seconds in packing.items():
            print(
                f"  packing, {name:18s} {seconds:6.2f} s CPU, {wall[name]:6.2f} s, {size / wall[name] / 1e6:5.0f} MB/s"
            )
        for peer in ("tarfile", "tarfile from files", "tarfile and hash"):
            rate, work = wall[peer] / wall["ours"], packing[peer] / packing["ours"]
            print(f"    {rate:.2f} of the rate of {peer}; {work:.2f} by CPU seconds")
        print(
            "    goal: 0.8 of tarfile; ours reads from files, checks what it read and hashes what it writes"
        )
        reading, _ = compare("read", READ, packed, args.rounds)
        for name, seconds in reading.items():
            print(f"  reading T1, {name:17s} {args.subjects / seconds:7.0f} samples per CPU second")
        for peer in ("webdataset", "webdataset, plain", "litdata"):
            if peer in reading:
                print(f"    {reading[peer] / reading['ours']:.1f} x {peer}")
        print("    goals: 2.5 x webdataset, 1 x litdata")


if __name__ == "__main__":
    main()
