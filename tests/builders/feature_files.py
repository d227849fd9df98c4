"""Small feature files as the features step writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bhx_model import contract
from bhx_model.data import timeseries
from bhx_model.data.volumes import decode, encode
from bhx_prep.features import store

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
    segments: dict[str, list[list[int]]] | None = None,
) -> Path:
    """`series`: stem ("sub-1_task-rest") to (R, T) float32; `volumes`: stem to volume; `segments`: of runs with cuts."""
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
            "segments": (segments or {}).get(stem),
            "synthetic": synthetic,
        }
        for stem, array in series.items()
    ]
    metadata = {
        "atlas": ATLAS,
        "names": names,
        "hemisphere": [int(i >= n_rois / 2) for i in range(n_rois)],
        "roi_sha256": contract.roi_sha256(ATLAS, names),
        "strategy": "none",
        "shape_order": "roi,frame",
    }
    with store.Writer(folder / "bold.arrow", "bold", metadata) as file:
        for row, array in zip(rows, series.values(), strict=True):
            file.add(row, timeseries.encode(np.ascontiguousarray(array, np.float32)))
    with store.Writer(folder / "t1w.arrow", "t1w", {}) as file:
        for stem, array in volumes.items():
            row = {
                "key": f"{cohort}_{stem}",
                "subject": stem.split("_")[0].removeprefix("sub-"),
                "session": None,
                "shape": list(array.shape),
                "zooms_mm": [2.0, 2.0, 2.0],
                "affine": np.eye(4).tolist(),
                "synthetic": synthetic,
            }
            file.add(row, encode(array))
    return folder


def volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(GRID).astype(np.float32)


def as_stored(series: np.ndarray) -> np.ndarray:
    """What a shard gives back of series."""
    return timeseries.decode(timeseries.encode(series))


def read(modality: str, content: bytes) -> np.ndarray:
    """Array of a member of a tar."""
    return decode(content) if modality == "t1w" else timeseries.decode(content)
