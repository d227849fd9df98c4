from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from feature_files import as_stored, write_features

from bhx_model.atomic_write import write_json
from bhx_prep.shards import index_json, pack, read


def runs(n: int, seed: int = 0, rois: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        f"sub-{i}_task-rest": rng.standard_normal((rois, 10 + i)).astype(np.float32) for i in range(1, n + 1)
    }


def test_all_runs_come_in_the_order_of_the_shards(make_shards) -> None:
    first, second = runs(3), {"sub-9_task-rest": runs(1, seed=5)["sub-1_task-rest"]}
    cohorts = read.read_cohorts([make_shards("town", [first, second])])
    found = list(read.iter_series(cohorts))
    assert [run.key for run in found] == [f"town_sub-{s}_task-rest" for s in (1, 2, 3, 9)]
    assert [run.tr_s for run in found] == [2.0] * 4
    np.testing.assert_array_equal(found[1].series, as_stored(first["sub-2_task-rest"]))


def test_only_wanted_subjects_come_and_other_shards_stay_closed(make_shards) -> None:
    path = make_shards("town", [runs(3), {"sub-9_task-rest": runs(1)["sub-1_task-rest"]}])
    (path.parent / "bold-00000.tar").unlink()
    cohorts = read.read_cohorts([path])
    found = list(read.iter_series(cohorts, {"town/9", "other/1"}))
    assert [(run.cohort, run.subject) for run in found] == [("town", "9")]
    with pytest.raises(ValueError, match=r"bold-00000.tar is missing .*: pack this batch again"):
        list(read.iter_series(cohorts, {"town/1"}))


def test_altered_bytes_are_refused(make_shards) -> None:
    path = make_shards("town", [runs(2)])
    tar = path.parent / "bold-00000.tar"
    cohorts = read.read_cohorts([path])
    assert len(list(read.iter_series(cohorts))) == 2
    raw = bytearray(tar.read_bytes())
    raw[-2000] ^= 1
    tar.write_bytes(raw)
    with pytest.raises(ValueError, match="is not the file that its index"):
        list(read.iter_series(cohorts))


def test_cohorts_come_sorted_whatever_the_arguments(make_shards) -> None:
    paths = [make_shards(name, [runs(1)]) for name in ("town", "clinic")]
    assert [c.name for c in read.read_cohorts(paths)] == ["clinic", "town"]
    with pytest.raises(ValueError, match="town is given twice"):
        read.read_cohorts([paths[0], paths[0]])


def test_cohorts_of_two_atlases_are_refused(make_shards) -> None:
    paths = [make_shards("town", [runs(1)]), make_shards("clinic", [runs(1, rois=8)], n_rois=8)]
    with pytest.raises(ValueError, match="differ in their ROIs or the order"):
        read.read_cohorts(paths)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"contract": 99}, "rebuild the shards"),
        ({"contract": 3}, "contract version 3, this code reads 4: rebuild the shards"),
        ({"roi_names": ["a"]}, "ROI names and their hash disagree"),
    ],
)
def test_foreign_index_is_refused(make_shards, change: dict, says: str) -> None:
    path = make_shards("town", [runs(1)])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=says):
        read.read_index(path)


def test_subjects_by_modality(tmp_path: Path) -> None:
    features = write_features(tmp_path / "f", "town", runs(2), {"sub-7": np.zeros((2, 2, 2), np.float32)})
    pack.pack("town", 0, features, tmp_path)
    write_json(tmp_path / "index.json", index_json.collect("town", tmp_path, range(1)), canonical=True)
    cohort = read.read_index(tmp_path / "index.json")
    assert read.subjects(cohort, "bold") == {"1", "2"}
    assert read.subjects(cohort, "t1w") == {"7"}


def test_one_series_under_two_ids_and_in_two_cohorts_has_one_hash(make_shards) -> None:
    same = runs(2)
    same["sub-3_task-rest"] = same["sub-1_task-rest"]
    here = read.contents(read.read_index(make_shards("town", [same])), "bold")
    there = read.contents(
        read.read_index(make_shards("clinic", [{"sub-7_task-rest": same["sub-1_task-rest"]}])), "bold"
    )
    assert here["1"] == here["3"] == there["7"]
    assert here["1"] != here["2"]


def test_shards_without_hashes_are_of_an_earlier_version(make_shards) -> None:
    path = make_shards("town", [runs(1)])
    listed = json.loads((path.parent / "bold-00000.json").read_text())
    del listed["content_sha256"]
    write_json(path.parent / "bold-00000.json", listed, canonical=True)
    write_json(path, index_json.collect("town", path.parent, range(1)), canonical=True)
    with pytest.raises(ValueError, match="has no hashes of its scans"):
        read.contents(read.read_index(path), "bold")
