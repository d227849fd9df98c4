"""ROI tables of public releases are found by their names, wherever they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import refused_folder

from bhx_model.errors import ConfigError
from bhx_prep.ingest import roi_tables

NAME = re.compile(r"(?P<id>\d{3})_\w+\.1D")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("b/001_x.1D", "a/001_y.1D", "002_x.1D", "a/other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_tables_by_subject(root: Path):
    assert roi_tables.by_subject(root, NAME) == {"001": ["a/001_y.1D", "b/001_x.1D"], "002": ["002_x.1D"]}


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(root: Path, monkeypatch):
    refused_folder.refuse(monkeypatch, "/b")
    with pytest.raises(ConfigError, match="/b: it may not be read or written: change its permissions"):
        roi_tables.by_subject(root, NAME)
