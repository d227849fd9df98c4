"""What `bhx config check` says of tables of phenotypes."""

from __future__ import annotations

import json
import time

import pytest

from bhx_prep.cli import main
from bhx_prep.config import config
from bhx_prep.evaluation.phenotype_checks import check_tables, subjects_of

IDS = [f"{i:07d}" for i in range(50002, 50022)]
AGE = {"cohort": "a", "column": "age", "kind": "regression"}
DX = {"cohort": "a", "column": "dx", "kind": "binary", "classes": ["control", "autism"]}


@pytest.fixture
def study(tmp_path):
    """Check a table: ``study(rows, endpoint, ids=...)``; 20 subjects have a folder."""
    for label in IDS:
        (tmp_path / f"sub-{label}").mkdir()

    def check(columns, /, *endpoints, **cohort):
        names = list(columns)
        lines = ["\t".join(names), *("\t".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        (tmp_path / "participants.tsv").write_text("\n".join(lines) + "\n")
        raw = {
            "cohorts": {"a": {"input": "fmriprep", "root": str(tmp_path), **cohort}},
            "endpoints": {f"e{i}": endpoint for i, endpoint in enumerate(endpoints)},
        }
        found = check_tables(config.check(raw))
        assert all(len(line) <= 200 for line in [*found.mistakes, *found.warnings, *found.notes])
        return found

    return check


def table(ids=IDS, **columns):
    return {"participant_id": ids, "age": range(20, 40), "dx": ["control", "autism"] * 10, **columns}


def test_an_endpoint_is_compared_with_its_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "participants.tsv"
    path.write_text("participant_id\tdiagnosis\tsite\n01\tcontrol\tA\n02\tpatient\tB\n03\tn/a\tB\n")
    both = {"cohort": "a", "column": "diagnosis", "kind": "binary", "classes": ["control", "patient"]}
    study = {
        "cohorts": {"a": {"input": "bids", "root": str(tmp_path)}, "later": {"input": "bids", "root": "no"}},
        "endpoints": {
            "one": both | {"column": "diagnosi"},
            "two": both | {"classes": ["controls", "patient"], "stratify": ["siet"]},
            "three": {"cohort": "later", "column": "x", "kind": "regression"},
            "four": both,
        },
    }
    expected = [
        "endpoints.one.column: participants.tsv has no column 'diagnosi'; did you mean 'diagnosis'?",
        "endpoints.two.stratify: participants.tsv has no column 'siet'; did you mean 'site'?",
        "endpoints.two.classes: no participant is 'controls' in column 'diagnosis' of participants.tsv;"
        " there are: control, patient",
    ]
    assert check_tables(config.check(study)).mistakes == expected
    (tmp_path / "config.yaml").write_text(json.dumps(study))
    assert main(["config", "check"]) == 1
    error = capsys.readouterr().err
    assert all(line in error for line in expected)
    path.write_text("")
    assert (
        check_tables(config.check(study)).mistakes[0] == "cohorts.a.participants: participants.tsv is empty"
    )


def test_all_that_is_wrong_is_said_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cohorts = {}
    for name, text in {"a": "", "b": "x\ty\n1\t2\n", "c": "participant_id\tage\n1\t2\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "participants.tsv").write_text(text)
        cohorts[name] = {"input": "timeseries", "root": name, "names": "none.txt"}
    cohorts["d"] = {"input": "fmriprep", "root": "d", "space": "MNI152NLin6Asym"}
    endpoints = {name: {"cohort": name, "column": "iq", "kind": "regression"} for name in "abc"}
    (tmp_path / "config.yaml").write_text(json.dumps({"cohorts": cohorts, "endpoints": endpoints}))
    assert main(["config", "check"]) == 1
    error = capsys.readouterr().err
    said = ["cohorts.a.participants: participants.tsv is empty", "cohorts.b.participants: ", "endpoints.c.column: ",
            "cohorts.a.names: ", "cohorts.c.names: ", "cohorts.d.space: "]  # fmt: skip
    assert [one for one in said if one not in error] == []


@pytest.mark.parametrize(
    "spell",
    [
        str,
        "SUB-{}".format,
        "Sub-{}".format,
        "sub_{}".format,
        lambda i: str(int(i)),
        lambda i: str(float(i)),
        lambda i: f"00{i}",
        lambda i: f"{i[:3]}_{i[3:]}",
    ],
)
def test_ids_that_can_be_brought_together_are(study, spell):
    ids = [spell(label) for label in IDS]
    found = study(table(ids), AGE, DX)
    assert (found.mistakes, found.warnings) == ([], [])
    said = [] if ids == IDS else [
        f"cohorts.a: table read with an assumption: 20 ids of participants.tsv are spelt otherwise than the subjects', "
        f"e.g. '{ids[0]}' for 0050002"
    ]  # fmt: skip
    assert found.notes == said


def test_ids_without_a_subject_are_reported(study):
    found = study(table([f"NDAR_INV{i}" for i in IDS]), AGE, DX)
    assert found.mistakes == [
        "cohorts.a.participants: no id of participants.tsv is one of the 20 subjects: 'NDAR_INV0050002', "
        "'NDAR_INV0050003', 'NDAR_INV0050004' there, sub-0050002, sub-0050003, sub-0050004 here"
    ]


def test_sessions_as_rows(study):
    sessions = table(IDS * 2, age=range(40), dx=["control", "autism"] * 20, ses=[1] * 20 + [2] * 20)
    found = study(sessions, AGE, DX)
    assert found.mistakes == [
        "endpoints.e0.column: none of 20 participants has a value, e.g. 0050002: age differs between its 2 rows "
        "('0', '20'): keep one ses per participant"
    ]
    assert "20 participants have several rows" in found.notes[0]


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([f"{1 + i}-Mar" for i in range(20)], "'1-Mar' is a date, which spreadsheets make of ids"),
        (["5.0E+04"] * 20, "is a rounded number, which spreadsheets make of long ids"),
        ([f"a b{i}" for i in range(20)], "is not a subject label"),
    ],
)
def test_ids_that_a_spreadsheet_destroyed(study, ids, says):
    (mistake,) = study(table(ids), AGE).mistakes
    assert "rows of participants.tsv can be used" in mistake
    assert says in mistake


def test_some_ids_match_no_subject(study):
    found = study(table([*IDS[:17], "x1", "x2", "x3"]), AGE)
    assert found.warnings == [
        "cohorts.a.participants: 3 of 20 subjects have no row in participants.tsv, e.g. sub-0050019, sub-0050020, "
        "sub-0050021"
    ]


@pytest.mark.parametrize("code", [999, 9999, 888888, -9, -2])
def test_values_far_from_the_rest(study, code):
    ages = [code if i % 7 == 3 else 20 + i for i in range(20)]
    (warning,) = study(table(age=ages), AGE).warnings
    assert warning == (
        f"endpoints.e0.column: age is {code:g} (3 x), far from all others: if that means unknown, name it in the cohort's"
        " `missing`"
    )
    assert study(table(age=ages), AGE, missing=[code]).warnings == []


def test_constant_columns_and_unknown_ones(study):
    found = study(table(age=[7] * 20, site=["A"] * 20), AGE | {"stratify": ["site"]})
    assert found.mistakes == [
        "endpoints.e0.column: age is 7 for all 20 participants: nothing can be predicted"
    ]
    assert found.warnings == ["endpoints.e0.stratify: 'site' of participants.tsv is 'A' for everybody"]
    found = study(table(age=["-9999"] * 20), AGE)
    assert found.mistakes == [
        "endpoints.e0.column: none of 20 participants has a value, e.g. 0050002: age is unknown (-9999) in participants.tsv"
    ]
    found = study(table(dx=["n/a"] * 20), DX)
    assert "none of 20 participants has a value" in found.mistakes[0]


@pytest.mark.parametrize(
    ("cells", "classes", "says"),
    [
        (["Autism", "control"], ["control", "autism"], "did you mean 'Autism'?"),
        (["yes", "no"], ["control", "autism"], "there are: no, yes"),
    ],
)
def test_classes_that_never_occur(study, cells, classes, says):
    found = study(table(dx=cells * 10), DX | {"classes": classes})
    assert found.mistakes
    assert says in found.mistakes[0]


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["1.0", "2.0"], [1, 2]),
        (["1", "2"], ["01", "02"]),
        (["1", "2.00"], [1.0, 2.0]),
        (["1,0", "2,0"], [1, 2]),
    ],
)
def test_classes_that_are_equal_numbers_are_one(study, cells, classes):
    found = study(table(dx=cells * 10), DX | {"classes": classes})
    assert (found.mistakes, found.warnings) == ([], [])


def test_a_class_in_two_spellings(study):
    found = study(table(dx=["control", "autism", "Autism", "control"] * 5), DX)
    assert found.mistakes == []
    assert found.warnings == [
        "endpoints.e0.classes: 5 participants are 'Autism', which is not 'autism': add it to the class if it is meant"
    ]


def test_families(study):
    found = study(table(fam=[str(i // 2) for i in range(20)]), AGE, family="fam")
    assert found.notes == ["cohorts.a.family: 10 families, 10 of several members; 0 participants have none"]
    assert "has no column 'fam'" in study(table(), AGE, family="fam").mistakes[0]
    assert "nobody has a family" in study(table(fam=["n/a"] * 20), AGE, family="fam").mistakes[0]


def test_subjects_are_known_by_names_alone(tmp_path):
    def subjects(series, **more):
        section = {"input": "timeseries", "root": str(tmp_path), "series": series, **more}
        return subjects_of(config.check({"cohorts": {"a": section}}).cohorts["a"])

    (tmp_path / "tables").mkdir()
    for label in ("01", "02"):
        (tmp_path / f"tables/{label}_bold.csv").touch()
    assert subjects("tables/{subject}_*.csv") == {"01", "02"}
    assert subjects("tables/{subject}_*.csv", subjects=["02"]) == {"02"}
    assert subjects("**/{subject}_*.csv") is None
    (tmp_path / "sub-7").mkdir()
    assert subjects("sub-{subject}/**/*_timeseries.*") == {"7"}


def test_a_large_table_is_checked_in_seconds(tmp_path):
    n = 20_000
    rows = [f"sub-{i}\t{i % 60}\t{i % 2}\t{i // 2}\t" + "x\t" * 20 + "y" for i in range(n)]
    header = "participant_id\tage\tdx\tfam\t" + "\t".join(f"c{i}" for i in range(21))
    (tmp_path / "participants.tsv").write_text("\n".join([header, *rows]) + "\n")
    raw = {
        "cohorts": {"a": {"input": "fmriprep", "root": str(tmp_path), "family": "fam"}},
        "endpoints": {"age": AGE, "dx": DX | {"classes": [0, 1]}},
    }
    began = time.process_time()
    assert check_tables(config.check(raw)).mistakes == []
    assert time.process_time() - began < 4


def test_columns_of_covariates_are_looked_for(study):
    rows = table(age=range(20), dx=["control", "autism"] * 10, FD=["still"] + [0.1] * 19, empty=["n/a"] * 20)
    found = study(rows, AGE, columns={"age": "age", "site": "centre", "motion": "FD", "sex": "empty"})
    assert [line.split(": ")[0] for line in found.mistakes] == [
        "cohorts.a.columns.site",
        "cohorts.a.columns.sex",
    ]
    assert "has no column 'centre'" in found.mistakes[0]
    assert "is unknown for everybody" in found.mistakes[1]
    assert any(line.startswith("cohorts.a.columns.motion: read as missing of 1") for line in found.warnings)


@pytest.mark.parametrize(
    ("covariate", "cells", "said"),
    [
        ("age", [-99] * 4 + list(range(20, 36)), "age.. is -99 (4 x), far from all others"),
        ("age", [999] * 4 + list(range(20, 36)), "age.. is 999 (4 x), far from all others"),
        ("age", [-30 - i for i in range(4)] + list(range(20, 36)), "4 are negative, e.g. -33"),
        ("motion", [-0.5, -0.4, *[0.1 + i / 90 for i in range(18)]], "2 are negative, e.g. -0.5"),
        ("sex", ["M", "m", *["F"] * 18], "has 'M' and 'm', which are two levels"),
        ("sex", [1, 2] * 9 + ["1.0", 2], ""),  # one level where they are read
        ("site", ["Zürich"] * 10 + ["Zu\u0308rich"] * 10, "which are two levels"),
        ("sex", IDS, "has 20 levels of 20 participants"),
        ("sex", ["M"] * 20, "is 'M' for everybody"),
        ("age", list(range(20, 40)), ""),
        ("sex", ["M", "F"] * 10, ""),
    ],
)
def test_covariates_that_are_codes_or_levels_in_two_spellings(study, covariate, cells, said):
    found = study(table(cov=cells), AGE, columns={covariate: "cov"})
    here = [line for line in found.warnings if line.startswith(f"cohorts.a.columns.{covariate}: ")]
    assert not found.mistakes
    assert len(here) == bool(said)
    assert all(part in line for line in here for part in said.removeprefix("age").split(".."))


def test_a_label_that_counts_the_subjects(study):
    found = study(table(number=[int(label) for label in IDS]), AGE | {"column": "number"})
    assert found.warnings == [
        "endpoints.e0.column: number is the number in the subjects' ids: name what is to be predicted"
    ]


def test_a_class_that_differs_by_an_accent_as_it_is_stored(study):
    found = study(table(dx=["control", "autiste\u0301"] * 10), DX | {"classes": ["control", "autisté"]})
    assert "did you mean" in found.mistakes[0]


def test_a_table_that_an_endpoint_needs_is_missed_once_its_cohort_is_there(tmp_path):
    (tmp_path / "a").mkdir()
    cohorts = {name: {"input": "bids", "root": str(tmp_path / name)} for name in ("a", "later")}
    endpoints = {"e": AGE, "f": AGE | {"cohort": "later"}}
    found = check_tables(config.check({"cohorts": cohorts, "endpoints": endpoints}))
    assert found.warnings == [
        "cohorts.a.participants: no table participants.tsv in a (yet), which endpoint e needs"
    ]
    assert not found.mistakes


def test_the_column_of_sites_to_leave_out_is_named_by_its_own_key(study):
    splits = {"scheme": "leave-one-site-out", "site": "wave"}
    (said,) = study(table(), DX | {"splits": splits}).mistakes
    assert said.startswith("endpoints.e0.splits.site: participants.tsv has no column 'wave'")


def test_a_file_of_splits_that_is_not_there_is_no_table_of_phenotypes(study):
    (said,) = study(table(), DX | {"splits": {"scheme": "file", "file": "lists.csv"}}).mistakes
    assert (
        said == "endpoints.e0.splits.file: there is no file of splits lists.csv: add it, or correct its path"
    )


def test_more_seeds_than_a_file_has_splits(study, tmp_path):
    file = tmp_path / "lists.csv"
    file.write_text("id,one\n" + "".join(f"{i},train\n" for i in IDS))
    found = study(table(), DX | {"seeds": 5, "splits": {"scheme": "file", "file": str(file)}})
    assert found.warnings == ["endpoints.e0.seeds: 5 are asked for, the splits are 1: all of these are made"]


def test_the_cohort_that_codes_its_classes_otherwise_is_named(tmp_path):
    cohorts = {}
    for name, cells in (("a", ["control", "autism"]), ("b", ["1", "2"])):
        (tmp_path / name / "sub-01").mkdir(parents=True)
        (tmp_path / name / "sub-02").mkdir()
        (tmp_path / name / "participants.tsv").write_text(
            f"participant_id\tdx\n01\t{cells[0]}\n02\t{cells[1]}\n"
        )
        cohorts[name] = {"input": "fmriprep", "root": str(tmp_path / name)}
    found = check_tables(config.check({"cohorts": cohorts, "endpoints": {"e": DX | {"test_on": ["b"]}}}))
    assert [said.split(": ")[0] for said in found.mistakes] == ["endpoints.e.test_on.b.classes"] * 2


def test_a_cohort_that_is_tested_on_another_scale_is_a_warning(tmp_path):
    cohorts = {}
    for name, factor in (("a", 1), ("b", 0.1)):
        (tmp_path / name).mkdir()
        rows = "".join(f"{i:02d}\t{factor * (80 + i):g}\n" for i in range(20))
        (tmp_path / name / "participants.tsv").write_text(f"participant_id\tage\n{rows}")
        cohorts[name] = {"input": "fmriprep", "root": str(tmp_path / name)}
    found = check_tables(config.check({"cohorts": cohorts, "endpoints": {"e": AGE | {"test_on": ["b"]}}}))
    assert found.warnings == [
        "endpoints.e.test_on.b: its median is 8.95, trained on are 80 to 99: is it the same scale?"
    ]


def test_labels_that_are_codes_or_follow_from_what_is_no_image(study):
    codes = {"cohort": "a", "column": "dx", "kind": "regression"}
    found = study(table(dx=[1, 2] * 10), codes)
    assert found.warnings == [
        "endpoints.e0.kind: regression of 20 values that are all 1, 2: if these are codes, use `kind: binary`"
    ]
    where = table(SITE_ID=["NYU", "PITT"] * 10, old=["no"] * 10 + ["yes"] * 10)
    told = (
        "endpoints.e0.column: dx follows from 'SITE_ID' (site): no score could be told from one of sites, name another "
        "column"
    )
    assert study(where, DX | {"stratify": ["SITE_ID"]}).mistakes == [told]
    assert study(where, DX, columns={"site": "SITE_ID"}).mistakes == [told]
    assert study(where, DX).mistakes == [told]  # a column of such a name, whether or not the cohort names it
    free = table(tester=["NYU", "PITT"] * 10)
    assert study(free, DX).mistakes == []
    assert study(free, DX, columns={"age": "age"}).mistakes == []
    most = table(SITE_ID=["NYU", "PITT"] * 9 + ["NYU", "NYU"])
    (said,) = study(most, DX).warnings
    assert said.startswith("endpoints.e0.column: dx follows from 'SITE_ID' (site) of 19 of 20 people")
    old = DX | {"column": "old", "classes": ["no", "yes"]}
    found = study(where, old, columns={"age": "age"})
    assert (
        "endpoints.e0.column: old follows from 'age' (age): whatever tells that tells the label"
        in found.warnings
    )


def test_how_scans_were_made_is_no_phenotype(study):
    fd = AGE | {"column": "fd"}
    assert study(table(fd=range(20)), fd, columns={"motion": "fd"}).warnings == [
        "endpoints.e0.column: fd is the cohort's motion: how a scan was made, no phenotype"
    ]
    dates = table(day=[20190101 + i for i in range(20)])
    assert study(dates, AGE | {"column": "day"}).warnings == [
        "endpoints.e0.column: values such as 20190101 look like dates: name what is to be predicted"
    ]
    year = table(dx=["control"] * 10 + ["autism"] * 10, day=["2011-05-03"] * 10 + ["2012-05-03"] * 10)
    assert study(year, DX, columns={"scan_year": "day"}).warnings == [
        "endpoints.e0.column: dx follows from 'day' (scan_year): whatever tells that tells the label"
    ]


def test_who_is_of_no_class_is_counted(study):
    found = study(table(dx=["control", "autism"] * 8 + ["9999", "?", "?", "n/a"]), DX)
    assert "endpoints.e0: 3 participants are of no class: '?' (2 x), '9999' (1 x)" in found.notes


def test_levels_that_balance_nothing(study):
    found = study(table(place=["NYU", "nyu ", "PITT", "PITT"] * 5), DX | {"stratify": ["place"]})
    assert found.warnings == [
        "endpoints.e0.stratify: 'place' has 'NYU' and 'nyu', which are two levels: spell them alike"
    ]
    numbers = study(table(place=["1", "1.0", "-1", "10"] * 5), DX | {"stratify": ["place"]})
    assert numbers.warnings == [
        "endpoints.e0.stratify: 'place' has '1' and '1.0', which are two levels: spell them alike"
    ]
    assert study(table(), DX | {"stratify": ["age"]}).warnings == [
        "endpoints.e0.stratify: 'age' has 20 levels of 20 participants: too few share one"
    ]


def test_the_column_of_ids_is_no_phenotype(study):
    found = study({"SUB_ID": IDS, "dx": ["control", "autism"] * 10}, AGE | {"column": "SUB_ID"}, DX)
    assert found.mistakes == [
        "endpoints.e0.column: 'SUB_ID' of participants.tsv is the column of ids, no phenotype"
    ]


def test_one_split_that_a_file_has_twice_is_a_warning(study, tmp_path):
    part = ["train", "train", "train", "val", "test"] * 4
    lines = [
        "id,one,two,three",
        *(f"{i},{p},{p},{'train' if p == 'val' else p}" for i, p in zip(IDS, part, strict=True)),
    ]
    (tmp_path / "lists.csv").write_text("\n".join(lines) + "\n")
    file = DX | {"splits": {"scheme": "file", "file": str(tmp_path / "lists.csv")}}
    assert study(table(), file).warnings == [
        "endpoints.e0.splits.file: 'one' and 'two' of lists.csv are the same split"
    ]
