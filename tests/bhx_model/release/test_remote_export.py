"""Weights that are elsewhere: downloaded once, compared with their card, every fault a sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from public_bucket import serve
from tiny_shards import NAMES

import bhx_model
from bhx_model import given_weights
from bhx_model.errors import ConfigError, DataError, SiteError
from bhx_model.release import fetch
from bhx_model.remote import patience
from bhx_prep import cli


@pytest.fixture
def bucket(exported, tmp_path, monkeypatch):
    """The export of the tiny experiment on a server, ready to be altered."""
    pytest.importorskip("aiohttp", reason="aiohttp (extra `remote`) is not installed")
    monkeypatch.setenv("BHX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(patience, "PAUSE_S", 0.0)
    shutil.copytree(exported, tmp_path / "served/weights")
    with serve(tmp_path / "served") as server:
        yield server


@pytest.fixture
def url(bucket):
    return f"{bucket.address}/weights/"


def test_weights_are_downloaded_once(bucket, url, model, subject, tmp_path):
    series, tr_s, t1w = subject
    found = bhx_model.from_pretrained(url)
    np.testing.assert_array_equal(
        found.embed(series, tr_s, NAMES, t1w), model.embed(series, tr_s, NAMES, t1w)
    )
    bucket.asked.clear()
    bhx_model.from_pretrained(f"{url}config.json", stages=["function"])
    assert bucket.sent() == ["weights/config.json"]
    bucket.faults["weights/config.json"] = [503] * 9
    assert bhx_model.from_pretrained(url, stages=["function"]).fusion is None
    bucket.asked.clear()
    assert bhx_model.from_pretrained(url, stages=["function"], cache_dir=tmp_path / "other").fusion is None
    assert "weights/fusion.safetensors" in bucket.sent()
    with pytest.raises(ConfigError, match="is a URL, which has no revisions"):
        bhx_model.from_pretrained(url, revision="main")


def test_other_weights_at_the_same_address_are_other_weights(bucket, url):
    bhx_model.from_pretrained(url)
    card = bucket.root / "weights/config.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "bhx": "9"}))
    assert bhx_model.from_pretrained(url).about["bhx"] == "9"


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        ("half", DataError, r"fusion.safetensors is not the file that was named \(sha256 differs\)"),
        ("gone", DataError, "there is no http.*fusion.safetensors: check the address"),
        ("no export", DataError, "there is no http.*weights/config.json: check the address"),
        ("newer", DataError, "config.json is an export of version 9, .* install a newer bhx"),
        ("list", DataError, "describes no export: name the folder of one"),
        ("no hash", DataError, "describes no whole export .*: export again"),
        ("gated", SiteError, r"may not be read \(403\): ask its owners for access"),
        ("busy", SiteError, r"too many requests \(429\)"),
        ("login", DataError, r"answers with a web page \(a login\?\)"),
        ("rois", DataError, r"rois.npz is not the file that was named \(sha256 differs\)"),
        ("rois of before", DataError, "rois.npz is no whole .npz of ROIs: upload it again"),
    ],
)
def test_what_cannot_be_loaded_is_a_sentence(bucket, url, exported, fault, error, sentence):
    folder = bucket.root / "weights"
    fusion, card, rois = (folder / name for name in ("fusion.safetensors", "config.json", "rois.npz"))
    about = json.loads(card.read_text())
    if fault == "half":
        fusion.write_bytes(fusion.read_bytes()[:1000])
    elif fault.startswith("rois"):
        rois.write_bytes(rois.read_bytes()[:1000])
        if fault == "rois of before":
            del about["rois"]
            card.write_text(json.dumps(about))
    elif fault in ("gone", "no export"):
        (fusion if fault == "gone" else card).unlink()
    elif fault in ("gated", "busy", "login"):
        answer = {"gated": 403, "busy": 429, "login": "page"}[fault]
        bucket.faults["weights/config.json"] = [answer] * 9
    elif fault == "list":
        card.write_text("[]")
    else:
        if fault == "newer":
            about["export"] = 9
        else:
            del about["stages"]["function"]["sha256"]
        card.write_text(json.dumps(about))
    with pytest.raises(error, match=sentence) as raised:
        bhx_model.from_pretrained(url)
    assert len(str(raised.value)) <= 200
    # and what is right is loaded then
    shutil.copytree(exported, folder, dirs_exist_ok=True)
    bucket.faults.clear()
    assert bhx_model.from_pretrained(url).fusion is not None


def test_a_cohort_is_embedded_from_afar(bucket, url, exported, trained, tmp_path, capsys):
    shutil.copytree(trained["town"].parent, bucket.root / "town")
    tables = []
    for weights, cohort in ((exported, trained["town"]), (url, f"{bucket.address}/town")):
        tables.append(tmp_path / f"{len(tables)}.parquet")
        given = ["--weights", str(weights), "--cohort", str(cohort), "--out", str(tables[-1])]
        assert cli.main(["embed", *given, "--device", "cpu"]) == 0
    assert tables[0].read_bytes() == tables[1].read_bytes()
    given = ["--weights", url, "--cohort", f"{bucket.address}/absent", "--out", str(tables[0])]
    assert cli.main(["embed", *given]) == 1
    assert "there is no http" in capsys.readouterr().err


def test_an_export_is_fetched_into_a_folder(bucket, url, exported, tmp_path, capsys):
    out = tmp_path / "export"
    assert fetch.main(["export", "--weights", url, "--out", str(out)]) == 0
    bhx_model.from_pretrained(out)
    assert {path.name for path in out.iterdir()} == {path.name for path in exported.iterdir()} - {"README.md"}
    assert fetch.main(["export", "--weights", f"{url}absent", "--out", str(out)]) == 1
    assert "there is no http" in capsys.readouterr().err


def test_where_a_folder_is_wanted_the_command_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match="is a URL, weights are read from a folder: download them with"
    ) as raised:
        given_weights.find(tmp_path.__class__("https://example.org/a/long/way/to/the/weights/of/a/model"))
    assert len(str(raised.value)) <= 200
