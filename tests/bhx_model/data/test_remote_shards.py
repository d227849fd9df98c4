"""Shards that are elsewhere are read as those on the disk, by every command that reads any."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
from public_bucket import serve
from tiny_shards import words

from bhx_model.data import shard_hashes, shards
from bhx_model.errors import DataError, SiteError
from bhx_model.evaluation import function_tokens, structure_tokens
from bhx_model.remote import cache, patience
from bhx_model.training import train


@pytest.fixture
def bucket(house, tmp_path, monkeypatch):
    """The shards of `town` on a server, ready to be altered."""
    pytest.importorskip("aiohttp", reason="aiohttp (extra `remote`) is not installed")
    monkeypatch.setenv("BHX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(patience, "PAUSE_S", 0.0)
    shutil.copytree(house["town"].parent, tmp_path / "served")
    with serve(tmp_path / "served") as server:
        yield server


def test_lists_come_at_once_and_tars_when_they_are_verified(bucket, house):
    index = shards.open_index(f"{bucket.address}/index.json")
    assert index.sha256 == shards.open_index(house["town"]).sha256
    assert not [key for key in bucket.sent() if key.endswith(".tar")]
    assert shard_hashes.verify(index.shards["bold"]) == 2
    assert sorted(key for key in bucket.sent() if key.endswith(".tar")) == [
        "bold-00000.tar",
        "bold-00001.tar",
    ]
    for here, there in zip(
        index.samples["bold"], shards.open_index(house["town"]).samples["bold"], strict=True
    ):
        np.testing.assert_array_equal(shards.read_bold(here, 20), shards.read_bold(there, 20))
    # again: the index alone is asked for
    bucket.asked.clear()
    again = shards.open_index(bucket.address)
    shard_hashes.verify(again.shards["bold"])
    assert bucket.sent() == ["index.json"]


def test_without_a_network_what_is_here_is_read(bucket, caplog):
    shard_hashes.verify(shards.open_index(bucket.address).shards["bold"])
    for key in ("index.json", "t1w-00000.tar"):
        bucket.faults[key] = [503] * 9
    with caplog.at_level(logging.WARNING, "bhx_model"):
        index = shards.open_index(bucket.address)
    assert "going on with what it was the last time" in caplog.text
    shard_hashes.verify(index.shards["bold"])
    with pytest.raises(SiteError, match=r"t1w-00000.tar: the server fails with 503"):
        shard_hashes.verify(index.shards["t1w"])


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        ("tar", DataError, r"bold-00000.tar is not the file that was named \(sha256 differs\)"),
        ("short", DataError, "bold-00000.tar is shorter than what names it says: upload it again"),
        ("list", DataError, r"bold-00000.json is not the file that was named"),
        ("gone", DataError, "there is no http.*bold-00000.tar: check the address"),
        ("contract", DataError, "shards of contract version 99, this code reads"),
        ("name", DataError, "an index names '../x.tar', which is not beside it"),
        ("hash", DataError, "has no hash of it"),
    ],
)
def test_what_is_altered_there_is_refused(bucket, fault, error, sentence):
    tar, listed, index = (bucket.root / name for name in ("bold-00000.tar", "bold-00000.json", "index.json"))
    about = json.loads(index.read_text())
    entry = about["shards"]["bold"][0]
    if fault == "tar":
        tar.write_bytes(tar.read_bytes()[::-1])
    elif fault == "short":
        tar.write_bytes(tar.read_bytes()[:-600])
    elif fault == "list":
        listed.write_bytes(listed.read_bytes() + b" ")
    elif fault == "gone":
        tar.unlink()
    elif fault == "contract":
        about["contract"] = 99
    elif fault == "name":
        entry["file"] = "../x.tar"
    else:
        entry["sha256"] = "../../x"
    index.write_text(json.dumps(about))
    with pytest.raises(error, match=sentence) as raised:
        shard_hashes.verify(shards.open_index(bucket.address).shards["bold"])
    assert len(str(raised.value)) <= 200


def test_what_the_own_disk_altered_is_refused(bucket):
    index = shards.open_index(bucket.address)
    shard_hashes.verify(index.shards["bold"])
    path = index.shards["bold"][0].path
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(SiteError, match=r"was altered on this disk .*: remove it, and start again"):
        shard_hashes.verify(index.shards["bold"])


def test_every_process_downloads_and_checks_its_share(bucket, tmp_path, monkeypatch):
    """Each node has a disk of its own."""
    index = shards.open_index(bucket.address)
    record = tmp_path / "verified.json"
    for rank in range(2):
        monkeypatch.setenv("BHX_CACHE", str(tmp_path / f"node-{rank}"))
        index = shards.open_index(bucket.address)
        assert shard_hashes.verify(index.shards["bold"], record=record, rank_share=(rank, 2)) == 1
        assert all(shard.path.exists() for shard in index.shards["bold"])
        assert shard_hashes.verify(index.shards["bold"], record=record, rank_share=(rank, 2)) == 0


def test_commands_read_them_as_those_on_the_disk(bucket, trained, tmp_path):
    address = f"{bucket.address}/index.json"
    for module, stage in ((function_tokens, "function"), (structure_tokens, "structure")):
        for number, place in enumerate((str(trained["town"]), address)):
            out = tmp_path / f"{stage}-{number}.npz"
            assert module.main([f"--{stage}", str(trained[stage]), "--shards", place, "--out", str(out)]) == 0
        assert (tmp_path / f"{stage}-0.npz").read_bytes() == (tmp_path / f"{stage}-1.npz").read_bytes()


def test_a_training_is_the_same(bucket, trained, tmp_path):
    """And its run has the same name: what it is made of is the same."""
    runs = []
    for number, place in enumerate((trained["town"], f"{bucket.address}/index.json")):
        given = words(
            {**trained, "runs": tmp_path / f"runs-{number}"}, "structure", tmp_path / f"out-{number}"
        )
        begin = given.index("--shards") + 1
        given[begin] = str(place)
        assert train.main(given) == 0
        runs.append([path.name for path in (tmp_path / f"runs-{number}").iterdir()])
    assert runs[0] == runs[1]
    weights = [tmp_path / f"out-{number}" / "model.safetensors" for number in range(2)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_cache_is_named_once(bucket, tmp_path):
    assert cache.here().root == tmp_path / "cache"
    assert not cache.here().root.exists()
