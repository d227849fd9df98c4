"""ADHD-200: ROI tables of the Athena pipeline."""

from __future__ import annotations

import csv

import pytest
from public_releases import series, write_athena_table, write_site
from small_bids import rows_of

from bhx_prep.config import recipes
from bhx_prep.ingest.layouts import load


def write(folder, label="0010001", kinds=("sfnwmrda", "snwmrda"), session=1, run=1):
    for kind in kinds:
        name = f"{kind}{label}_session_{session}_rest_{run}_cc200_TCs.1D"
        write_athena_table(folder / name, series(6))


def rows(root, **more):
    return rows_of(root, "a", **{"input": "timeseries", "layout": "adhd200", **more})


def test_runs_of_a_site(tmp_path):
    write(tmp_path / "NYU" / "0010001")
    write(tmp_path / "NYU" / "0010001", run=2)
    found = rows(tmp_path)
    assert [(r["key"], r["tr_s"], r["status"]) for r in found] == [
        ("a_sub-0010001_ses-1_task-rest_run-1", 2.0, "ok"),
        ("a_sub-0010001_ses-1_task-rest_run-2", 2.0, "ok"),
    ]


def test_the_filtered_table_is_taken_and_that_is_noted(tmp_path):
    write(tmp_path / "KKI" / "1018959", "1018959")
    (row,) = rows(tmp_path)
    assert "/sfnwmrda1018959" in row["path"]
    assert row["tr_s"] == 2.5
    assert any(note.startswith("file chosen among several: sfnwmrda1018959") for note in row["notes"])


def test_series_takes_the_unfiltered_one(tmp_path):
    write(tmp_path / "KKI" / "1018959", "1018959")
    (row,) = rows(tmp_path, series="**/snwmrda*")
    assert "/snwmrda1018959" in row["path"]
    assert not any("chosen among several" in note for note in row["notes"])


def test_a_subject_who_was_scanned_otherwise_than_the_site(tmp_path):
    write(tmp_path / "Pittsburgh" / "0016041", "0016041")
    assert rows(tmp_path)[0]["tr_s"] == 3.0


def test_without_folders_the_site_is_from_the_table_of_phenotypes(tmp_path):
    write(tmp_path)
    (row,) = rows(tmp_path)
    assert "whose name holds no site is not known" in row["reason"]
    other = tmp_path / "other"
    write(other)
    (other / "adhd200_preprocessed_phenotypics.tsv").write_text("ScanDir ID\tSite\tDX\n10001\t6\t1\n")
    assert rows(other)[0]["tr_s"] == 2.5


def test_raw_data_keep_the_zeros_of_their_ids(tmp_path):
    write_site(tmp_path, "NYU", ["0010001"], session="1")
    found = rows(tmp_path, input="bids")
    assert {r["subject"] for r in found} == {"0010001"}
    assert {r["status"] for r in found} == {"ok"}


@pytest.mark.parametrize(
    ("spelt", "is_"), [("10001", "0010001"), ("1018959", "1018959"), ("10001.0", "0010001")]
)
def test_ids_of_the_table_are_labels_of_the_files(spelt, is_):
    assert load("adhd200").label(spelt) == is_


def test_times_are_those_of_the_raw_release(shared):
    """Every run of the release states the time that the table has for its site."""
    with shared("data/phenotype/ADHD200_BIDS_index.csv").open() as file:
        runs = list(csv.DictReader(file))
    for run in runs:
        known = recipes.times("adhd200").of(run["sub"], run["dataset"])
        assert float(run["tr"]) == pytest.approx(known, abs=0.001), str(run)
