"""Addresses: told from paths, joined, and shown without what is secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhx_model.remote.urls import beside, inside, is_url, place, shown, was_url


@pytest.mark.parametrize(
    "text", ["https://host/a", "s3://bucket/key", "gs://b/k", "file:///tmp/a", "HTTP://h"]
)
def test_urls_are_told_from_paths(text: str):
    assert is_url(text)
    assert place(text) == text
    assert was_url(Path(text)) == (not text.startswith(("file", "HTTP")))


@pytest.mark.parametrize("text", ["a/b", "/data/index.json", "org/name", "http:", "c:/x", "1s://x"])
def test_paths_are_no_urls(text: str):
    assert not is_url(text)
    assert place(text) == Path(text)
    assert not is_url(Path("https://host/a"))


def test_files_beside_and_inside():
    assert inside("https://h/w/", "config.json") == "https://h/w/config.json"
    assert inside("https://h/w", "config.json") == "https://h/w/config.json"
    assert inside("https://h/w/config.json", "config.json") == "https://h/w/config.json"
    assert beside("https://h/w/index.json?sig=a/b", "x.tar") == "https://h/w/x.tar?sig=a/b"
    assert inside("s3://bucket", "index.json") == "s3://bucket/index.json"
    assert beside("s3://bucket/a#b/index.json", "x.tar") == "s3://bucket/a#b/x.tar"


def test_what_is_secret_is_not_shown():
    assert shown("https://me:word@host/a/b?token=1") == "https://host/a/b"
    assert len(shown("https://host/" + "a" * 500)) <= 80
    assert shown(Path("a/b")) == "a/b"
