"""Pointers of git-annex and Git LFS are told from content."""

from __future__ import annotations

import pytest

from bhx_prep.io.pointers import content_missing

KEY = "MD5E-s32002097--0123456789abcdef0123456789abcdef.nii.gz"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (f"/annex/objects/{KEY}\n", "datalad get"),
        (f"../../.git/annex/objects/aa/bb/{KEY}/{KEY}", "datalad get"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", "git lfs pull"),
        ("a\tb\n1\t2\n", None),
        ("", None),
        (f"/annex/objects/{KEY}" + " " * 2000, None),
    ],
)
def test_pointers(tmp_path, text, command):
    (tmp_path / "x.tsv").write_text(text)
    said = content_missing(tmp_path / "x.tsv", len(text))
    assert said is None if command is None else command in (said or "")
