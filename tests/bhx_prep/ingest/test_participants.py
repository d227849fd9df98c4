"""Tables of phenotypes: real ones, and every fault that a participants.tsv can have."""

from __future__ import annotations

import gzip
import json

import pytest

from bhx_prep.cli import main
from bhx_prep.config import config
from bhx_prep.ingest import participants


def write(folder, text, name="participants.tsv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("name", "n", "column", "first"),
    [
        ("ds000030_participants.tsv", 272, "diagnosis", ("10159", "CONTROL")),
        ("ABIDE_curated.csv", 826, "dx", ("0050004", "Autism")),
        ("ADHD200_curated.csv", 430, "dx", ("0010001", "ADHD")),
        ("Phenotypic_V1_0b_preprocessed1.csv.gz", 1112, "DX_GROUP", ("50002", "1")),
        (
            "ABIDEII_Composite_Phenotypic.csv.gz",
            1114,
            "AGE_AT_SCAN",
            ("29006", "48"),
        ),  # latin-1, "AGE_AT_SCAN "
    ],
)
def test_tables_as_cohorts_publish_them(shared, name, n, column, first):
    path = shared(f"data/phenotype/{name}")
    frame = participants.read(path)
    assert len(frame) == n
    values = participants.column(frame, column, path)
    assert (values.index[0], values.iloc[0]) == first
    assert frame.attrs["excluded"] == []


def test_who_is_kept_and_who_is_excluded(tmp_path):
    path = write(
        tmp_path,
        "participant_id\tage\tgroup\nsub-01\t30\tcontrol\n02\tn/a\tpatient\nsub-03\t40\tpatient\n"
        "sub-03\t41\tpatient\nsub-04\t50\tcontrol\nsub-04\t50\tcontrol\nsub-../x\t1\tcontrol\n\t9\tcontrol\n"
        "sub-007\t60\tcontrol\n",
    )
    frame = participants.read(path)
    values, excluded = participants.values(frame, "age", ["04", "01", "02", "03", "7", "99"], path)
    assert values.to_dict() == {"04": "50", "01": "30"}
    assert list(values.index) == ["04", "01"]
    assert dict(excluded) == {
        "02": "age is unknown (n/a) in participants.tsv",
        "03": "is 2 times in participants.tsv, with different values",
        "../x": "'../x' is not a subject label: only letters and digits may be used",
        "line 9": "has no id",
        "7": "has data but no row in participants.tsv, which has 007: ids must be spelt alike",
        "007": "is in participants.tsv but has no usable data",
        "99": "has data but no row in participants.tsv",
    }


def test_a_missing_column_is_named_with_the_nearest(tmp_path):
    path = write(tmp_path, "participant_id\tDiagnosis\tage\nsub-01\ta\t1\n")
    frame = participants.read(path)
    with pytest.raises(
        ValueError, match=r"participants.tsv has no column 'diagnosys'; did you mean 'Diagnosis'\?"
    ):
        participants.column(frame, "diagnosys", path)
    with pytest.raises(ValueError, match="has no column 'site'; it has: participant_id, Diagnosis, age"):
        participants.column(frame, "site", path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("participant_id\tage\n", "has no participants: there is a header only"),
        ("name\tage\nx\t1\n", "has no column participant_id; it has: name, age"),
        ("participant_id\tage\tage \nsub-1\t1\t2\n", "has two columns 'age': rename one"),
        ("participant_id\tage\nsub-1\t1\nsub-2\t2\t3\t4\n", "is not a table: "),
        ("PK\0\0zip of a spreadsheet", "is not a table of text: save it as tab-separated UTF-8"),
    ],
)
def test_what_is_no_table(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        participants.read(write(tmp_path, text))


def test_a_missing_table_is_a_sentence(tmp_path):
    with pytest.raises(
        ValueError, match=r"there is no table of phenotypes .*name it as `participants` of the cohort"
    ):
        participants.read(tmp_path / "participants.tsv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_separators_and_line_ends(tmp_path, encoding, separator, newline):
    lines = [
        separator.join(cells)
        for cells in (("participant_id", "city"), ("sub-01", "Zürich"), ("02", " Bern "))
    ]
    frame = participants.read(write(tmp_path, newline.join(lines) + newline, encoding=encoding))
    assert frame["city"].to_dict() == {"01": "Zürich", "02": "Bern"}


def test_a_packed_table_and_a_torn_one(tmp_path):
    packed = gzip.compress(b"participant_id,age\nsub-01,30\n")
    (tmp_path / "p.csv.gz").write_bytes(packed)
    assert participants.read(tmp_path / "p.csv.gz")["age"].to_dict() == {"01": "30"}
    (tmp_path / "p.csv.gz").write_bytes(packed[:-6])
    with pytest.raises(ValueError, match="cannot be read"):
        participants.read(tmp_path / "p.csv.gz")


def test_an_endpoint_is_compared_with_its_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "participant_id\tdiagnosis\tsite\n01\tcontrol\tA\n02\tpatient\tB\n03\tn/a\tB\n")
    study = {
        "cohorts": {"a": {"input": "bids", "root": str(tmp_path)}, "later": {"input": "bids", "root": "no"}},
        "endpoints": {
            "one": {"cohort": "a", "column": "diagnosi", "kind": "binary", "classes": ["control", "patient"]},
            "two": {
                "cohort": "a",
                "column": "diagnosis",
                "kind": "binary",
                "classes": ["controls", "patient"],
                "stratify": ["siet"],
            },
            "three": {"cohort": "later", "column": "x", "kind": "regression"},
            "four": {
                "cohort": "a",
                "column": "diagnosis",
                "kind": "binary",
                "classes": ["control", "patient"],
            },
        },
    }
    table = tmp_path / "participants.tsv"
    expected = [
        f"endpoints.one.column: {table} has no column 'diagnosi'; did you mean 'diagnosis'?",
        f"endpoints.two.classes: no participant is 'controls' in column 'diagnosis' of {table}; there are: control, patient",
        f"endpoints.two.stratify: {table} has no column 'siet'; did you mean 'site'?",
    ]
    assert participants.mistakes(config.check(study)) == expected
    (tmp_path / "config.yaml").write_text(json.dumps(study))
    assert main(["config", "check"]) == 1
    error = capsys.readouterr().err
    assert all(line in error for line in expected)
    table.write_text("")
    assert participants.mistakes(config.check(study))[0] == f"endpoints.one.cohort: {table} is empty"
