"""ABIDE: ROI tables of the Preprocessed Connectomes Project."""

from __future__ import annotations

import csv
import json

import pytest
from public_releases import STRATEGY, series, write_pcp_table
from small_bids import rows_of

from bhx_prep.config import recipes
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import participants
from bhx_prep.ingest.layouts import load


def write(root, *names, folder=STRATEGY, rois="rois_cc200"):
    for name in names:
        write_pcp_table(root / folder / f"{name}_{rois}.1D", series(6))


def rows(root, **more):
    return rows_of(root, "a", **{"input": "timeseries", "layout": "abide1", **more})


def test_the_site_of_a_file_determines_its_repetition_time(tmp_path):
    write(tmp_path, "Pitt_0050003", "CMU_b_0050651", "Leuven_2_0050748")
    found = rows(tmp_path)
    assert [(r["subject"], r["tr_s"], r["status"]) for r in found] == [
        ("0050003", 1.5, "ok"),
        ("0050651", 1.5, "ok"),
        ("0050748", 1.67, "ok"),
    ]
    assert found[0]["notes"] == ["repetition time chosen: 1.5 s, as the raw scans of site Pitt have it"]


def test_tables_are_found_where_nilearn_puts_them(tmp_path):
    write(tmp_path, "NYU_0050952", folder="ABIDE_pcp/cpac/nofilt_noglobal")
    assert [r["key"] for r in rows(tmp_path)] == ["a_sub-0050952_task-rest"]


def test_a_site_that_is_not_known_is_not_guessed(tmp_path):
    write(tmp_path, "Nowhere_0050003")
    (row,) = rows(tmp_path)
    assert row["status"] == "excluded"
    assert row["reason"].startswith("the repetition time of site Nowhere is not known: state `tr_s`")
    (row,) = rows(tmp_path, tr_s=2.0)
    assert (row["status"], row["tr_s"]) == ("ok", 2.0)


def test_the_users_repetition_time_counts_and_is_noted_where_the_site_has_another(tmp_path):
    write(tmp_path, "Pitt_0050003")
    (row,) = rows(tmp_path, tr_s=2.0)
    assert row["tr_s"] == 2.0
    assert "raw scans of site Pitt have 1.5 s" in row["notes"][0]


def test_several_strategies_of_one_run_are_chosen_from_with_series(tmp_path):
    write(tmp_path, "Pitt_0050003")
    write(tmp_path, "Pitt_0050003", folder="Outputs/cpac/nofilt_noglobal/rois_cc200")
    (row,) = rows(tmp_path)
    assert row["status"] == "excluded"
    assert "2 tables of one run" in row["reason"]
    assert "choose with `series`" in row["reason"]
    (row,) = rows(tmp_path, series="**/nofilt_noglobal/*")
    assert row["status"] == "ok"
    assert "nofilt_noglobal" in row["path"]


def test_a_series_that_matches_nothing_is_named(tmp_path):
    write(tmp_path, "Pitt_0050003")
    (row,) = rows(tmp_path, series="**/filt_noglobal/*")
    assert "no table of this subject matches '**/filt_noglobal/*'" in row["reason"]


def test_parts_of_downloads_are_no_tables(tmp_path):
    write(tmp_path, "Pitt_0050003")
    (tmp_path / STRATEGY / ".part-0123456789ab.Pitt_0050004_rois_cc200.1D").write_text("1\t2\n")
    assert [r["subject"] for r in rows(tmp_path)] == ["0050003"]


@pytest.mark.parametrize("spelt", ["50003", "50003.0", "0050003", "sub-0050003", " 50003 "])
def test_ids_of_the_table_are_labels_of_the_files(spelt):
    assert load("abide1").label(spelt) == "0050003"


def test_ids_of_abide2_have_five_digits():
    assert load("abide2").label("29006.0") == "29006"


def test_times_are_those_of_the_raw_release(shared):
    """Every run of the release states the time that the table has for its site."""
    with shared("data/phenotype/ABIDE_BIDS_index.csv").open() as file:
        runs = [row for row in csv.DictReader(file) if row["suffix"] == "bold"]
    for run in runs:
        known = recipes.times("abide1").of(run["sub"], run["dataset"])
        assert float(run["tr"]) == pytest.approx(known, abs=0.001), json.dumps(run)


def test_the_released_table_is_read_by_its_ids_and_codes(shared):
    path = shared("data/phenotype/Phenotypic_V1_0b_preprocessed1.csv.gz")
    section = CohortSection(input="timeseries", layout="abide1", root=path.parent, participants=path)
    table = participants.read(path, section.table).match(["0050003", "0051481"])
    assert table.column("DX_GROUP").known["0050003"] == "1"
    assert table.column("FIQ").missing["-9999"] > 0
    assert "-9999" not in table.column("FIQ").known.values()
