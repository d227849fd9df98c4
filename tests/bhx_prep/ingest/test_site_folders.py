"""Releases with a BIDS dataset per site."""

from __future__ import annotations

import pytest
from public_releases import write_site
from small_bids import rows_of, write_image

from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import index


def bold(root, **more):
    return [r for r in rows_of(root, **{"layout": "abide1", **more}) if r["modality"] == "bold"]


@pytest.mark.parametrize("above", ["", "RawDataBIDS"])
def test_every_site_is_a_dataset_with_its_own_repetition_time(tmp_path, above):
    write_site(tmp_path / above, "Pitt", ["0050003"], tr_s=1.5)
    write_site(tmp_path / above, "KKI", ["0050772"], tr_s=2.5)
    rows = bold(tmp_path)
    assert [(r["subject"], r["tr_s"], r["status"]) for r in rows] == [
        ("0050003", 1.5, "ok"),
        ("0050772", 2.5, "ok"),
    ]
    assert rows[0]["sidecar"].endswith("Pitt/task-rest_bold.json")


def test_one_site_alone_or_a_merged_dataset_may_be_the_root(tmp_path):
    write_site(tmp_path, "Pitt", ["0050003"], tr_s=1.5)
    assert [r["status"] for r in bold(tmp_path / "Pitt")] == ["ok"]


def test_sessions_and_sites_of_abide2_and_adhd200(tmp_path):
    write_site(tmp_path, "ABIDEII-BNI_1", ["29006"], session="1")
    (row,) = bold(tmp_path, layout="abide2")
    assert row["key"] == "study_sub-29006_ses-1_task-rest_run-1"


def test_a_subject_in_two_sites_is_excluded_by_name(tmp_path):
    write_site(tmp_path, "UCLA_1", ["0051201"])
    write_site(tmp_path, "UCLA_Long", ["0051201"])
    (row,) = bold(tmp_path)
    assert row["status"] == "excluded"
    assert "in the folders of UCLA_1 and UCLA_Long: make each site a cohort" in row["reason"]


def test_a_folder_that_names_no_subject_is_a_row(tmp_path):
    write_site(tmp_path, "Pitt", ["0050003"])
    (tmp_path / "Pitt" / "sub-a b").mkdir()
    assert [r["status"] for r in bold(tmp_path)] == ["ok", "excluded"]


def test_a_subject_that_is_asked_for_and_not_there(tmp_path):
    write_site(tmp_path, "Pitt", ["0050003"])
    (row,) = bold(tmp_path, subjects=("0050099",))
    assert "expected <site>/sub-<label>" in row["reason"]


def test_derivatives_of_each_site(tmp_path):
    func = tmp_path / "Pitt" / "sub-0050003" / "func"
    name = "sub-0050003_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    write_image(func / name, frames=10, tr_s=1.5)
    (row,) = bold(tmp_path, input="fmriprep")
    assert row["subject"] == "0050003"
    assert row["path"].endswith(name)


def test_folders_of_bids_are_no_sites(tmp_path):
    write_site(tmp_path, "Pitt", ["0050003"])
    for name in ("derivatives", "sourcedata", "freesurfer"):
        (tmp_path / name / "sub-0050003").mkdir(parents=True)
    assert [r["status"] for r in bold(tmp_path)] == ["ok"]


def test_the_t1w_of_the_models_grid_is_taken_at_every_site(tmp_path):
    anat = tmp_path / "NYU/sub-1/anat"
    for res, mm in (("1", 45), ("2", 90)):
        name = f"sub-1_space-MNI152NLin2009cAsym_res-{res}_desc-preproc_T1w.nii.gz"
        write_image(anat / name, zooms=(mm, mm, mm))
    cohort = CohortSection(input="fmriprep", root=tmp_path, layout="abide1")
    for t1w_mm, res in ((45, "1"), (90, "2")):
        rows = index.build("a", cohort, t1w_mm=t1w_mm).to_pylist()
        [row] = [r for r in rows if r["modality"] == "t1w" and r["status"] == "ok"]
        assert f"_res-{res}_" in row["path"]
