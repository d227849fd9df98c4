"""Tiny shards written by hand in the form that contract.py describes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np

from bhx_model import contract
from bhx_model.data import timeseries, volumes

R, MODES, GRADIENTS = 20, 12, 5
T1W_SHAPE = (32, 48, 32)
NAMES = [f"17Networks_{'L' if i < R // 2 else 'R'}H_{i:02d}" for i in range(R)]
ATLAS = "Tiny17n20p"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_shard(folder: Path, modality: str, batch: int, samples: list[tuple[str, dict, np.ndarray]]) -> dict:
    """Write one tar and its list; the index entry of the two."""
    member = contract.ARRAYS[modality][0]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, meta, array in samples:
            for name, content in (
                (member, (volumes if modality == "t1w" else timeseries).encode(array)),
                (contract.META_MEMBER, contract.canonical_json(meta)),
            ):
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar:
        places = {info.name: (info.offset_data, info.size) for info in tar}
    listed: dict[str, list] = {name: [] for name in contract.LIST_COLUMNS[modality]}
    for key, meta, array in samples:
        row = {"key": key, "content_sha256": sha256(array.tobytes()), **meta}
        row["offset"], row["size"] = places[f"{key}.{member}"]
        row["meta_offset"], row["meta_size"] = places[f"{key}.{contract.META_MEMBER}"]
        for name, column in listed.items():
            column.append(row.get(name))
    tar_path, list_path = folder / f"{modality}-{batch:05d}.tar", folder / f"{modality}-{batch:05d}.json"
    tar_path.write_bytes(buffer.getvalue())
    list_path.write_bytes(contract.canonical_json(listed))
    return {
        "file": tar_path.name,
        "sha256": sha256(buffer.getvalue()),
        "bytes": len(buffer.getvalue()),
        "n": len(samples),
        "list": list_path.name,
        "list_sha256": sha256(list_path.read_bytes()),
    }


def write_cohort(
    folder: Path,
    cohort: str,
    *,
    subjects: int = 12,
    batches: int = 2,
    trs=(2.0, 3.0),
    seed: int = 0,
    t1w_shape=T1W_SHAPE,
) -> Path:
    """Write a cohort: subject 0 has two runs, the last no T1; a trait moves both modalities."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, len(cohort)])
    mixing = random.normal(size=(R, 4))
    bump = np.exp(
        -((np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in t1w_shape], indexing="ij")) ** 2).sum(0))
    )
    digest = contract.roi_sha256(ATLAS, NAMES)
    shards: dict[str, list[dict]] = {"bold": [], "t1w": []}
    for batch in range(batches):
        bold, t1w = [], []
        for number in range(batch, subjects, batches):
            subject, trait = f"{number:03d}", (-1.0) ** number
            about = {"cohort": cohort, "subject": subject, "session": None, "synthetic": True}
            anat = f"{cohort}_sub-{subject}" if number < subjects - 1 else None
            if anat:
                volume = bump * (1 + 0.3 * trait) + 0.1 * random.normal(size=t1w_shape)
                meta = {**about, "zooms_mm": [2.0, 2.0, 2.0], "affine": np.eye(4).tolist()}
                t1w.append((anat, meta, volume.astype(np.float32)))
            for run in range(2 if number == 0 else 1):
                tr_s = trs[number % len(trs)]
                n = int((200 + 3 * (number % 5)) / tr_s)
                latent = np.cumsum(random.normal(size=(4, n)), axis=1)
                latent = (latent - latent.mean(1, keepdims=True)) / latent.std(1, keepdims=True)
                latent[0] *= 1 + 0.5 * trait
                series = 1000 + 10 * (mixing @ latent + 0.3 * random.normal(size=(R, n)))
                series = series.astype(np.float32)
                if number == 1:
                    series[3] = np.nan
                key = f"{cohort}_sub-{subject}_task-rest_run-{run + 1}"
                meta = {
                    **about, "task": "rest", "run": str(run + 1), "tr_s": tr_s, "n_frames": n, "segments": None,
                    "atlas": ATLAS, "roi_sha256": digest, "anat": anat,
                }  # fmt: skip
                bold.append((key, meta, series))
        shards["bold"].append(write_shard(folder, "bold", batch, bold))
        shards["t1w"].append(write_shard(folder, "t1w", batch, t1w))
    index = {
        "contract": contract.CONTRACT_VERSION, "cohort": cohort, "atlas": ATLAS, "roi_names": NAMES,
        "roi_sha256": digest, "t1w_shape": list(t1w_shape), "t1w_zooms_mm": [2.0, 2.0, 2.0], "synthetic": True,
        "shards": shards,
    }  # fmt: skip
    path = folder / "index.json"
    path.write_bytes(contract.canonical_json(index))
    return path


def write_rois(path: Path, names=NAMES) -> Path:
    random = np.random.default_rng(5)
    hemisphere = (np.arange(len(names)) >= len(names) // 2).astype(np.int8)
    harmonics = 0.004 * random.normal(size=(len(names), MODES)).astype(np.float32)
    harmonics[:, 0] = 0.0044
    np.savez(
        path, atlas=np.array(ATLAS), names=np.array(names), hemisphere=hemisphere, harmonics=harmonics,
        eigenvalues=np.tile(np.arange(MODES, dtype=np.float64) * 1e-4, (2, 1)),
        gradients=0.03 * random.normal(size=(len(names), GRADIENTS)).astype(np.float32),
        median=np.full(len(names), 1000, np.float32), iqr=np.linspace(12, 18, len(names), dtype=np.float32),
    )  # fmt: skip
    return path


def write_split(path: Path, cohorts: dict[str, int], holdout: int = 2) -> Path:
    subjects = {name: [f"{name}/{number:03d}" for number in range(n)] for name, n in cohorts.items()}
    path.write_text(
        json.dumps({
            "train": [p for listed in subjects.values() for p in listed[holdout:]],
            "holdout": [p for listed in subjects.values() for p in listed[:holdout]],
        })
    )  # fmt: skip
    return path


def spoil_series(index_path: Path, folder: Path, fault: str) -> Path:
    """Copy a cohort's shards with a fault in one run of subject 2, hashes and lists in order."""
    index = json.loads(index_path.read_bytes())
    folder.mkdir(parents=True)
    entries = []
    for batch, entry in enumerate(index["shards"]["bold"]):
        samples = []
        with tarfile.open(index_path.parent / entry["file"]) as tar:
            members = {info.name: tar.extractfile(info).read() for info in tar}
        for name, content in members.items():
            key, suffix = name.split(".", 1)
            if suffix != contract.ARRAYS["bold"][0]:
                continue
            meta = json.loads(members[f"{key}.{contract.META_MEMBER}"])
            series = timeseries.decode(content)
            if key.startswith("town_sub-002"):
                if fault == "constant":
                    series[4] = 3.0
                elif fault == "short":
                    series = series[:, :10]
                    meta["n_frames"] = 10
                elif fault == "tr":
                    meta["tr_s"] = -2.0
            samples.append((key, meta, series))
        entries.append(write_shard(folder, "bold", batch, samples))
    index["shards"] = {"bold": entries, "t1w": []}
    path = folder / "index.json"
    path.write_bytes(contract.canonical_json(index))
    return path


def write_labels(path: Path, cohort: str, numbers, kind: str = "binary", seed: int = 0) -> Path:
    """Write an endpoint's split: the trait that moves both modalities."""
    rows = []
    classes = {"binary": ["control", "patient"], "multiclass": ["none", "mild", "severe"], "regression": []}[
        kind
    ]
    for place, number in enumerate(numbers):
        label = number % len(classes) if classes else (-1.0) ** number + 0.1 * number
        rows.append({"subject": f"{number:03d}", "label": label, "split": SPLIT[place % len(SPLIT)]})
    value = {
        "endpoint": "trait",
        "cohort": cohort,
        "kind": kind,
        "classes": classes,
        "seed": seed,
        "rows": rows,
    }
    path.write_text(json.dumps({**value, "excluded": []}))
    return path


SPLIT = ("train", "train", "val", "val", "test", "test", "train", "train")
SHORT = {
    "train.steps": 8,
    "train.warmup_steps": 2,
    "train.batch_size": 4,
    "train.save_every": 4,
    "train.log_every": 4,
}


def words(places: dict[str, Path], stage: str, out: Path, changes=None) -> list[str]:
    """Arguments of a short training."""
    changes = {**SHORT, **(changes or {})}
    return [
        "--stage", stage, "--preset", "tiny", "--set", json.dumps(changes),
        "--shards", str(places["town"]), str(places["ward"]), "--split", str(places["split"]),
        "--rois", str(places["rois"]), "--run-root", str(places["runs"]), "--out", str(out),
    ]  # fmt: skip


def evaluation_words(trained, out, method="probe", labels=None, more=()):
    """Arguments of an evaluation of the tiny experiment."""
    return [
        "--method", method, "--fusion", str(trained["fusion"]), "--tokens", str(trained["tokens_town"]),
        "--labels", str(labels or trained["labels"]), "--seed", "0", "--experiment", "demo", "--out", str(out), *more,
    ]  # fmt: skip


def export_words(trained, out, **changes):
    """Arguments of an export of the tiny experiment."""
    names = ("structure", "function", "fusion", "rois")
    places = {name: trained[name] for name in names} | changes
    return [word for name in names for word in (f"--{name}", str(places[name]))] + ["--out", str(out)]
