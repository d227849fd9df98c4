"""Small feature files as the features step writes them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model import contract
from bhx_model.volumes import decode, encode

ATLAS = "Schaefer17n100p"
GRID = (4, 5, 3)


def roi_names(n: int) -> list[str]:
    return [f"17Networks_{'LH' if i < n / 2 else 'RH'}_ROI_{i + 1}" for i in range(n)]


def write_features(
    folder: Path,
    cohort: str,
    series: dict[str, np.ndarray],
    volumes: dict[str, np.ndarray],
    *,
    n_rois: int = 6,
    synthetic: bool = True,
) -> Path:
    """`series`: stem ("sub-1_task-rest") to (R, T) float32; `volumes`: stem to volume."""
    folder.mkdir(parents=True, exist_ok=True)
    names = roi_names(n_rois)
    anats = {stem.split("_")[0]: f"{cohort}_{stem}" for stem in volumes}
    rows = [
        {
            "key": f"{cohort}_{stem}",
            "subject": stem.split("_")[0].removeprefix("sub-"),
            "session": None,
            "task": "rest",
            "run": None,
            "anat": anats.get(stem.split("_")[0]),
            "tr_s": 2.0,
            "n_frames": array.shape[1],
            "synthetic": synthetic,
            "series": np.ascontiguousarray(array, np.float32).ravel(),
            "coverage": np.ones(n_rois, np.float32),
        }
        for stem, array in series.items()
    ]
    text, floats = pa.string(), pa.list_(pa.float32())
    schema = pa.schema(
        {"key": text, "subject": text, "session": text, "task": text, "run": text, "anat": text}
        | {
            "tr_s": pa.float64(),
            "n_frames": pa.int64(),
            "synthetic": pa.bool_(),
            "series": floats,
            "coverage": floats,
        }
    )
    facts = {
        "atlas": ATLAS,
        "names": names,
        "hemisphere": [int(i >= n_rois / 2) for i in range(n_rois)],
        "roi_sha256": contract.roi_sha256(ATLAS, names),
        "strategy": "none",
        "shape_order": "roi,frame",
    }
    schema = schema.with_metadata({"bhx": contract.canonical_json(facts)})
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "timeseries.parquet")
    meta = {
        f"{cohort}_{stem}": {
            "subject": stem.split("_")[0].removeprefix("sub-"),
            "session": None,
            "zooms_mm": [2.0, 2.0, 2.0],
            "affine": np.eye(4).tolist(),
            "synthetic": synthetic,
        }
        for stem in volumes
    }
    arrays = {f"{cohort}_{stem}": np.frombuffer(encode(volume), np.uint8) for stem, volume in volumes.items()}
    member = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(folder / "t1w.npz", __meta__=member, **arrays)
    return folder


def volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(GRID).astype(np.float32)


def read(modality: str, content: bytes) -> np.ndarray:
    """Array of a member of a tar."""
    return decode(content) if modality == "t1w" else np.load(io.BytesIO(content), allow_pickle=False)
