"""Tables of text: encodings, separators, quotes, and what is no table."""

from __future__ import annotations

import csv
import gzip
import io
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bhx_model.errors import DataError
from bhx_prep.ingest import delimited, participants


def write(folder, text, name="participants.tsv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def read_column(path, name):
    return participants.read(path).column(name).known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("participant_id\tage\n", "has no participants: there is a header only"),
        ("name\tage\nx\t1\n", "has no column participant_id; it has: name, age"),
        ("participant_id\tage\tage \nsub-1\t1\t2\n", "has two columns 'age': rename one"),
        (
            "participant_id\tage\nsub-1\t1\nsub-2\t2\t3\t4\n",
            "is not a table: line 3 has 4 cells, the header has 2",
        ),
        ("participant_id\tage\n1\tsub-1\t1\n", "does it lack the name of a first column"),
        (
            "participant_id age sex\nsub-1 3 F\n",
            "has one column only, 'participant_id age sex': separate columns by tabs",
        ),
        (
            "PK\x03\x04zip of a spreadsheet",
            "is a spreadsheet or zip file, not a table of text: save it as text",
        ),
        ("PAR1...", "is a Parquet file"),
        ("participant_id\tage\nsub-1\t\0\n", "line 2 has a zero byte"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a pointer.*datalad get"),
        ("/annex/objects/MD5E-s16387--1.tsv\n", "is a pointer.*datalad get"),
        ('participant_id,a,b\n01,"x,y,z\n02,1,2\n', "a quote on line 2 is not closed or not doubled"),
        (
            'participant_id,a,b\n01,"x,y,z\n02,1,2\n03,5",2\n',
            "a quote on line 2 is not closed before the next row",
        ),
    ],
)
def test_what_is_no_table(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as error:
        participants.read(write(tmp_path, text))
    assert len(str(error.value)) <= 200


def test_a_missing_table_is_a_sentence(tmp_path):
    path = tmp_path / "participants.tsv"
    with pytest.raises(
        DataError, match=r"there is no table of phenotypes .*name it as `participants` of the cohort"
    ):
        participants.read(path)
    path.symlink_to(".git/annex/objects/x")
    with pytest.raises(DataError, match=r"a link to a file that is not there.*datalad get"):
        participants.read(path)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\r\r\n"])
def test_encodings_separators_and_line_ends(tmp_path, encoding, separator, newline):
    lines = [
        separator.join(cells)
        for cells in (("participant_id", "city"), ("sub-01", "Zürich"), ("02", " Bern "))
    ]
    for ending in ("tsv", "csv"):
        path = write(tmp_path, newline.join(lines) + newline, f"p.{ending}", encoding)
        assert read_column(path, "city") == {"01": "Zürich", "02": "Bern"}


def test_a_packed_table_and_a_torn_one(tmp_path):
    packed = gzip.compress(b"participant_id,age\nsub-01,30\n")
    (tmp_path / "p.csv.gz").write_bytes(packed)
    assert read_column(tmp_path / "p.csv.gz", "age") == {"01": "30"}
    (tmp_path / "p.tsv").write_bytes(packed)
    assert read_column(tmp_path / "p.tsv", "age") == {"01": "30"}
    (tmp_path / "p.csv.gz").write_bytes(packed[:-6])
    with pytest.raises(DataError, match="cannot be read"):
        participants.read(tmp_path / "p.csv.gz")


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_stray_quotes_hide_no_row(tmp_path, separator):
    notes = {4: '"could not lie still', 21: '5" coil', 40: 'inch 5"', 41: '"'}
    lines = [separator.join(("participant_id", "age", "note"))]
    lines += [separator.join((f"sub-{i:02d}", str(20 + i), notes.get(i, "x"))) for i in range(1, 61)]
    path = write(tmp_path, "\n".join(lines) + "\n")
    assert read_column(path, "age") == {f"{i:02d}": str(20 + i) for i in range(1, 61)}
    assert read_column(path, "note")["04"] == '"could not lie still'


def test_quotes_around_cells_and_within(tmp_path):
    text = '"participant_id","age, years","note"\n"sub-01","30","a ""b"""\nsub-02,40,"two\nlines, one"\nsub-03,50,\n'
    path = write(tmp_path, text, "p.csv")
    assert read_column(path, "age, years") == {"01": "30", "02": "40", "03": "50"}
    assert read_column(path, "note") == {"01": 'a "b"', "02": "two\nlines, one"}
    quoted = write(tmp_path, '"participant_id"\t"age"\n"sub-01"\t"30"\n')
    assert read_column(quoted, "age") == {"01": "30"}


CELL = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=6)
TABLES = st.lists(
    st.lists(st.one_of(CELL, st.sampled_from(['a,"b"', "x;y", 'q"', "two\nlines"])), min_size=3, max_size=3),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=TABLES,
    separator=st.sampled_from(["\t", ",", ";"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_the_csv_module_wrote_is_read_or_refused(tmp_path_factory, rows, separator, quoting):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator="\n")
    writer.writerow(["participant_id", "a", "b", "c"])
    writer.writerows([f"sub-{i:02d}", *row] for i, row in enumerate(rows))
    path = tmp_path_factory.mktemp("t") / "p.csv"
    path.write_text(text.getvalue(), encoding="utf-8")
    try:
        cells = delimited.read_cells(
            path, lambda names: "participant_id" if "participant_id" in names else None
        )
    except DataError:
        return  # a cell may look like a row: refused, not guessed
    assert [row[1:] for _, row in cells.rows] == rows


def test_empty_cells_beyond_the_header_and_rows_of_nothing(tmp_path):
    path = write(tmp_path, "participant_id,age,,\nsub-01,30,,\nsub-02,40\n,,,\n", "p.csv")
    table = participants.read(path)
    assert table.column("age").known == {"01": "30", "02": "40"}
    assert table.excluded == {}


def test_a_million_columns_cost_little_memory(tmp_path, monkeypatch):
    n = 100_000
    path = tmp_path / "participants.tsv"
    with path.open("w") as file:
        file.write("participant_id\tage\t" + "\t".join(f"f{i}" for i in range(n)) + "\n")
        file.writelines(f"sub-{i}\t{i}\t" + "1\t" * (n - 1) + "1\n" for i in range(20))
    tracemalloc.start()
    began = time.process_time()
    table = participants.read(path, columns=["age"])
    assert time.process_time() - began < 2
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()
    assert table.column("age").known["7"] == "7"
    with pytest.raises(DataError, match=r"has 100,002 columns, at most 20,000 are read"):
        participants.read(path)


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "LONGEST_LINE", 1000)
    with pytest.raises(DataError, match=r"line 2 of participants.tsv has over 1,000 characters"):
        participants.read(write(tmp_path, "participant_id\tage\n" + "x" * 5000))
    monkeypatch.setattr(delimited, "LARGEST", 40)
    with pytest.raises(DataError, match="save the columns that endpoints need as a table of their own"):
        participants.read(write(tmp_path, "participant_id\tage\n" + "1\t2\n" * 50))
    (tmp_path / "p.tsv.gz").write_bytes(gzip.compress(b"participant_id\tage\n" + b"1\t2\n" * 5000))
    monkeypatch.setattr(delimited, "LARGEST", 1000)
    with pytest.raises(DataError, match="save the columns that endpoints need"):
        participants.read(tmp_path / "p.tsv.gz")
