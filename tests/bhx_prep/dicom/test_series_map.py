"""A map of series and a table of subjects that cannot be used are refused in a sentence, which shows no id."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dicom_study import write_table

from bhx_model.errors import ConfigError

pytest.importorskip("pydicom", reason="pip install 'bhx[dicom]'")

from bhx_prep.dicom import dataset, series_map, subject_table


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "maps no series"),
        ("series: []", "maps no series"),
        ("series: {", "not YAML"),
        ("series: [{description: a, suffix: bold, task: rest, run: 010}]", "YAML reads 010 as 8"),
        ("series: [{description: a, suffix: bold, task: 0_1}]", "YAML reads 0_1 as 1"),
        ("series: [{description: 1:30, suffix: T1w}]", "YAML reads 1:30 as 90"),
        ("[1, 2]", "maps no series"),
        ("series: [{suffix: T1w}]", "name the series by description"),
        ("series: [{description: a}]", "give either a suffix"),
        ("series: [{description: a, suffix: T1w, ignore: true}]", "give either a suffix"),
        ("series: [{description: a, suffix: T1}]", "did you mean"),
        ("series: [{description: a, suffix: bold}]", "bold needs a task"),
        ("series: [{description: a, suffix: epi}]", "epi needs dir"),
        ("series: [{description: a, suffix: T1w, task: rest}]", "has no entity task"),
        ("series: [{description: a, suffix: bold, task: ../x}]", "not a BIDS label"),
        ("series: [{description: a, suffix: T1w, intended_for: [rest]}]", "is of field maps"),
        ("series: [{descriptions: a, suffix: T1w}]", "did you mean 'description'"),
        (
            "series: [{description: a, suffix: T1w}]\nseries: [{description: b, suffix: T1w}]",
            "occurs twice",
        ),
        ("series: [{description: a, suffix: T1w}]\ndeface: [rm, x]", "needs {in} and {out}"),
        (
            "series: [{description: a, suffix: T1w}]\nsubjects: ~nobodyatall/s.tsv",
            "no home folder for ~nobodyatall",
        ),
        (
            "series: [{description: a, suffix: T1w}]\nsubjects: $DATA/s.tsv",
            "variables such as $DATA are not replaced",
        ),
        ("series: [{description: a, suffix: T1w}]\nsubjects: ''", "no path is given"),
    ],
)
def test_maps_that_are_refused(text: str, sentence: str, tmp_path: Path):
    file = tmp_path / "map.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(sentence)) as refused:
        series_map.load(file)
    assert "map.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["patient_id participant_id"], "names no patient"),
        (["patient participant_id", "SECRET 01"], "needs one column patient_id"),
        (["patient_id participant_id", "SECRET 01", "SECRET 02"], "rows 2 and 3: the same patient twice"),
        (["patient_id participant_id", "SECRET 01", "SECRET2 01"], "rows 2 and 3: sub-01 twice"),
        (["patient_id participant_id", "SECRET a1", "SECRET2 A1"], "in capitals only"),
        (["patient_id participant_id", "SECRET ../../01"], "row 2: participant_id is no BIDS label"),
        (["patient_id participant_id session", "SECRET 01 a/b"], "row 2: session is no BIDS label"),
        (
            ["patient_id participant_id study_date", "SECRET 01 yesterday"],
            "study_date is no date: write it as 2024-01-31",
        ),
        (
            ["patient_id participant_id study_date", "SECRET 01 27.08.2019"],
            "study_date is no date: write it as 2024-01-31",
        ),
        (
            ["patient_id participant_id study_date", "SECRET 01 2019-02-30"],
            "study_date is no date: write it as 2024-01-31",
        ),
    ],
)
def test_tables_that_are_refused(rows: list[str], sentence: str, tmp_path: Path):
    write_table(tmp_path, *rows)
    with pytest.raises(ConfigError, match=re.escape(sentence)) as refused:
        subject_table.read(tmp_path / "subjects.tsv")
    assert "SECRET" not in str(refused.value)


def test_one_person_may_have_an_id_per_visit(tmp_path: Path):
    write_table(tmp_path, "patient_id participant_id session", "X1 sub-01 ses-a", "X2 01 b")
    assert [visit.session for visit in subject_table.read(tmp_path / "subjects.tsv")] == ["a", "b"]


def test_a_missing_table_says_how_to_begin_one(tmp_path: Path):
    with pytest.raises(ConfigError, match="bhx ingest list IN --subjects"):
        subject_table.read(tmp_path / "subjects.tsv")


def test_folders_within_each_other_and_tables_in_the_dataset_are_refused(tmp_path: Path):
    for source, out in (("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a/../b", "b")):
        with pytest.raises(ConfigError, match="within each other"):
            dataset.check_places(tmp_path / source, tmp_path / out, {})
    with pytest.raises(ConfigError, match="must not contain identifying data"):
        dataset.check_places(
            tmp_path / "in", tmp_path / "out", {"the table": tmp_path / "out/code/subjects.tsv"}
        )
