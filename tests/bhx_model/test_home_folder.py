"""`~` is a home folder, or a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhx_model import home_folder
from bhx_model.errors import ConfigError


def test_home_folders(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_folder.expanded("~/a b") == tmp_path / "a b"
    assert home_folder.expanded(Path("a/~/b")) == Path("a/~/b")
    with pytest.raises(ConfigError, match="there is no home folder for ~nobodyatall: write the path itself"):
        home_folder.expanded("~nobodyatall/x")
