from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from clinic_shards import series, truncate
from feature_files import GRID, write_features

from bhx_model import contract
from bhx_model.atomic_write import write_json
from bhx_prep.shards import index_json, pack


def test_index_satisfies_the_contract(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    contract.check_index(index)
    assert index["t1w_shape"] == list(GRID)
    assert index["t1w_zooms_mm"] == [2.0, 2.0, 2.0]
    assert index["synthetic"] is True
    for modality in contract.MODALITIES:
        (shard,) = index["shards"][modality]
        assert set(shard) == {"file", "sha256", "bytes", "n", "list", "list_sha256"}
        for name, sha in (("file", "sha256"), ("list", "list_sha256")):
            assert hashlib.sha256((folder / shard[name]).read_bytes()).hexdigest() == shard[sha]


def test_index_of_two_thousand_batches_stays_below_a_megabyte(folder: Path, tmp_path: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    index["roi_names"] = [f"17Networks_LH_SalVentAttnA_FrOperIns_{i}" for i in range(1000)]
    for modality in contract.MODALITIES:
        (shard,) = index["shards"][modality]
        index["shards"][modality] = [
            shard
            | {"file": f"{modality}-{i:05d}.tar", "list": f"{modality}-{i:05d}.json", "bytes": 10**9, "n": 20}
            for i in range(2000)
        ]
    write_json(tmp_path / "large.json", index, canonical=True)
    assert (tmp_path / "large.json").stat().st_size < 1_000_000


def test_index_names_a_missing_batch(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"bold-00001.json is missing .*: pack this batch first"):
        index_json.collect("clinic", folder, range(2))


def test_index_refuses_batches_of_two_atlases(folder: Path, tmp_path: Path) -> None:
    features = write_features(tmp_path / "g", "clinic", {"sub-9_task-rest": series(0, rois=8)}, {}, n_rois=8)
    pack.pack("clinic", 1, features, folder)
    with pytest.raises(ValueError, match=r"bold-00000.json and bold-00001.json differ in roi_names"):
        index_json.collect("clinic", folder, range(2))


def test_index_refuses_a_tar_that_is_not_its_lists(folder: Path) -> None:
    truncate(folder / "t1w-00000.tar")
    with pytest.raises(ValueError, match=r"bytes, its list says .*: pack this batch again"):
        index_json.collect("clinic", folder, range(1))
