"""A server of files on this machine, and an empty cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from public_bucket import PublicBucket, serve
from small_disk import mounted

from bhx_model.remote import cache, patience, transfer
from bhx_model.remote.cache import Cache


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A cache of its own, and no patience."""
    monkeypatch.setenv("BHX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(patience, "PAUSE_S", 0.0)
    monkeypatch.setattr(transfer, "PIECE", 100)
    return cache.here()


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PublicBucket]:
    """Files of ``bucket.root``."""
    pytest.importorskip("aiohttp", reason="aiohttp (extra `remote`) is not installed")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve(tmp_path / "served") as server:
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    with mounted(tmp_path / "disk", "1m") as place:
        yield place
