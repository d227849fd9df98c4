"""Lists of ROI names: one a line, tables, JSON."""

from __future__ import annotations

import pytest

from bhx_model.errors import DataError
from bhx_prep.io import name_lists


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("txt", "LH a\nLH b\n"),
        ("txt", "\ufeffname\r\nLH a\r\nLH b\r\n"),
        ("txt", "1\tLH a\t120\t18\t131\t0\n2\tLH b\t120\t18\t132\t0\n"),
        ("tsv", "index\tname\n2\tLH b\n1\tLH a\n0\tBackground\n"),
        ("tsv", "name\tlabel\nLH a\t1\nLH b\t2\n"),
        ("csv", "label,network\nLH a,x\nLH b,y\n"),
        ("json", '["LH a", "LH b"]'),
        ("json", '["Background", "LH a", "LH b"]'),
        ("json", '{"ROINames": ["LH a", "LH b"]}'),
    ],
)
def test_names(tmp_path, ending, text):
    path = tmp_path / f"n.{ending}"
    path.write_text(text, encoding="utf-8")
    assert name_lists.read(path) == ("LH a", "LH b")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a\na\n", "holds a name twice: 'a'"), ("", "no list of ROI names"), ("\x00\x00", "zero bytes")],
)
def test_what_is_no_list_is_a_sentence(tmp_path, text, sentence):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(DataError, match=sentence):
        name_lists.read(tmp_path / "names.txt")
    with pytest.raises(DataError, match=r"nowhere\.txt cannot be read: No such file"):
        name_lists.read(tmp_path / "nowhere.txt")


def test_fields_of_a_sidecar():
    assert name_lists.in_fields({"RepetitionTime": 2, "labels": ["a", "b"]}) == ("a", "b")
    assert name_lists.in_fields({"labels": ["Background", "b'a'", "b"]}) == ("a", "b")
    assert name_lists.in_fields({"Sources": ["a", "b"], "names": [1, 2]}) is None
