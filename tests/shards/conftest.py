"""Shards made of small series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from feature_files import volume, write_features

from bhx_prep.shards import pack


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """Pack and index batches of series; returns the path of index.json."""

    def make(cohort: str, batches: list[dict[str, np.ndarray]], *, n_rois: int = 6, t1w: bool = True) -> Path:
        folder = tmp_path / cohort / "shards"
        for number, series in enumerate(batches):
            people = {stem.split("_")[0] for stem in series}
            volumes = {person: volume(number) for person in people} if t1w else {}
            features = write_features(tmp_path / cohort / str(number), cohort, series, volumes, n_rois=n_rois)
            pack.pack(cohort, number, features, folder)
        pack.write_json(folder / "index.json", pack.index(cohort, folder, range(len(batches))))
        return folder / "index.json"

    return make
