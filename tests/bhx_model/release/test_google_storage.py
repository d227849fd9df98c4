"""Shards and weights in a bucket of Google's, against a stand-in of it."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest
from google_bucket import serve
from tiny_shards import NAMES

import bhx_model
from bhx_model.data import shard_hashes, shards
from bhx_model.errors import DataError, SiteError
from bhx_model.remote import cache, patience, transfer


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """``gs://ours``, where its files are in `root`."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # no questions to a network
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    gcsfs = pytest.importorskip("gcsfs", reason="gcsfs (extra `remote`) is not installed")
    monkeypatch.setenv("BHX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(patience, "PAUSE_S", 0.0)
    monkeypatch.setattr(transfer, "PIECE", 100_000)
    gcsfs.GCSFileSystem.clear_instance_cache()
    with serve(tmp_path / "served") as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        yield server
    gcsfs.GCSFileSystem.clear_instance_cache()


def test_shards_are_read(bucket, house):
    shutil.copytree(house["town"].parent, bucket.root / "town")
    index = shards.open_index("gs://ours/town/index.json")
    assert shard_hashes.verify(index.shards["bold"]) == 2
    own = shards.open_index(house["town"])
    for here, there in zip(own.samples["bold"], index.samples["bold"], strict=True):
        np.testing.assert_array_equal(shards.read_bold(here, 20), shards.read_bold(there, 20))
    # again: of the server the index alone
    bucket.asked.clear()
    shard_hashes.verify(shards.open_index("gs://ours/town").shards["bold"])
    assert {name for name, _ in bucket.asked} == {"town/index.json"}


def test_weights_are_read(bucket, exported, model, subject):
    series, tr_s, t1w = subject
    shutil.copytree(exported, bucket.root / "weights")
    found = bhx_model.from_pretrained("gs://ours/weights/")
    np.testing.assert_array_equal(
        found.embed(series, tr_s, NAMES, t1w), model.embed(series, tr_s, NAMES, t1w)
    )


def test_a_large_object_comes_in_pieces_and_is_resumed(bucket):
    bucket.root.mkdir()
    content = bytes(range(256)) * 1000
    (bucket.root / "a b+c#d.tar").write_bytes(content)
    file = cache.here().file(
        "gs://ours/a b+c#d.tar", "big.tar", hashlib.sha256(content).hexdigest(), len(content)
    )
    file.part.parent.mkdir(parents=True)
    file.part.write_bytes(content[:1000])
    cache.here().fetch([file])
    assert file.path.read_bytes() == content
    assert [asked for _, asked in bucket.asked] == [
        "bytes=1000-100999",
        "bytes=101000-200999",
        f"bytes=201000-{len(content) - 1}",
    ]


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        (404, DataError, "there is no gs://ours/x.json: check the address"),
        (403, SiteError, r"gs://ours/x.json may not be read \(403\): ask its owners for access"),
        (401, SiteError, "gs://ours/x.json may not be read"),
        (400, DataError, "gs://ours/x.json is refused with 400"),
        ("invalid argument", DataError, "gs://ours/x.json is refused as a bad request: check the address"),
        ("requester pays", SiteError, "readers of gs://ours/x.json pay for it: set FSSPEC_GS_REQUESTER_PAYS"),
    ],
)
def test_what_is_refused_is_a_sentence_and_no_more(bucket, fault, error, sentence, capfd):
    """The library's own log has tracebacks, which a program without a handler prints."""
    bucket.root.mkdir()
    (bucket.root / "x.json").write_text("{}")
    bucket.faults["x.json"] = [fault]
    with pytest.raises(error, match=sentence) as raised:
        cache.here().read_names("gs://ours/x.json")
    assert len(str(raised.value)) <= 200
    assert "Traceback" not in capfd.readouterr().err
    assert cache.here().read_names("gs://ours/x.json") == b"{}"
