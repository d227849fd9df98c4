"""Tiny shards that all tests of the training read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_shards import write_cohort, write_rois, write_split


torch.set_num_threads(1)  # these matrices are too small to share out


@pytest.fixture(scope="session")
def house(tmp_path_factory) -> dict[str, Path]:
    """Shards of two cohorts, rois.npz and the split; only to be read."""
    folder = tmp_path_factory.mktemp("house")
    return {
        "town": write_cohort(folder / "town" / "shards", "town", people=12),
        "ward": write_cohort(folder / "ward" / "shards", "ward", people=5, batches=1, trs=(0.8,), seed=1),
        "rois": write_rois(folder / "rois.npz"),
        "split": write_split(folder / "pretrain.json", {"town": 12, "ward": 5}),
    }
