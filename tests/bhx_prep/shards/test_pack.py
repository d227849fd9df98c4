from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from clinic_shards import flip, series
from feature_files import GRID, read, volume, write_features

from bhx_model import contract
from bhx_model.atomic_write import write_json
from bhx_model.data import shards, timeseries
from bhx_model.data.volumes import encode
from bhx_prep.shards import command, index_json, pack, verify


def test_order_is_by_subject_then_key(folder: Path) -> None:
    bold, t1w = (json.loads((folder / f"{m}-00000.json").read_text()) for m in contract.MODALITIES)
    assert bold["key"] == [
        "clinic_sub-1_task-rest_run-1",
        "clinic_sub-1_task-rest_run-2",
        "clinic_sub-10_task-rest",
        "clinic_sub-3_task-rest",
    ]
    assert t1w["key"] == ["clinic_sub-1", "clinic_sub-10", "clinic_sub-4"]
    both = [s for s in dict.fromkeys(bold["subject"]) if s in t1w["subject"]]
    assert both == [s for s in t1w["subject"] if s in bold["subject"]]
    assert bold["anat"] == ["clinic_sub-1", "clinic_sub-1", "clinic_sub-10", None]


def test_lists_hold_the_contracts_columns_and_true_places(folder: Path) -> None:
    for modality in contract.MODALITIES:
        listed = json.loads((folder / f"{modality}-00000.json").read_text())
        assert set(listed) == {*contract.LIST_COLUMNS[modality], "about"}
        raw = (folder / f"{modality}-00000.tar").read_bytes()
        for i, key in enumerate(listed["key"]):
            array = read(modality, raw[listed["offset"][i] :][: listed["size"][i]])
            meta = json.loads(raw[listed["meta_offset"][i] :][: listed["meta_size"][i]])
            assert array.dtype == contract.ARRAYS[modality][1]
            if modality == "bold":
                assert listed["content_sha256"][i] == timeseries.content_sha256(array)
            assert meta["subject"] == listed["subject"][i]
            assert key.startswith(f"clinic_sub-{meta['subject']}")


def test_values_survive(folder: Path) -> None:
    listed = json.loads((folder / "bold-00000.json").read_text())
    i = listed["key"].index("clinic_sub-1_task-rest_run-2")
    raw = (folder / "bold-00000.tar").read_bytes()
    array = read("bold", raw[listed["offset"][i] :][: listed["size"][i]])
    np.testing.assert_allclose(array, series(1, 33), atol=series(1, 33).std(1).max() / 4096)


def test_equal_inputs_give_equal_bytes(features: Path, folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    pack.pack("clinic", 0, features, again)
    for name in ("bold-00000.tar", "bold-00000.json", "t1w-00000.tar", "t1w-00000.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    with tarfile.open(folder / "t1w-00000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "bhx")


@pytest.mark.parametrize(
    ("function", "call"),
    [("_Tar.add", 3), ("_Tar.close", 2), ("Path.replace", 1), ("write_json", 1), ("write_json", 2)],
)
def test_a_killed_packing_gives_the_same_bytes_when_run_again(
    features: Path, folder: Path, tmp_path: Path, kill_at, function: str, call: int
) -> None:
    # over the shards of an earlier packing, which had other subjects
    out = tmp_path / "again"
    earlier = write_features(
        tmp_path / "earlier", "clinic", {"sub-7_task-rest": series(9)}, {"sub-7": volume(9)}
    )
    pack.pack("clinic", 0, earlier, out)
    words = ["pack", "--cohort", "clinic", "--batch", "0", "--features", str(features), "--out", str(out)]
    kill_at("bhx_prep.shards.command", f"pack.{function}", call, words)
    assert command.main(words) == 0
    names = {"bold-00000.tar", "bold-00000.json", "t1w-00000.tar", "t1w-00000.json"}
    assert {path.name for path in out.iterdir()} == names
    for name in names:
        assert (out / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("name", ["bold.arrow", "t1w.arrow"])
def test_features_whose_bytes_went_bad_are_refused(features: Path, tmp_path: Path, name: str) -> None:
    raw = (features / name).read_bytes()
    arrays = {"bold.arrow": timeseries.encode(series(2)), "t1w.arrow": encode(volume(2))}
    flip(features / name, raw.index(arrays[name]) + 40)
    with pytest.raises(
        ValueError, match=rf"{name} .*another checksum.*: extract the features of this batch again"
    ):
        pack.pack("clinic", 0, features, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".part*"))


def test_bytes_of_a_tar_are_those_of_this_commit(tmp_path: Path) -> None:
    # a change of these bytes retrains every model: raise the step version and say why
    fixed = {"sub-1_task-rest": np.arange(24, dtype=np.float32).reshape(6, 4)}
    features = write_features(tmp_path / "f", "clinic", fixed, {"sub-1": np.zeros(GRID, np.float32)})
    bold, t1w = pack.pack("clinic", 7, features, tmp_path / "out")
    assert [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (bold, t1w)] == [
        "4309742a107c1db6",
        "adce033c69845af1",
    ]


def test_segments_of_a_run_with_cuts_are_kept(tmp_path: Path) -> None:
    runs = {"sub-1_task-rest": series(1, 30), "sub-2_task-rest": series(2, 30)}
    cuts = [[4, 14], [15, 35]]
    features = write_features(tmp_path / "f", "clinic", runs, {}, segments={"sub-2_task-rest": cuts})
    tar, _ = pack.pack("clinic", 0, features, tmp_path / "out")
    listed = json.loads(tar.with_suffix(".json").read_text())
    assert listed["segments"] == [None, cuts]
    raw = tar.read_bytes()
    meta = [raw[a:][:n] for a, n in zip(listed["meta_offset"], listed["meta_size"], strict=True)]
    assert [json.loads(m)["segments"] for m in meta] == [None, cuts]
    index_file = tmp_path / "out" / "index.json"
    write_json(index_file, index_json.collect("clinic", tmp_path / "out", [0]), canonical=True)
    assert verify.verify(tmp_path / "out") == []
    samples = shards.open_index(index_file).samples["bold"]
    assert [sample.segments for sample in samples] == [None, ((4, 14), (15, 35))]
    # a list that says otherwise, hashed by a fresh index
    listed["segments"][1] = [[4, 15], [16, 35]]
    tar.with_suffix(".json").write_bytes(contract.canonical_json(listed))
    write_json(index_file, index_json.collect("clinic", tmp_path / "out", [0]), canonical=True)
    assert [
        e for e in verify.verify(tmp_path / "out") if "its segments are not those that the list names" in e
    ]
    listed["segments"][1] = [[4, 14], [15, 34]]
    tar.with_suffix(".json").write_bytes(contract.canonical_json(listed))
    write_json(index_file, index_json.collect("clinic", tmp_path / "out", [0]), canonical=True)
    with pytest.raises(ValueError, match="not ascending ranges of 30 frames in all"):
        shards.open_index(index_file)


def test_webdataset_reads_them(folder: Path) -> None:
    import webdataset

    for modality, n in (("bold", 4), ("t1w", 3)):
        found = list(webdataset.WebDataset(str(folder / f"{modality}-00000.tar"), shardshuffle=False))
        listed = json.loads((folder / f"{modality}-00000.json").read_text())
        assert [sample["__key__"] for sample in found] == listed["key"]
        assert len(found) == n
        for sample in found:
            array = read(modality, sample[contract.ARRAYS[modality][0]])
            assert array.ndim == len(contract.ARRAYS[modality][2])
            assert json.loads(sample["meta.json"])["cohort"] == "clinic"


def test_bytes_are_those_of_webdatasets_writer(folder: Path, tmp_path: Path) -> None:
    from webdataset import TarWriter

    for modality in contract.MODALITIES:
        tar = folder / f"{modality}-00000.tar"
        with tarfile.open(tar) as archive:
            members = {info.name: archive.extractfile(info).read() for info in archive}
        with TarWriter(str(tmp_path / tar.name), encoder=False, mtime=0, user="bhx", group="bhx") as writer:
            for key in json.loads(tar.with_suffix(".json").read_text())["key"]:
                parts = {
                    name.split(".", 1)[1]: raw
                    for name, raw in members.items()
                    if name.split(".", 1)[0] == key
                }
                writer.write({"__key__": key} | parts)
        assert (tmp_path / tar.name).read_bytes() == tar.read_bytes()


def test_empty_batch_is_a_batch(tmp_path: Path) -> None:
    features = write_features(tmp_path / "f", "clinic", {}, {})
    pack.pack("clinic", 0, features, tmp_path / "s")
    full = write_features(tmp_path / "g", "clinic", {"sub-1_task-rest": series(0)}, {"sub-1": volume(0)})
    pack.pack("clinic", 1, full, tmp_path / "s")
    index = index_json.collect("clinic", tmp_path / "s", range(2))
    assert [s["n"] for s in index["shards"]["bold"]] == [0, 1]
    assert index["t1w_shape"] == list(GRID)
    write_json(tmp_path / "s" / "index.json", index, canonical=True)
    assert verify.verify(tmp_path / "s") == []


@pytest.mark.parametrize(
    ("bold", "t1w", "says"),
    [
        ({}, {"sub-1": volume(0), "sub-2": np.zeros((4, 4, 4), np.float32)}, "volumes of several grids"),
        ({f"sub-1_task-{'a' * 90}": np.zeros((6, 9), np.float32)}, {}, "a tar takes 85"),
    ],
)
def test_features_that_break_the_contract_are_refused(tmp_path: Path, bold, t1w, says: str) -> None:
    features = write_features(tmp_path / "f", "clinic", bold, t1w)
    with pytest.raises(ValueError, match=says):
        pack.pack("clinic", 0, features, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".part*"))


def test_key_of_another_cohort_is_refused(features: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a key of cohort town"):
        pack.pack("town", 0, features, tmp_path / "out")
