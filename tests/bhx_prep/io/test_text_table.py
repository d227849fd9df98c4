"""Text tables of any encoding, line end and separator give the same cells, or one sentence."""

from __future__ import annotations

import gzip

import pytest

from bhx_model.errors import DataError
from bhx_prep.io import text_table

CELLS = [["name", "t1", "t2"], ["LH_Vis_1", "1.5", "2"], ["RH_Vis_1", "-3e1", "n/a"]]


def plain(separator="\t", end="\n"):
    return end.join(separator.join(row) for row in CELLS) + end


@pytest.mark.parametrize(
    "raw",
    [
        plain().encode(),
        plain(",", "\r\n").encode("utf-8-sig"),
        plain(";", "\r").encode(),
        plain(" ").encode(),
        plain("   ").encode(),
        plain("\t").encode("utf-16"),
        plain(",").encode("utf-16-le"),
        plain(",").encode("utf-16-be"),
        b"sep=;\n" + plain(";").encode(),
        b"# made by somebody\n\n" + plain(",").encode(),
        plain(",").replace("LH_Vis_1", '"LH_Vis_1"').encode(),
        plain(",\n"[:1], ",\n").encode(),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "tsv.gz"])
def test_the_same_cells(tmp_path, raw, ending):
    path = tmp_path / f"t.{ending}"
    path.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    assert text_table.read(path).rows == CELLS
    assert "name" in text_table.first_line(path) or raw.startswith(b"#")


def test_headers_behind_a_mark(tmp_path):
    path = tmp_path / "t.1D"
    for header in ("#1\t#2", "# #1\t#2"):
        path.write_text(f"{header}\n1\t2\n3\t4\n")
        table = text_table.read(path)
        assert (table.rows[0], table.commented) == (["#1", "#2"], True)
    path.write_text("# Mean_1 Mean_2\n1 2\n3 4\n")
    assert text_table.read(path).rows[0] == ["Mean_1", "Mean_2"]


def test_r_names_no_column_of_row_names(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text('"a" "b"\n"1" 5 6\n"2" 7 8\n')
    assert text_table.read(path).rows == [["", '"a"', '"b"'], ['"1"', "5", "6"], ['"2"', "7", "8"]]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"a,b\n1,2\n3\n", "only some lines have commas|line 3 has 1 cells"),
        (b"a\tb\n1,2\n3,4\n", "by tabs, the second by commas"),
        (b"a,b\n1,2\n3,4,5\n6,7\n", "line 3 has 3 cells between commas, the first 2"),
        (b'a,b\n1,"2\n3,4\n', "stray quotes"),
        (b"PK\x03\x04", "Excel workbook"),
        (b"\x00\x01\x02\x03", "zero bytes"),
        (b"\n\n", "holds no rows"),
        (b"/annex/objects/MD5E-s1--x.tsv", "datalad get"),
        (b"\x1f\x8b\x08", "is gzipped"),
    ],
)
def test_what_is_no_table_is_a_sentence(tmp_path, raw, sentence):
    path = tmp_path / "t.csv"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=sentence):
        text_table.read(path)


def test_a_line_without_end_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(text_table, "MAX_LINE", 1 << 15)
    monkeypatch.setattr(text_table, "MAX_BYTES", 1 << 15)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"1," * (1 << 16)))
    with pytest.raises(DataError, match="first line is longer"):
        text_table.first_line(path)
    with pytest.raises(DataError, match="of text: no ROI x time table is so large"):
        text_table.read(path)


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1.5", 1.5), ("-2e3", -2000), ("1_000", None), ("1,5", None), ("x", None), ("007", 7)],
)
def test_numbers(cell, value):
    assert text_table.number(cell) == value


def test_cells_without_value():
    assert all(text_table.number(cell) != text_table.number(cell) for cell in ("", "n/a", "NaN", "NULL"))
