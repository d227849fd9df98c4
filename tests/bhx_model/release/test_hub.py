"""Weights by name, against a stand-in of the Hub: downloaded once, used without a network, every fault a sentence."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hub_server import REPO, serve
from small_disk import mounted, remount
from tiny_shards import NAMES

import bhx_model
from bhx_model.errors import ConfigError, DataError, SiteError
from bhx_model.release import hub as by_name
from bhx_prep import cli


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SiteError, match=r"there is no folder org/name; .*pip install 'bhx\[hub\]'"):
        bhx_model.from_pretrained("org/name")
    with pytest.raises(DataError, match="is no exported model"):
        bhx_model.from_pretrained("folder")


def test_no_network_is_a_sentence_whenever_the_library_imports_its_own(exported, monkeypatch):
    """The errors of what speaks HTTP may be known only once something is asked for."""

    class NoConnection(Exception):
        pass

    def create_repo(*args, **options):
        monkeypatch.setitem(sys.modules, "httpx2", SimpleNamespace(HTTPError=NoConnection))
        raise NoConnection

    names = ("LocalEntryNotFoundError", "GatedRepoError", "RepositoryNotFoundError", "RevisionNotFoundError")
    errors = SimpleNamespace(**{name: type(name, (Exception,), {}) for name in (*names, "HfHubHTTPError")})
    library = SimpleNamespace(errors=errors, HfApi=lambda **_: SimpleNamespace(create_repo=create_repo))
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    monkeypatch.delitem(sys.modules, "httpx2", raising=False)
    with pytest.raises(SiteError, match=r"did not complete \(NoConnection\): check the network"):
        by_name.push(exported, REPO, terms_allow=True)


def test_a_folder_takes_precedence_over_a_name(exported, monkeypatch):
    monkeypatch.chdir(exported.parent.parent)
    name = f"{exported.parent.name}/{exported.name}"
    assert bhx_model.from_pretrained(name, stages=["function"]).rois.names[0] == NAMES[0]
    with pytest.raises(ConfigError, match="which has no revisions"):
        bhx_model.from_pretrained(name, revision="main")


@pytest.fixture
def hub(exported, monkeypatch):
    """The stand-in with the export of the tiny experiment, and the library that speaks to it."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub (extra `hub`) is not installed")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.files = {path.name: path.read_bytes() for path in exported.iterdir()}
        server.files["pytorch_model.bin"] = b"something else"
        yield server


def test_weights_by_name_are_kept(hub, model, subject, tmp_path):
    series, tr_s, t1w = subject
    found = bhx_model.from_pretrained(REPO, cache_dir=tmp_path)
    np.testing.assert_array_equal(
        found.embed(series, tr_s, NAMES, t1w), model.embed(series, tr_s, NAMES, t1w)
    )
    assert not any("pytorch_model.bin" in path for path in hub.asked)
    # again: no file is asked for
    hub.asked.clear()
    bhx_model.from_pretrained(REPO, cache_dir=tmp_path, stages=["function"])
    assert not any("/resolve/" in path for path in hub.asked)
    hub.status = 500
    assert bhx_model.from_pretrained(REPO, cache_dir=tmp_path, stages=["function"]).fusion is None


def test_without_a_network_what_was_downloaded_is_used(hub, tmp_path, monkeypatch):
    bhx_model.from_pretrained(REPO, cache_dir=tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert bhx_model.from_pretrained(REPO, cache_dir=tmp_path, stages=["function"]).fusion is None
    with pytest.raises(SiteError, match="cannot be reached, and org/name is not whole in the cache"):
        bhx_model.from_pretrained(REPO, cache_dir=tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "fault", "error", "sentence"),
    [
        ("org/absent", {}, DataError, "neither a folder here nor a repository at .* that you may read"),
        (REPO, {"gated": True}, DataError, "is gated: accept its terms at"),
        (REPO, {"status": 403}, SiteError, "answers 403"),
        (REPO, {"status": 429}, SiteError, "answers 429 for org/name: too many requests: try again later"),
        (REPO, {"status": 503}, SiteError, "answers 503 .*try again later"),
        (REPO, {"half": True}, SiteError, "did not complete"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(hub, tmp_path, name, fault, error, sentence, monkeypatch):
    for key, value in fault.items():
        setattr(hub, key, value)
    library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(library.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the library waits before it retries
    with pytest.raises(error, match=sentence) as raised:
        bhx_model.from_pretrained(name, cache_dir=tmp_path)
    assert len(str(raised.value)) <= 200
    # an interrupted download leaves nothing that is taken for whole
    hub.status, hub.half, hub.gated = None, False, False
    if name == REPO:
        assert bhx_model.from_pretrained(REPO, cache_dir=tmp_path, stages=["function"]).fusion is None


def test_a_disk_that_is_full_or_read_only(hub, tmp_path):
    with mounted(tmp_path / "disk", "300k") as disk:
        with pytest.raises(SiteError, match="is full: free some space, or set HF_HOME") as full:
            bhx_model.from_pretrained(REPO, cache_dir=disk / "cache")
        remount(disk, "size=64m")  # and what is there is gone on with
        assert bhx_model.from_pretrained(REPO, cache_dir=disk / "cache", stages=["function"]).fusion is None
    with mounted(tmp_path / "other", "1m") as disk:
        remount(disk, "ro")
        with pytest.raises(SiteError, match="may not be written: set HF_HOME") as read_only:
            bhx_model.from_pretrained(REPO, cache_dir=disk / "cache")
    assert max(len(str(raised.value)) for raised in (full, read_only)) <= 200


def test_an_export_of_a_newer_format_is_a_sentence(hub, tmp_path):
    about = json.loads(hub.files["config.json"])
    hub.files["config.json"] = json.dumps({**about, "export": 9}).encode()
    with pytest.raises(
        DataError, match=r"^org/name is an export of version 9, .*install a newer bhx"
    ) as raised:
        bhx_model.from_pretrained(REPO, cache_dir=tmp_path)
    assert len(str(raised.value)) <= 200


def test_other_faults_of_the_hub(hub, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="has no such revision"):
        bhx_model.from_pretrained(REPO, cache_dir=tmp_path, revision="absent")
    library = pytest.importorskip("huggingface_hub")

    class Answer:
        status_code = 429
        headers = None
        request = None

    busy = library.errors.HfHubHTTPError.__new__(library.errors.HfHubHTTPError)
    busy.response = Answer()
    for raised, sentence in (
        (busy, "answers 429 for org/name: too many requests: try again later"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "is full: free some space"),
        (OSError(errno.EROFS, "read-only", "/cache"), "may not be written: set HF_HOME"),
    ):
        monkeypatch.setattr(library, "snapshot_download", _raising(raised))
        with pytest.raises(SiteError, match=sentence):
            bhx_model.from_pretrained(REPO, cache_dir=tmp_path)


def _raising(error):
    def download(*args, **options):
        raise error

    return download


def test_an_export_is_uploaded(hub, exported, tmp_path, capsys):
    hub.files = {}
    assert cli.main(["push", str(exported), REPO]) == 1
    assert "the terms of town, ward are not stated" in capsys.readouterr().err
    assert hub.files == {}
    assert cli.main(["push", str(exported), REPO, "--private", "--terms-allow"]) == 0
    assert hub.private is True
    assert hub.files == {path.name: path.read_bytes() for path in exported.iterdir()}
    assert bhx_model.from_pretrained(REPO, cache_dir=tmp_path).fusion is not None
    assert cli.main(["push", str(tmp_path), REPO]) == 1
    for name in ("a b", "../x", "org/-x", "org/"):
        assert cli.main(["push", str(exported), name, "--terms-allow"]) == 1
        assert f"{name!r} is no name of a repository" in capsys.readouterr().err
    hub.status = 401
    assert cli.main(["push", str(exported), REPO, "--terms-allow"]) == 1
    assert "answers 401" in capsys.readouterr().err


def test_the_library_reads_the_card(exported):
    library = pytest.importorskip("huggingface_hub", reason="huggingface_hub (extra `hub`) is not installed")
    card = library.ModelCard.load(exported / "README.md")
    assert card.data.license == "other"
    assert card.data.library_name == "bhx"
    assert card.data.pipeline_tag == "feature-extraction"
    assert card.data.datasets == ["town", "ward"]
    assert set(by_name.FILES) >= {path.name for path in exported.iterdir()}
