"""Shards of one batch of the cohort `clinic`, and damage to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from settings_files import settings_file


def series(seed: int, frames: int = 20, rois: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rois, frames)).astype(np.float32)


def index_words(out: Path) -> list[str]:
    return [
        "index",
        "--cohort",
        "clinic",
        "--shards",
        str(out),
        "--batches",
        settings_file(["00000"]),
        "--out",
        str(out / "index.json"),
    ]


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2048])
