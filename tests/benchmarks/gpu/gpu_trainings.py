"""Trainings as a study runs them, by their command: reading, decoding and copying included.

Shards are drawn: volumes and series hold noise and are of the paper's sizes. A few are stored, and many samples point at
each, so that all are read from the page cache.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import math
import multiprocessing
import re
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import joblib
import numpy as np
import torch
from gpu_cases import FRAMES, Sizes
from gpu_steps import GPUS

from bhx_model import contract
from bhx_model.config import load_preset
from bhx_model.data import timeseries, volumes
from bhx_model.data.reader import threads_per_process
from bhx_model.file_hash import file_sha256
from bhx_model.training import feed, stages, tokens, train
from bhx_model.training.distributed import Processes

#: Cohorts: name, frames, repetition time (s), arrays that are stored, samples that point at them.
USUAL, MIXED, PAIRS = "usual", "mixed", "pairs"
TR_S = 0.735
#: Frames of a run of UK Biobank: 11 patches, the last of which is not full.
N_FRAMES = 10 * FRAMES + 10
#: Seconds that a training shall take, about, once it runs.
TRAINING_S = 6.0
#: Seconds that each process reads without computing.
READING_S = 3.0
#: Parts of one GPU's share of a batch, by what a sample of preset `base` takes of 80 GB.
PARTS = {"structure": 1, "function": 4, "fusion": 1}
STEP_LINE = re.compile(r"\w+ (\d+)/\d+ ")


def draw(place: Path, preset: str) -> None:
    """Write shards of three cohorts, ``rois.npz`` and the split."""
    sizes, tiny = Sizes.of(preset), preset == "tiny"
    stored, usual, pairs = (4, 16, 8) if tiny else (48, 2048, 256)
    random = np.random.default_rng(0)
    sizes.metadata().save(place / "rois.npz")
    distance = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in sizes.grid), indexing="ij"))
    inside = (distance**2).sum(axis=0) < 0.8  # as much of the grid as a brain fills
    # as many bytes as a T1 of that size has in shards: folds, and the noise of tests/benchmarks/shards.py
    folds = np.cos(np.tensordot((7, 9, 8), distance, axes=1)).astype(np.float32)
    noise = 0.15 * random.standard_normal(sizes.grid).astype(np.float32)

    def image(number: int) -> bytes:
        return volumes.encode((folds + np.roll(noise, number, axis=2)) * inside)

    with ThreadPoolExecutor() as pool:
        images = list(pool.map(image, range(stored)))
    subjects = []
    for name, n in ((USUAL, usual), (MIXED, usual // 2), (PAIRS, pairs)):
        trs = (TR_S, 2 * TR_S, 2.0, 2.5) if name == MIXED else (TR_S,)
        series = [
            (tr, random.standard_normal((sizes.rois, int(N_FRAMES * TR_S / tr))).astype(np.float32))
            for tr in trs
            for _ in range(max(stored // len(trs), 1))
        ]
        write_cohort(place / name, name, sizes, n, images, series)
        subjects += [f"{name}/{number:04d}" for number in range(n)]
    (place / "split.json").write_text(json.dumps({"train": subjects, "holdout": []}))


def write_cohort(
    folder: Path,
    cohort: str,
    sizes: Sizes,
    n: int,
    images: Sequence[bytes],
    series: Sequence[tuple[float, np.ndarray]],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = sizes.metadata().names
    digest = contract.roi_sha256("drawn", names)
    numbers = range(n)
    t1 = [f"{cohort}_sub-{number:04d}" for number in numbers]
    columns: dict[str, dict[str, list[Any]]] = {
        "t1w": {"key": t1, "subject": [f"{number:04d}" for number in numbers]},
        "bold": {
            "key": [f"{key}_task-rest" for key in t1],
            "anat": t1,
            "subject": [f"{number:04d}" for number in numbers],
            "tr_s": [series[number % len(series)][0] for number in numbers],
            "n_frames": [series[number % len(series)][1].shape[1] for number in numbers],
            "segments": [None] * n,
        },
    }
    arrays = {"t1w": list(images), "bold": [timeseries.encode(one) for _, one in series]}
    entries = {m: [_write_shard(folder, m, arrays[m], columns[m], n)] for m in contract.MODALITIES}
    index = {
        "contract": contract.CONTRACT_VERSION, "cohort": cohort, "atlas": "drawn", "roi_names": list(names),
        "roi_sha256": digest, "t1w_shape": list(sizes.grid), "t1w_zooms_mm": [1.0, 1.0, 1.0], "synthetic": True,
        "shards": entries,
    }  # fmt: skip
    (folder / "index.json").write_bytes(contract.canonical_json(index))


def _write_shard(
    folder: Path, modality: str, arrays: Sequence[bytes], columns: Mapping[str, list[Any]], n: int
) -> dict[str, Any]:
    """Write a tar of `arrays`, and a list in which `n` samples point at them in turn."""
    tar = folder / f"{modality}-00000.tar"
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, content in enumerate(arrays):
            info = tarfile.TarInfo(f"{number:05d}.{contract.ARRAYS[modality][0]}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with tarfile.open(tar) as archive:
        places = [(info.offset_data, info.size) for info in archive]
    turns = [places[number % len(places)] for number in range(n)]
    listed = {
        **columns,
        "content_sha256": [hashlib.sha256(f"{modality} {number}".encode()).hexdigest() for number in range(n)],
        "offset": [offset for offset, _ in turns], "size": [size for _, size in turns],
        "meta_offset": [0] * n, "meta_size": [0] * n,
    }  # fmt: skip
    path = tar.with_suffix(".json")
    path.write_bytes(
        contract.canonical_json({name: listed[name] for name in contract.LIST_COLUMNS[modality]})
    )
    return {
        "file": tar.name, "sha256": file_sha256(tar), "bytes": tar.stat().st_size, "n": n,
        "list": path.name, "list_sha256": file_sha256(path),
    }  # fmt: skip


class StepTimes(logging.Handler):
    """When a training reported which step."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[tuple[int, float]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the time of a progress line."""
        found = STEP_LINE.match(record.getMessage())
        if found:
            self.at.append((int(found.group(1)), record.created))


def _short(stage: str, preset: str, cohort: str, step_s: float | None) -> tuple[dict[str, Any], int]:
    """Settings of a short training, and its batch: one GPU's share of the preset's."""
    tiny = preset == "tiny"
    share = 2 if tiny else max(load_preset(stage, preset).train.batch_size // GPUS, 1)
    every = 2 if tiny else 4
    reports = 3 if tiny or step_s is None else max(4, min(int(TRAINING_S / step_s / every), 40))
    changes: dict[str, Any] = {
        "train.steps": every * reports, "train.batch_size": share, "train.warmup_steps": 0,
        "train.accumulate": math.gcd(PARTS[stage], share),
        "train.log_every": every, "train.save_every": 10**6, "train.keep_every": 10**6,
    }  # fmt: skip
    if stage == "function":
        changes |= {"model.tr_augment": cohort == MIXED, "train.ema": [0.9, 1.0]}
    return changes, share


def training(
    place: Path,
    stage: str,
    preset: str,
    *,
    cohort: str = USUAL,
    compiled: bool = False,
    step_s: float | None = None,
    changes: Mapping[str, Any] | None = None,
    batch: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Train a stage for some steps by its command, into ``place/<stage>``.

    Parameters
    ----------
    place
        Folder that `draw` has filled.
    stage, preset, cohort, compiled
        What is trained, of what, and whether through PyTorch's compiler.
    step_s
        Seconds that a step takes without reading, from which the number of steps follows; unknown if None.
    changes, batch
        Settings instead of those of a short training, and their batch.
    """
    if changes is None or batch is None:
        changes, batch = _short(stage, preset, cohort, step_s)
    changes = {**changes, "train.compile": compiled}
    of = PAIRS if stage == "fusion" else cohort
    name = f"{stage}-{cohort}-compiled" if compiled else stage
    words = [
        "--stage",
        stage,
        "--preset",
        preset,
        "--set",
        json.dumps(changes),
        "--shards",
        place / of / "index.json",
    ]
    words += ["--split", place / "split.json", "--rois", place / "rois.npz", "--run-root", place / "runs"]
    words += ["--out", place / name, "--step-version", time.time_ns() % 10**9]  # never an earlier run's
    if stage == "fusion":
        words += ["--tokens", place / "tokens/index.json"]
    times = StepTimes()
    log = logging.getLogger("bhx_model.training.runlog")
    log.addHandler(times)
    start = time.time()
    try:
        code = train.main([str(word) for word in words])
    finally:
        log.removeHandler(times)
    if code:
        msg = f"the training of {stage} ended with code {code}: its log says why"
        raise RuntimeError(msg)
    shutil.rmtree(place / "runs")  # gigabytes
    (first, first_at), (last, last_at) = times.at[0], times.at[-1]
    yield {
        "kind": "training", "stage": stage, "cohort": of, "way": "now, compiled" if compiled else "now",
        "batch": batch, "steps": last - first, "samples_s": batch * (last - first) / max(last_at - first_at, 1e-9),
        "start_s": first_at - start, "whole_s": time.time() - start, **(_compilations() if compiled else {}),
    }  # fmt: skip


def reading(place: Path, preset: str, device: torch.device, until: float) -> Iterator[dict[str, Any]]:
    """Read T1 volumes and series onto the device as a training does, and compute nothing: by one process, and by many.

    As many processes as GPUs share the cores, here also the GPU; each reads batches of one GPU's share of the preset's,
    for a few seconds.
    """
    cores = joblib.cpu_count()
    for stage in ("structure", "function"):
        for processes in sorted({1, min(GPUS, cores)}):
            if time.time() + READING_S > until:
                raise TimeoutError(f"{stage}, {processes} processes: its time was up")
            threads = threads_per_process(environment={"WORLD_SIZE": str(processes)})
            context = multiprocessing.get_context("spawn")
            barrier = context.Manager().Barrier(processes)
            one = functools.partial(_read, place, stage, preset, device, threads, barrier)
            with context.Pool(processes) as pool:
                found = pool.map(one, range(processes), chunksize=1)
            samples_s, bytes_s = (sum(each) for each in zip(*found, strict=True))
            yield {
                "kind": "reading", "stage": stage, "processes": processes, "threads": threads, "cores": cores,
                "samples_s": samples_s, "bytes_s": bytes_s,
            }  # fmt: skip


def _read(
    place: Path, stage: str, preset: str, device: torch.device, threads: int, barrier: Any, seed: int
) -> tuple[float, float]:
    """Samples, and bytes that a device would get, per second of one process; `seed` orders what it reads."""
    torch.set_num_threads(1)
    _, batch = _short(stage, preset, USUAL, None)
    changes = {"train.steps": 10**6, "train.batch_size": batch, "train.accumulate": 1}
    sources = stages.Sources(
        shards=[place / USUAL / "index.json"], split=place / "split.json", rois=place / "rois.npz"
    )
    opened = stages.open_stage(load_preset(stage, preset).override(changes), sources, seed)
    samples = size = 0
    began = 0.0
    alone = Processes(0, 1, device)
    for step, (parts, _) in enumerate(feed.steps(opened, range(10**6), alone, threads)):
        batches = list(parts)
        if step == 3:  # those before bring all to the page cache, and need memory
            barrier.wait()
            began = time.perf_counter()
        elif step > 3:
            samples += sum(len(one.keys) for one in batches)
            size += sum(t.nbytes for one in batches for t in one.tensors.values())
            if time.perf_counter() - began > READING_S:
                break
    if device.type == "cuda":
        torch.cuda.synchronize()
    taken = time.perf_counter() - began
    return samples / taken, size / taken


def _compilations() -> dict[str, int]:
    from torch._dynamo.utils import counters

    return {"graphs": counters["stats"]["unique_graphs"], "frames_ok": counters["frames"]["ok"]}


def write_tokens(place: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    """Embed all pairs of a cohort by its command: read, encoded, written. To load the encoders is not counted."""
    index = place / PAIRS / "index.json"
    spent: list[float] = []
    write_files = tokens.write_files

    def timed(*arguments: Any) -> None:
        start = time.perf_counter()
        write_files(*arguments)
        spent.append(time.perf_counter() - start)

    with mock.patch.object(tokens, "write_files", timed):
        path = tokens.write_cache(
            place / "structure", place / "function", index, place / "rois.npz", place / "tokens",
            processes=Processes(0, 1, device), workers=threads_per_process(),
        )  # fmt: skip
    (taken,) = spent
    entries = json.loads(path.read_text())["shards"]
    written = sum(entry["bytes"] for listed in entries.values() for entry in listed)
    rows = [
        json.loads((path.parent / entry["list"]).read_text())
        for listed in entries.values()
        for entry in listed
    ]
    n_tokens = sum(n for row in rows for n in row["n_tokens"])
    n_pairs = sum(entry["n"] for entry in entries["function"])
    yield {
        "kind": "tokens", "what": "both encoders, read, encoded and written by the command", "patches": 11,
        "batch": n_pairs, "samples_s": n_pairs / taken, "tokens_s": n_tokens / taken, "bytes_s": written / taken,
    }  # fmt: skip
