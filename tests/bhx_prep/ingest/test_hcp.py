"""Folders of the HCP pipelines become rows of the index."""

from __future__ import annotations

import known_cohorts as known
import pytest

from bhx_model.errors import ConfigError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import hcp, index

SERIES = known.series()


def _rows(root, layout="hcpya", **more):
    section = CohortSection(input="fmriprep", layout=layout, root=root, **more)
    return index.build("a", section).to_pylist()


def test_the_four_runs_of_a_young_adult(tmp_path):
    for run in ("REST1_LR", "REST1_RL", "REST2_LR", "REST2_RL"):
        known.hcp_run(tmp_path / "100307", f"rfMRI_{run}", SERIES)
    known.hcp_t1w(tmp_path / "100307")
    rows = _rows(tmp_path)
    assert [row["key"] for row in rows if row["modality"] == "bold"] == [
        f"a_sub-100307_task-rest_dir-{direction}_run-{run}" for direction in ("LR", "RL") for run in (1, 2)
    ]
    assert all(row["status"] == "ok" for row in rows)
    assert {row["tr_s"] for row in rows if row["modality"] == "bold"} == {0.72}
    assert {row["anat"] for row in rows if row["modality"] == "bold"} == {"a_sub-100307"}
    assert all(
        row["confounds"].endswith("Movement_Regressors.txt") for row in rows if row["modality"] == "bold"
    )


def test_denoised_data_are_not_denoised_again(tmp_path):
    section = CohortSection(input="fmriprep", layout="hcpya", root=tmp_path)
    assert (section.strategy, section.space) == ("none", "fsLR")


@pytest.mark.parametrize("below", [".", "fmriresults01"])
def test_visits_of_aging_are_sessions_and_joined_runs_are_left_out(tmp_path, below):
    for visit in ("V1", "V2"):
        folder = tmp_path / below / f"HCA6002236_{visit}_MR"
        for run in ("rfMRI_REST1_AP", "rfMRI_REST"):
            known.hcp_run(folder, run, SERIES, cleaned="hp0_clean", tr_s=0.8)
    rows = [row for row in _rows(tmp_path, "hcpa") if row["modality"] == "bold"]
    assert [row["key"] for row in rows] == [
        f"a_sub-HCA6002236_ses-{visit}_task-rest_dir-AP_run-1" for visit in ("V1", "V2")
    ]
    assert {row["tr_s"] for row in rows} == {0.8}


def test_msmall_comes_before_alignment_by_folding(tmp_path):
    path = known.hcp_run(tmp_path / "100307", "rfMRI_REST1_LR", SERIES)
    plain = path.with_name("rfMRI_REST1_LR_Atlas_hp2000_clean.dtseries.nii")
    plain.write_bytes(path.read_bytes())
    bold = next(row for row in _rows(tmp_path) if row["modality"] == "bold")
    assert (bold["path"], bold["notes"]) == (str(path), [])
    path.unlink()
    bold = next(row for row in _rows(tmp_path) if row["modality"] == "bold")
    assert bold["path"] == str(plain)
    assert "no MSMAll" in bold["notes"][0]


def test_motion_is_noted_where_it_is_not_known(tmp_path):
    path = known.hcp_run(tmp_path / "100307", "rfMRI_REST1_LR", SERIES)
    path.with_name("Movement_Regressors.txt").unlink()
    bold = next(row for row in _rows(tmp_path) if row["modality"] == "bold")
    assert bold["confounds"] is None
    assert bold["notes"] == ["motion not measured as usual: there is no Movement_Regressors.txt"]


def test_tasks_are_listed_where_they_are_asked_for(tmp_path):
    known.hcp_run(tmp_path / "100307", "tfMRI_EMOTION_LR", SERIES)
    assert "there is: EMOTION" in _rows(tmp_path)[0]["reason"]
    bold = next(row for row in _rows(tmp_path, tasks=("EMOTION",)) if row["modality"] == "bold")
    assert (bold["status"], bold["task"]) == ("ok", "EMOTION")


def test_another_space_is_refused(tmp_path):
    known.hcp_run(tmp_path / "100307", "rfMRI_REST1_LR", SERIES)
    bold = next(row for row in _rows(tmp_path, space="MNI152NLin2009cAsym") if row["modality"] == "bold")
    assert "there is: fsLR, MNI152NLin6Asym" in bold["reason"]


def test_volumes_are_used_where_the_space_is_mni(tmp_path):
    folder = tmp_path / "100307" / "MNINonLinear" / "Results" / "rfMRI_REST1_LR"
    known.write(folder / "rfMRI_REST1_LR_hp2000_clean.nii.gz", known.native_bold())
    known.write(folder / "brainmask_fs.2.nii.gz", known.t1w())
    bold = next(row for row in _rows(tmp_path, space="MNI152NLin6Asym") if row["modality"] == "bold")
    assert (bold["status"], bold["kind"], bold["n_frames"]) == ("ok", "volume", 40)
    assert bold["mask"].endswith("brainmask_fs.2.nii.gz")


@pytest.mark.parametrize(("spelt", "label"), [("HCA6002236_V1", "HCA6002236"), ("100307.0", "100307")])
def test_ids_of_tables(spelt, label):
    assert hcp.label(spelt) == label


def test_the_fine_mesh_of_7_tesla_is_refused(tmp_path):
    run = tmp_path / "100610/MNINonLinear/Results/rfMRI_REST1_7T_PA"
    known.write(run / "rfMRI_REST1_7T_PA_Atlas_1.6mm_MSMAll_hp2000_clean.dtseries.nii", b"x")
    bold = next(row for row in _rows(tmp_path) if row["modality"] == "bold")
    assert bold["key"] == "a_sub-100610_task-rest_acq-7T_dir-PA_run-1"
    assert "59k vertices only" in bold["reason"]


def test_select_takes_some_runs_and_prefer_is_refused(tmp_path):
    for run in ("REST1_LR", "REST1_RL"):
        known.hcp_run(tmp_path / "100307", f"rfMRI_{run}", SERIES)
    rows = [row for row in _rows(tmp_path, select={"dir": ("LR",)}) if row["modality"] == "bold"]
    assert [row["status"] for row in rows] == ["ok", "excluded"]
    assert rows[1]["reason"] == "left out by `select`, which asks for dir-LR"
    with pytest.raises(ConfigError, match="use `select` or `exclude`"):
        _rows(tmp_path, prefer={"dir": ("LR",)})
