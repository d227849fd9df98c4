"""Tables of phenotypes: real ones, and who of them has which value."""

from __future__ import annotations

import pytest

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import TableSettings
from bhx_prep.ingest import participants


def write(folder, text, name="participants.tsv"):
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "n", "column", "first"),
    [
        ("ds000030_participants.tsv", 272, "diagnosis", ("10159", "CONTROL")),
        ("ABIDE_curated.csv", 826, "dx", ("0050004", "Autism")),
        ("ADHD200_curated.csv", 430, "dx", ("0010001", "ADHD")),
        ("Phenotypic_V1_0b_preprocessed1.csv.gz", 1112, "DX_GROUP", ("50002", "1")),
        # Latin-1, "AGE_AT_SCAN ", unnamed columns, a comment with a line end in quotes
        ("ABIDEII_Composite_Phenotypic.csv.gz", 1114, "AGE_AT_SCAN", ("29006", "48")),
    ],
)
def test_tables_as_cohorts_publish_them(shared, name, n, column, first):
    table = participants.read(shared(f"data/phenotype/{name}"))
    assert len(table.rows) == n
    assert next(iter(table.column(column).known.items())) == first
    assert table.excluded == {}


def test_no_code_is_an_iq(shared):
    table = participants.read(shared("data/phenotype/Phenotypic_V1_0b_preprocessed1.csv.gz"))
    column = table.column("FIQ")
    assert (len(column.known), column.missing["-9999"]) == (1040, 37)
    assert min(map(float, column.known.values())) > 40
    assert column.notes() == ["table read with an assumption: FIQ: read as unknown are '-9999' (37 x)"]


def test_who_is_kept_and_who_is_excluded(tmp_path):
    path = write(
        tmp_path,
        "participant_id\tage\tgroup\nsub-01\t30\tcontrol\n02\tn/a\tpatient\nsub-03\t40\tpatient\n"
        "sub-03\t41\tpatient\nsub-04\t50\tcontrol\nsub-04\t50\tcontrol\nsub-../x\t1\tcontrol\n\t9\tcontrol\n"
        "sub-007\t60\tcontrol\nsub-05\t3\n",
    )
    with_data = ["04", "01", "02", "03", "7", "99", "05"]
    table = participants.read(path).match(with_data)
    column, excluded = participants.values(table, "age", with_data)
    assert column.known == {"04": "50", "01": "30", "7": "60"}
    assert list(column.known) == ["04", "01", "7"]
    assert excluded == {
        "02": "age is unknown (n/a) in participants.tsv",
        "03": "age differs between its 2 rows ('40', '41'): keep one row per participant",
        "../x": "'sub-../x' is not a subject label: only letters and digits may be used",
        "line 9": "has no id",
        "99": "has data but no row in participants.tsv",
        "05": "its line 11 has 2 cells, the header 3: write n/a into empty cells",
    }
    assert participants.values(table, "group", ["03"])[0].known == {"03": "patient"}
    assert "is in participants.tsv but has no usable data" in participants.values(table, "group", [])[1]["01"]
    assert table.notes() == [
        "table read with an assumption: 1 ids of participants.tsv are spelt otherwise than the subjects', "
        "e.g. 'sub-007' for 7",
        "table read with an assumption: 2 participants have several rows in participants.tsv; used where they agree",
    ]


def test_a_missing_column_is_named_with_the_nearest(tmp_path):
    table = participants.read(write(tmp_path, "participant_id\tDiagnosis\tage\nsub-01\ta\t1\n"))
    with pytest.raises(
        DataError, match=r"participants.tsv has no column 'diagnosys'; did you mean 'Diagnosis'\?"
    ):
        table.column("diagnosys")
    with pytest.raises(DataError, match="has no column 'site'; it has: participant_id, Diagnosis, age"):
        table.column("site")


def test_rows_of_sessions_count_where_they_agree(tmp_path):
    path = write(
        tmp_path,
        "participant_id\tsession_id\tdx\tage\tfamily\n"
        "sub-01\tses-1\tpatient\t30\t7\nsub-01\tses-2\tn/a\t32\t7.0\n"
        "sub-02\tses-1\tcontrol\t20\t7\nsub-02\tses-2\tpatient\t20.0\t9\n",
    )
    table = participants.read(path)
    assert table.column("dx").known == {"01": "patient"}
    assert table.column("dx").unknown == {
        "02": "dx differs between its 2 rows ('control', 'patient'): keep one session_id per participant"
    }
    assert table.column("age").known == {"02": "20"}
    with pytest.raises(DataError, match="sub-02: family differs between its 2 rows"):
        participants.families(table, "family")


def test_what_a_user_names_is_missing_and_nothing_else(tmp_path):
    path = write(tmp_path, "participant_id\tdx\tscore\n1\tNA\t-999\n2\tnone\t-9999.00\n3\t\t7\n4\tn/a\t888\n")
    default = participants.read(path)
    assert default.column("dx").known == {"2": "none"}
    assert default.column("score").known == {"3": "7", "4": "888"}
    assert default.column("dx", ["NA", "none"]).known == {"1": "NA", "2": "none"}
    named = participants.read(path, TableSettings(missing=("888.0",)))
    assert named.column("dx").known == {"1": "NA", "2": "none", "4": "n/a"}
    assert named.column("score").known == {"1": "-999", "2": "-9999.00", "3": "7"}


def test_families(tmp_path):
    path = write(tmp_path, "participant_id\tfam\n1\t7\n2\t7.0\n3\tn/a\n4\t-9999\n5\tA\n")
    assert participants.families(participants.read(path), "fam") == {"1": "7", "2": "7", "5": "a"}


def test_codes_for_unknown_may_be_families_too(tmp_path):
    cells = ["777", "777", "F 1", "f  1", "-777", "none", "-", "0", *["999"] * 21]
    rows = "".join(f"{i}\t{cell}\n" for i, cell in enumerate(cells, 1))
    table = participants.read(
        write(tmp_path, f"participant_id\tfam\n{rows}"), TableSettings(missing=("777", "999", "0"))
    )
    assert participants.families(table, "fam") == {"1": "777", "2": "777", "3": "f 1", "4": "f 1", "8": "0"}


@pytest.mark.parametrize("cells", [["sub-A2", "sub-A1", "F1"], ["", "A1", "F1"], ["A1", "a1", "F1"]])
def test_a_family_may_be_named_by_the_id_of_a_relative(tmp_path, cells):
    path = write(tmp_path, "participant_id\tfam\n" + "".join(f"A{i}\t{c}\n" for i, c in enumerate(cells, 1)))
    found = participants.families(participants.read(path), "fam")
    assert found["A1"] == found["A2"] != found["A3"]


def test_families_that_are_counted_are_no_participants(tmp_path):
    path = write(tmp_path, "participant_id\tfam\n" + "".join(f"{i}\t{i // 2}\n" for i in range(1, 9)))
    assert len(set(participants.families(participants.read(path), "fam").values())) == 5


def test_families_of_large_numbers_are_participants_where_these_name_each_other(tmp_path):
    counted = "".join(f"{1000 + i}\t{1000 + i // 2}\n" for i in range(1, 9))
    path = write(tmp_path, f"participant_id\tfam\n{counted}")
    assert len(set(participants.families(participants.read(path), "fam").values())) == 5
    twins = "".join(f"{1000 + i}\t{1000 + (i ^ 1)}\n" for i in range(8))
    path = write(tmp_path, f"participant_id\tfam\n{twins}")
    assert len(set(participants.families(participants.read(path), "fam").values())) == 4


def test_an_id_that_may_be_a_session_matches_no_other_subject(tmp_path):
    table = participants.read(write(tmp_path, "participant_id\tage\n001_1\t30\n10-002\t40\n"))
    assert sorted(table.match(["0011", "10002"]).rows) == ["0011", "10002"]
    matched = table.match(["001", "0011", "10002"])
    assert list(matched.rows) == ["10002"]
    assert matched.excluded == {
        "0011": "'001_1' of participants.tsv may be a session of sub-001: spell it as the folder"
    }


def test_the_column_of_ids_is_stated_where_two_could_be(tmp_path):
    path = write(tmp_path, "id\tMRI_ID\tsite_id\n1\tA2\tx\n2\tA1\ty\n")
    with pytest.raises(DataError, match="ids in 'id' or in 'MRI_ID': name the column as `id_column`"):
        participants.read(path)
    assert list(participants.read(path, TableSettings(id_column="MRI_ID")).rows) == ["A2", "A1"]
    with pytest.raises(DataError, match="has no column MRI; it has: id, MRI_ID, site_id"):
        participants.read(path, TableSettings(id_column="MRI"))
    path = write(tmp_path, "record_id\tredcap_event_name\tpaid\tfamily_id\n1\ta\t1\t2\n")
    assert list(participants.read(path).rows) == ["1"]


@pytest.mark.parametrize(
    ("layout", "cell", "subject"),
    [
        ("ppmi", "3000", "PPMI3000"),
        ("adni", "002_S_0295", "002S0295"),
        ("hcpa", "HCA6002236", "HCA6002236V1MR"),
    ],
)
def test_labels_that_a_data_set_has_in_two_forms(tmp_path, layout, cell, subject):
    table = participants.read(write(tmp_path, f"participant_id\n{cell}\n"), TableSettings(layout=layout))
    assert list(table.match([subject]).rows) == [subject]


def test_ids_that_would_be_one_subject_are_refused(tmp_path):
    path = write(tmp_path, "participant_id\tage\nA_1\t1\nA1\t1\nsub-B1\t2\nB1\t2\n01\t3\n1\t4\n50002.0\t5\n")
    table = participants.read(path)
    assert sorted(table.rows) == ["01", "1", "50002", "B1"]
    assert table.excluded == {
        "A1": "participants.tsv has 'A_1', 'A1', which would be one subject: rename one"
    }


def test_the_second_header_of_an_archive(tmp_path):
    path = write(tmp_path, "subjectkey\tage\nThe GUID\tAge in months\nNDAR_INV0A1\t120\n")
    assert participants.read(path, TableSettings(second_header=True)).excluded == {}
    table = participants.read(path)
    assert list(table.rows) == ["NDARINV0A1"]
    assert table.excluded == {
        "The GUID": "'The GUID' is not a subject label: only letters and digits may be used"
    }


def test_a_row_is_found_however_it_is_spelt(tmp_path):
    path = write(tmp_path, "participant_id\tage\n50002.0\t1\nNDAR_INV9\t2\n7\n8\t1\n08\t1\n")
    assert participants.has_row(path, "0050002")
    assert participants.has_row(path, "NDARINV9")
    assert participants.has_row(path, "007")  # a line with too few cells
    assert participants.has_row(path, "008")  # two could be meant
    assert not participants.has_row(path, "3")


def test_a_first_participant_is_no_second_header(tmp_path):
    path = write(tmp_path, "src_subject_id\tage\nNDAR_INV01\t9\nNDAR_INV02\t10\n")
    assert list(participants.read(path, TableSettings(second_header=True)).rows) == ["NDARINV01", "NDARINV02"]


def test_ids_as_a_known_data_set_spells_them(tmp_path):
    path = write(tmp_path, "PTID,AGE\n011_S_0002,74\n", "ADNIMERGE.csv")
    assert list(participants.read(path, TableSettings(layout="adni")).rows) == ["ADNI011S0002"]
    path = write(tmp_path, "src_subject_id\tage\nHCA6002236_V1\t60\n")
    assert list(participants.read(path, TableSettings(layout="hcpa")).rows) == ["HCA6002236"]


def test_sentences_quote_little_of_a_table(tmp_path):
    long, script = "x" * 10_000, "<script>" * 1000
    name = f"{'p' * 200}.tsv"
    path = write(
        tmp_path,
        f"participant_id\t{long}\n01\t-9999\n02\t{long}\n02\t{script}\n{long}\t1\n{script}\t1\n",
        name,
    )
    table = participants.read(path)
    column, excluded = participants.values(table, long, ["01", "02", "03"])
    said = [*column.notes(), *table.notes(), *excluded.values(), *excluded]
    assert len(said) > 10
    assert max(map(len, said)) <= 200
    with pytest.raises(DataError) as error:
        table.column(script)
    assert len(str(error.value)) <= 200
