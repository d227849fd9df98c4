"""Shards are read as they were written, whole or not at all, in an order that only (seed, epoch) decide."""

from __future__ import annotations

import io
import json
import shutil
import struct

import numcodecs
import numpy as np
import pytest
import webdataset as wds

from bhx_model import contract
from bhx_model.data import shard_hashes, shards
from bhx_model.file_hash import file_sha256


def plain_series(content):
    """Series as somebody without BHX reads them."""
    records = np.load(io.BytesIO(numcodecs.blosc.decompress(content)), allow_pickle=False)
    codes = np.cumsum(records["steps"], axis=1, dtype=np.uint16)
    return records["offset"][:, None] + records["step"][:, None] * codes


def plain_volume(content):
    """A volume as somebody without BHX reads it."""
    *shape, x, y, n_x, n_y, _ = struct.unpack("<8H", content[:16])
    slabs, content = [], content[16:]
    while content:
        length = struct.unpack("<I", content[12:16])[0]
        slabs.append(np.frombuffer(numcodecs.blosc.decompress(content[:length]), np.uint16))
        content = content[length:]
    volume = np.zeros(shape, np.int16)
    steps = np.concatenate(slabs).reshape(n_x, n_y, -1).astype(int)
    volume[x : x + n_x, y : y + n_y] = np.cumsum(steps - 128, axis=0)
    return volume


def test_arrays_equal_what_webdataset_reads(house):
    index = shards.open_index(house["town"])
    read = {
        "bold": lambda sample: shards.read_bold(sample, len(index.metadata["roi_names"])),
        "t1w": lambda sample: shards.read_t1w([sample], index.metadata["t1w_shape"])[0],
    }
    for modality, plain in (("bold", plain_series), ("t1w", plain_volume)):
        samples = {s.key: s for s in index.samples[modality]}
        assert len(samples) == {"bold": 13, "t1w": 11}[modality]
        seen = set()
        for shard in index.shards[modality]:
            for item in wds.WebDataset(str(shard.path), shardshuffle=False):
                ours = read[modality](samples[item["__key__"]])
                theirs = plain(item[contract.ARRAYS[modality][0]])
                assert ours.dtype == theirs.dtype == contract.ARRAYS[modality][1]
                np.testing.assert_array_equal(ours, theirs)
                assert samples[item["__key__"]].subject == "town/" + json.loads(item["meta.json"])["subject"]
                seen.add(item["__key__"])
        assert seen == set(samples)


def test_pairs_join_by_key(house):
    index = shards.open_index(house["town"])
    pairs, alone = shards.pair(index.samples["bold"], index.samples["t1w"])
    assert len(pairs) == 12
    assert [run.subject for run in alone] == ["town/011"]
    assert all(run.subject == volume.subject for run, volume in pairs)
    # two runs of a subject share their one T1
    assert [volume.key for run, volume in pairs if run.subject == "town/000"] == ["town_sub-000"] * 2


@pytest.fixture
def town(house, tmp_path):
    return shutil.copytree(house["town"].parent, tmp_path / "shards") / "index.json"


def test_a_shard_that_is_gone_is_named(town):
    (town.parent / "t1w-00001.tar").unlink()
    with pytest.raises(ValueError, match=r"t1w-00001\.tar is gone"):
        shards.open_index(town)


def test_a_truncated_shard_is_named(town):
    path = town.parent / "bold-00000.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"bold-00000\.tar has .* bytes"):
        shards.open_index(town)


def test_an_altered_shard_is_named(town):
    index = shards.open_index(town)
    packed = [s for listed in index.shards.values() for s in listed]
    assert shard_hashes.verify(packed) == 4
    path = town.parent / "bold-00001.tar"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bold-00001\.tar is not the one"):
        shard_hashes.verify(shards.open_index(town).shards["bold"])


def test_an_altered_list_is_named(town):
    path = town.parent / "bold-00001.json"
    path.write_bytes(path.read_bytes().replace(b'"000"', b'"001"') + b" ")
    with pytest.raises(ValueError, match=r"bold-00001\.json.*altered"):
        shards.open_index(town)


def test_whole_shards_are_remembered_until_they_change(town, tmp_path):
    record = tmp_path / "verified.json"
    packed = shards.open_index(town).shards["bold"]
    assert shard_hashes.verify(packed, record=record) == 2
    assert shard_hashes.verify(packed, record=record) == 0
    record.write_bytes(b"\0" * 20)  # a damaged one only costs time
    assert shard_hashes.verify(packed, record=record) == 2
    packed[0].path.write_bytes(b"x" * packed[0].n_bytes)
    with pytest.raises(ValueError, match="sha256 differs"):
        shard_hashes.verify(packed, record=record)


def test_what_was_checked_before_a_kill_is_not_checked_again(town, tmp_path, monkeypatch):
    record = tmp_path / "verified.json"
    packed = shards.open_index(town).shards["bold"]
    monkeypatch.setattr(shard_hashes, "RECORD_S", 0.0)

    def killed_at_the_second(path):
        if path != packed[0].path:
            raise KeyboardInterrupt
        return packed[0].sha256

    with monkeypatch.context() as patch:
        patch.setattr(shard_hashes, "file_sha256", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            shard_hashes.verify(packed, record=record)
    assert shard_hashes.verify(packed, record=record) == 1


def test_processes_divide_the_checking(town):
    packed = shards.open_index(town).shards["bold"]
    assert [shard_hashes.verify(packed, rank_share=(rank, 2)) for rank in range(2)] == [1, 1]


def test_an_index_of_another_version_is_refused(town):
    index = json.loads(town.read_bytes())
    town.write_text(json.dumps({**index, "contract": 99}))
    with pytest.raises(ValueError, match="contract version 99"):
        shards.open_index(town)


def test_no_index_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read the index .*: make it with the rule index_shards"):
        shards.open_index(tmp_path / "index.json")
    with pytest.raises(ValueError, match=r"cannot read the index .*: make it with the rule embed_tokens"):
        shards.open_token_index(tmp_path / "index.json", lambda metadata: None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda metadata: b"{", "is not JSON"),
        (lambda metadata: [], "is no index"),
        (
            lambda metadata: {k: v for k, v in metadata.items() if k != "shards"},
            r"not a whole one \(KeyError\('shards'",
        ),
        (lambda metadata: metadata["shards"]["bold"][0].pop("sha256") and metadata, "'sha256'"),
        (
            lambda metadata: metadata["shards"]["bold"][0].update(file="../bold-00000.tar") or metadata,
            "not beside it",
        ),
        (lambda metadata: metadata["shards"].pop("t1w") and metadata, r"not a whole one \(KeyError\('t1w'"),
        (
            lambda metadata: metadata["shards"]["bold"].append(metadata["shards"]["bold"][0]) or metadata,
            "names .* twice",
        ),
        (lambda metadata: b"\xff\xfe", "is not JSON"),
        (lambda metadata: {**metadata, "cohort": None}, "cohort of an index of shards is None"),
        (lambda metadata: {**metadata, "synthetic": "no"}, "synthetic of an index of shards is 'no'"),
        (
            lambda metadata: {k: v for k, v in metadata.items() if k != "synthetic"},
            "synthetic of an index of shards is missing",
        ),
    ],
)
def test_an_invalid_index_is_an_error_message(town, change, sentence):
    found = change(json.loads(town.read_bytes()))
    town.write_bytes(found if isinstance(found, bytes) else json.dumps(found).encode())
    with pytest.raises(ValueError, match=sentence):
        shards.open_index(town)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows["tr_s"].pop(), "is no list of samples"),
        (lambda rows: rows.pop("offset"), "is no list of samples"),
        (lambda rows: rows["offset"].__setitem__(0, -512), "town_sub-000_task-rest_run-1 would lie outside"),
        (lambda rows: rows["size"].__setitem__(0, 1 << 40), "town_sub-000_task-rest_run-1 would lie outside"),
        (lambda rows: rows["key"].__setitem__(1, rows["key"][0]), "names town_sub-000_task-rest_run-1 twice"),
        *(
            (
                lambda rows, tr_s=tr_s: rows["tr_s"].__setitem__(0, tr_s),
                "town_sub-000_task-rest_run-1: TR is .* s: give a number of seconds between 0.1 and 20",
            )
            for tr_s in ("2.0", None, True, 0, -2.0, 50.0, 2000, float("nan"))
        ),
        *(
            (
                lambda rows, n=n: rows["n_frames"].__setitem__(0, n),
                "town_sub-000_task-rest_run-1: it has .* frames: give a whole number, 1 or more",
            )
            for n in ("90", None, 0, -3, 90.5)
        ),
    ],
)
def test_an_invalid_list_is_an_error_message(town, change, sentence):
    """Though its hash is the one in the index."""
    listed = town.parent / "bold-00000.json"
    rows = json.loads(listed.read_bytes())
    change(rows)
    listed.write_text(json.dumps(rows))
    metadata = json.loads(town.read_bytes())
    metadata["shards"]["bold"][0]["list_sha256"] = file_sha256(listed)
    town.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=sentence):
        shards.open_index(town)


def test_a_pickled_array_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    path = tmp_path / "x.tar"
    path.write_bytes(buffer.getvalue())
    sample = shards.Sample("town_sub-1", "town/1", path, 0, len(buffer.getvalue()))
    with pytest.raises(ValueError, match=r"is no \.npy array"):
        shards.read_array(sample)
