"""Files of a BIDS folder: what cannot be listed is not taken for empty."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest
import refused_folder

from bhx_model.errors import ConfigError
from bhx_prep.ingest import bids_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("sub-01/ses-1/func/a", "sub-01/ses-2/func/b", "sub-01/.hidden/c"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    return tmp_path / "sub-01"


def test_files_below_a_folder(folder: Path):
    (folder / "circle").symlink_to(folder)
    found = sorted(os.path.relpath(path, folder) for path in bids_files.files_below(str(folder)))
    assert found == ["ses-1/func/a", "ses-2/func/b"]
    assert list(bids_files.files_below(str(folder / "nowhere"))) == []


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(folder: Path, monkeypatch):
    refused_folder.refuse(monkeypatch, "ses-2")
    with pytest.raises(
        ConfigError, match=r"sub-01/ses-2: it may not be read or written: change its permissions"
    ):
        list(bids_files.files_below(str(folder)))


@pytest.mark.parametrize(
    "pattern",
    [
        "ses-1/func/a",
        "ses-*/func/*",
        "ses-?/*/[ab]",
        "*",
        "ses-[!2]/func/*",
        "nowhere/*",
        "ses-1/func/a/*",
        ".hidden/*",
        "x*",
    ],
)
def test_a_pattern_finds_what_glob_finds(folder: Path, pattern: str):
    (folder / "ses-3").symlink_to(folder / "ses-1")
    (folder / "ses-4").symlink_to(folder / "nowhere")
    assert bids_files.matching(folder, pattern) == sorted(glob.glob(pattern, root_dir=folder))  # noqa: PTH207


@pytest.mark.parametrize("pattern", ["ses-*/func/*", "ses-2/**/b"])
def test_a_pattern_through_a_folder_that_may_not_be_read_is_an_error(folder: Path, monkeypatch, pattern: str):
    refused_folder.refuse(monkeypatch, "ses-2/func")
    with pytest.raises(ConfigError, match=r"sub-01/ses-2/func: it may not be read"):
        bids_files.matching(folder, pattern)
