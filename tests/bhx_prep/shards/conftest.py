from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clinic_shards import series
from feature_files import volume, write_features

from bhx_model.atomic_write import write_json
from bhx_prep.shards import index_json, pack


@pytest.fixture
def features(tmp_path: Path) -> Path:
    uncovered = series(3)
    uncovered[4] = np.nan
    return write_features(
        tmp_path / "features",
        "clinic",
        # not in order; subject 3 has no T1, subject 4 no BOLD, subject 1 two runs
        {"sub-3_task-rest": series(2), "sub-10_task-rest": uncovered, "sub-1_task-rest_run-2": series(1, 33)}
        | {"sub-1_task-rest_run-1": series(0)},
        {"sub-10": volume(1), "sub-4": volume(2), "sub-1": volume(0)},
    )


@pytest.fixture
def folder(features: Path, tmp_path: Path) -> Path:
    out = tmp_path / "shards"
    pack.pack("clinic", 0, features, out)
    write_json(out / "index.json", index_json.collect("clinic", out, range(1)), canonical=True)
    return out
