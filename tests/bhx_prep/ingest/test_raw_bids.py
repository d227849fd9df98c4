"""`input: bids`: reference datasets, and every fault that raw data can have as a row with a reason."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_bids import rows_of, the_bold, write_image, write_json, write_subject

from bhx_model.contract import check_key
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import index

LIVING = "livingnonlivingdecisionwithplainormirrorreversedtext"


@pytest.mark.parametrize(
    ("name", "tasks", "n_bold", "n_t1w", "tr_s"),
    [
        (
            "7t_trt",
            ("rest",),
            132,
            22,
            {3.0, 4.0},
        ),  # sessions, runs, acquisitions; T1w in the first session only
        ("ds001", ("balloonanalogrisktask",), 48, 16, {2.0}),
        ("ds005", ("mixedgamblestask",), 48, 16, {2.0}),
        ("ds006", (LIVING,), 164, 28, {2.0}),
        ("ds114", ("linebisection", "covertverbgeneration"), 40, 20, {2.5}),
        ("eeg_rest_fmri", ("rest",), 3, 6, {2.16}),  # two T1w per subject, EEG and derivatives beside
        ("genetics_ukbb", ("rest",), 14, 14, {0.735}),
        ("volume_timing", ("rest",), 6, 0, {1.0, 2.0, None}),
        ("asl001", ("rest",), 1, 1, {None}),  # perfusion only
        ("hcp_example_bids", ("rest",), 1, 1, {None}),  # anatomy only
    ],
)
def test_reference_datasets_are_listed_whole(bids_examples, name, tasks, n_bold, n_t1w, tr_s):
    rows = rows_of(bids_examples / name, tasks=tasks)
    bolds = [row for row in rows if row["modality"] == "bold"]
    assert (len(bolds), len(rows) - len(bolds)) == (n_bold, n_t1w)
    assert {row["tr_s"] for row in bolds} == tr_s
    assert all(row["status"] == "excluded" and row["reason"] for row in rows)  # the images are empty
    for modality in ("bold", "t1w"):
        keys = [check_key(row["key"]) for row in rows if row["modality"] == modality]
        assert len(set(keys)) == len(keys)
    files = [row for row in bolds if row["path"]]
    assert all("file is empty" in row["reason"] for row in files)
    on_disk = [p for t in tasks for p in (bids_examples / name).glob(f"sub-*/**/*_task-{t}_*bold.nii.gz")]
    assert sorted(row["path"] for row in files) == sorted(map(str, on_disk))


def test_unequal_volume_timing_is_reported_beside_the_empty_file(bids_examples):
    rows = rows_of(bids_examples / "volume_timing")
    uneven = [
        row["key"]
        for row in rows
        if "not evenly spaced (VolumeTiming has steps of 1 to 4 s)" in row["reason"]
    ]
    assert [key.split("acq-")[1] for key in uneven] == ["clusteredST", "clusteredTA", "deprecated"]
    assert all("no usable T1w image" in row["reason"] for row in rows)


def test_another_task_is_named_where_the_wanted_one_is_missing(bids_examples):
    reasons = {row["reason"] for row in rows_of(bids_examples / "ds001") if row["modality"] == "bold"}
    assert reasons == {"no BOLD run of task rest; there is: balloonanalogrisktask"}


def test_a_complete_subject_is_included(tmp_path):
    path = write_subject(tmp_path, sidecar={"RepetitionTime": 2.0})
    t1w = tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    bold, anat = rows_of(tmp_path, synthetic=True)
    assert bold == {
        **dict.fromkeys(index.SCHEMA.names),
        "cohort": "study", "input": "bids", "subject": "01", "modality": "bold", "key": "study_sub-01_task-rest",
        "task": "rest", "kind": "raw", "tr_s": 2.0, "n_frames": 10, "path": str(path), "anat": "study_sub-01",
        "sidecar": str(path).replace(".nii.gz", ".json"), "synthetic": True, "status": "ok", "notes": [],
    }  # fmt: skip
    assert (anat["key"], anat["path"], anat["status"]) == ("study_sub-01", str(t1w), "ok")


def test_bold_takes_the_t1w_of_its_session_else_the_first_usable(tmp_path):
    for ses in ("a", "b", "c"):
        write_image(tmp_path / f"sub-1/ses-{ses}/func/sub-1_ses-{ses}_task-rest_bold.nii.gz", frames=5)
    write_image(tmp_path / "sub-1/ses-b/anat/sub-1_ses-b_T1w.nii.gz")
    write_image(tmp_path / "sub-1/ses-c/anat/sub-1_ses-c_T1w.nii.gz")
    rows = rows_of(tmp_path)
    assert {row["session"]: row["anat"] for row in rows if row["modality"] == "bold"} == {
        "a": "study_sub-1_ses-b", "b": "study_sub-1_ses-b", "c": "study_sub-1_ses-c",
    }  # fmt: skip


def test_one_t1w_per_session_is_used_the_best_one(tmp_path):
    write_subject(tmp_path)
    anat = tmp_path / "sub-01" / "anat"
    (anat / "sub-01_T1w.nii.gz").rename(anat / "sub-01_run-2_T1w.nii.gz")
    (anat / "sub-01_run-1_T1w.nii.gz").touch()
    write_image(anat / "sub-01_ce-gd_run-1_T1w.nii.gz")
    rows = {row["path"].rsplit("/", 1)[1]: row for row in rows_of(tmp_path) if row["modality"] == "t1w"}
    assert rows["sub-01_run-2_T1w.nii.gz"]["key"] == "study_sub-01"
    assert rows["sub-01_run-2_T1w.nii.gz"]["status"] == "ok"
    assert rows["sub-01_ce-gd_run-1_T1w.nii.gz"]["reason"] == (
        "one T1w image of a session is used: sub-01_run-2_T1w.nii.gz"
    )
    assert rows["sub-01_run-1_T1w.nii.gz"]["reason"].startswith("file is empty")
    assert len({row["key"] for row in rows.values()}) == 3


def test_echoes_are_one_row(tmp_path):
    path = write_subject(tmp_path)
    for echo in (1, 2, 3):
        shutil.copy(path, path.with_name(f"sub-01_task-rest_echo-{echo}_bold.nii.gz"))
    path.unlink()
    row = the_bold(rows_of(tmp_path))
    assert (row["echoes"], row["status"], row["key"]) == (3, "ok", "study_sub-01_task-rest")
    assert row["path"].endswith("_echo-1_bold.nii.gz")


def test_phase_images_are_no_scans_of_their_own(tmp_path):
    path = write_subject(tmp_path)
    for part in ("mag", "phase"):
        shutil.copy(path, path.with_name(f"sub-01_task-rest_part-{part}_bold.nii.gz"))
    path.unlink()
    assert the_bold(rows_of(tmp_path))["path"].endswith("_part-mag_bold.nii.gz")
    path.with_name("sub-01_task-rest_part-mag_bold.nii.gz").unlink()
    assert the_bold(rows_of(tmp_path))["reason"] == "there is a phase image only, no magnitude"


def test_two_files_of_one_name_are_both_excluded(tmp_path):
    path = write_subject(tmp_path)
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    bolds = [row for row in rows_of(tmp_path) if row["modality"] == "bold"]
    reason = (
        "2 files claim to be this scan (sub-01_task-rest_bold.nii, sub-01_task-rest_bold.nii.gz): keep one"
    )
    assert [row["reason"] for row in bolds] == [reason, reason]


@pytest.mark.parametrize(
    ("image", "sidecar", "reason"),
    [
        ({"frames": None}, {}, "the image is 3D (4 x 4 x 4): expected a 4D series"),
        ({"frames": 1}, {}, "there is one frame only: expected a series"),
        ({"frames": 0}, {}, "there is no frame: expected a series"),
        ({"tr_s": 3.0}, {}, "the sidecar says 2 s, the image header 3 s"),
        ({"tr_s": 2000.0}, {}, "the sidecar says 2 s, the image header 2000 s"),
        ({"tr_s": 2.0}, {"RepetitionTime": 2000}, "RepetitionTime in the sidecar is 2000: milliseconds?"),
        ({}, {"RepetitionTime": 0}, "RepetitionTime in the sidecar is 0 s: no scanner is that fast"),
        ({}, {"RepetitionTime": -2}, "no scanner is that fast"),
        (
            {},
            {"RepetitionTime": "2.0"},
            "RepetitionTime in the sidecar is '2.0': expected a number of seconds",
        ),
        (
            {"tr_s": 2500.0},
            {"TaskName": "rest"},
            "the repetition time in the image header is 2500: milliseconds?",
        ),
        ({"tr_s": 0.0}, {"TaskName": "rest"}, "no repetition time in sidecar or header"),
        ({"zooms": (1, 1, 1)}, {}, "cannot hold a brain"),
        ({"dtype": np.complex64}, {}, "the image has complex64 values: expected real numbers"),
        ({}, {"VolumeTiming": [0.0, 2.0, 4.0]}, "VolumeTiming has 3 times, the image 10 frames"),
        ({}, {"VolumeTiming": [*range(9), 20]}, "not evenly spaced (VolumeTiming has steps of 1 to 12 s)"),
        ({}, {"VolumeTiming": "often"}, "VolumeTiming in the sidecar is no list"),
        ({}, {"RepetitionTime": 2.0, "VoxelSizes": [4, 4]}, "VoxelSizes is [4, 4]"),
    ],
)
def test_a_fault_is_a_reason(tmp_path, image, sidecar, reason):
    write_subject(tmp_path, **image, sidecar=sidecar)
    write_subject(tmp_path, "02")
    rows = {row["subject"]: row for row in rows_of(tmp_path) if row["modality"] == "bold"}
    assert rows["01"]["status"] == "excluded"
    assert reason in rows["01"]["reason"]
    assert rows["02"]["status"] == "ok"  # nobody else suffers


@pytest.mark.parametrize(
    ("image", "sidecar", "tr_s"),
    [
        ({"tr_s": 2.0}, {"TaskName": "rest"}, 2.0),
        ({"tr_s": 2000.0, "units": ("mm", "msec")}, {"TaskName": "rest"}, 2.0),
        ({"tr_s": 2000.0, "units": ("mm", "msec")}, {"RepetitionTime": 2.0}, 2.0),
        ({"tr_s": 0.0}, {"RepetitionTime": 0.8}, 0.8),
        ({"tr_s": 1.0, "units": ("mm", "unknown")}, {"RepetitionTime": 0.8}, 0.8),
        ({"tr_s": 0.7350001}, {"RepetitionTime": 0.735}, 0.735),
        ({"tr_s": 1.5}, {"VolumeTiming": [1.5 * i for i in range(10)]}, 1.5),
        ({"tr_s": 0.0}, {"TaskName": "rest"}, 1.25),  # the cohort's
    ],
)
def test_where_the_repetition_time_comes_from(tmp_path, image, sidecar, tr_s):
    write_subject(tmp_path, **image, sidecar=sidecar)
    row = the_bold(rows_of(tmp_path, tr_s=1.25))
    assert (row["status"], row["tr_s"]) == ("ok", tr_s)


def test_files_that_cannot_be_read(tmp_path):
    faults = {
        "garbage": (b"this is no image", "not a readable NIfTI image"),
        "torn": (gzip.compress(bytes(400))[:12], "not a readable NIfTI image"),
        "empty": (b"", "file is empty"),
    }
    for label, (content, _) in faults.items():
        write_subject(tmp_path, label).write_bytes(content)
    link = write_subject(tmp_path, "annexed")
    link.unlink()
    link.symlink_to(tmp_path / "not-fetched")
    rows = {row["subject"]: row for row in rows_of(tmp_path) if row["modality"] == "bold"}
    assert rows["annexed"]["reason"] == "file is a link to a file that is not here (datalad get?)"
    for label, (_, reason) in faults.items():
        assert rows[label]["reason"].startswith(reason)
        assert rows[label]["tr_s"] == 2.0  # what the sidecar states is still reported


def test_sidecars_that_cannot_be_read(tmp_path):
    write_subject(tmp_path, "a").with_name("sub-a_task-rest_bold.json").write_text("{RepetitionTime: 2}")
    write_subject(tmp_path, "b").with_name("sub-b_task-rest_bold.json").write_text("[2.0]")
    reasons = {row["subject"]: row["reason"] for row in rows_of(tmp_path) if row["modality"] == "bold"}
    assert reasons["a"] == "sidecar sub-a_task-rest_bold.json cannot be read as JSON: fix or remove it"
    assert reasons["b"] == "sidecar sub-b_task-rest_bold.json is not a JSON object: fix or remove it"


def test_sidecars_are_inherited_nearest_first(tmp_path):
    path = write_subject(tmp_path, tr_s=0)
    own = path.with_name("sub-01_task-rest_bold.json")
    own.unlink()
    write_json(tmp_path / "bold.json", RepetitionTime=4)
    assert the_bold(rows_of(tmp_path))["tr_s"] == 4
    write_json(tmp_path / "task-rest_bold.json", RepetitionTime=3)
    write_json(tmp_path / "task-nback_bold.json", RepetitionTime=9)
    assert the_bold(rows_of(tmp_path))["tr_s"] == 3
    write_json(tmp_path / "sub-01" / "sub-01_task-rest_bold.json", EchoTime=0.03)
    row = the_bold(rows_of(tmp_path))
    assert row["tr_s"] == 3
    assert row["sidecar"] == str(tmp_path / "sub-01" / "sub-01_task-rest_bold.json")
    write_json(own, RepetitionTime=1)
    assert the_bold(rows_of(tmp_path))["tr_s"] == 1


def test_without_a_t1w_image_a_run_cannot_be_preprocessed(tmp_path):
    write_subject(tmp_path)
    t1w = tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    write_image(t1w, frames=3)
    row = the_bold(rows_of(tmp_path))
    assert row["reason"] == (
        "no usable T1w image, which preprocessing needs (the image is 4D (4 x 4 x 4 x 3): expected a 3D volume)"
    )
    t1w.unlink()
    assert the_bold(rows_of(tmp_path))["reason"] == "no usable T1w image, which preprocessing needs"


@pytest.mark.parametrize("folder", ["sub-..", "sub-a b", "sub-a;rm", "sub-a_b", "sub-", "sub-ä", "sub-a+b"])
def test_an_invalid_subject_folder_is_a_row_with_a_harmless_label(tmp_path, folder):
    write_subject(tmp_path)
    (tmp_path / folder / "func").mkdir(parents=True)
    rows = rows_of(tmp_path)
    (strange,) = [row for row in rows if row["subject"] != "01"]
    assert (
        strange["reason"] == f"folder {folder!r} names no subject: only letters and digits may follow `sub-`"
    )
    check_key(strange["key"])
    assert strange["subject"].isalnum()
    assert [row["status"] for row in rows if row["subject"] == "01"] == ["ok", "ok"]


def test_names_of_bytes_that_are_no_text_are_rows(tmp_path):
    path = write_subject(tmp_path)
    shutil.copy(path, os.fsencode(path.with_name("sub-01_task-rest_run-")) + b"\xff_bold.nii.gz")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/sub-\xff")).mkdir()
    reasons = [row["reason"] for row in rows_of(tmp_path) if row["status"] != "ok"]
    assert len(reasons) == 2
    assert any("names no subject" in reason for reason in reasons)
    assert any("in the file name" in reason for reason in reasons)


def test_names_that_contradict_their_folder_or_are_no_names(tmp_path):
    path = write_subject(tmp_path)
    shutil.copy(path, path.with_name("sub-02_task-rest_bold.nii.gz"))
    shutil.copy(path, path.with_name("sub-01_task-rest_run-a b_bold.nii.gz"))
    shutil.copy(path, path.with_name("sub-01_bold.nii.gz"))
    rows = [row for row in rows_of(tmp_path) if row["modality"] == "bold"]
    reasons = {row["path"].rsplit("/", 1)[1]: row["reason"] for row in rows}
    assert "a file of sub-02 is in the folder of sub-01" in reasons["sub-02_task-rest_bold.nii.gz"]
    assert "run-a b in the file name" in reasons["sub-01_task-rest_run-a b_bold.nii.gz"]
    assert "the file name has no task" in reasons["sub-01_bold.nii.gz"]
    assert reasons["sub-01_task-rest_bold.nii.gz"] is None
    for row in rows:
        check_key(row["key"])


def test_only_the_subjects_and_tasks_asked_for(tmp_path):
    for label in ("01", "02", "03"):
        write_subject(tmp_path, label)
    shutil.copy(write_subject(tmp_path, "01"), tmp_path / "sub-01/func/sub-01_task-nback_bold.nii.gz")
    rows = rows_of(tmp_path, subjects=("01", "99"))
    assert [(row["subject"], row["modality"], row["task"]) for row in rows] == [
        ("01", "bold", "rest"), ("01", "t1w", None), ("99", "bold", None),
    ]  # fmt: skip
    assert rows[-1]["reason"] == f"there is no folder sub-99 in {tmp_path}"


@pytest.mark.parametrize("name", ["study.v1", "study [final]", ".hidden", "sub-study", "ses-study"])
def test_the_name_of_the_root_does_not_matter(tmp_path, name):
    write_subject(tmp_path / name)
    assert [row["status"] for row in rows_of(tmp_path / name)] == ["ok", "ok"]


def test_no_folder_and_no_subjects_are_sentences(tmp_path):
    with pytest.raises(
        ValueError, match=r"cohort study: there is no folder .*missing: fix cohorts.study.root"
    ):
        index.build("study", CohortSection(input="bids", root=tmp_path / "missing"))
    with pytest.raises(
        ValueError, match=r"cohort study: no subjects in .*`input: bids` expects sub-<label> there"
    ):
        index.build("study", CohortSection(input="bids", root=tmp_path))


def test_many_subjects_are_listed_in_chunks(tmp_path, monkeypatch):
    from bhx_prep.ingest import bids_files

    for label in ("1", "2", "3", "10", "11"):
        write_subject(tmp_path, label)
    (tmp_path / "sub-a b").mkdir()
    at_once = rows_of(tmp_path)
    assert [row["subject"] for row in at_once if row["modality"] == "bold"][:5] == ["1", "10", "11", "2", "3"]
    monkeypatch.setattr(bids_files, "CHUNK", 2)
    assert rows_of(tmp_path) == at_once
    monkeypatch.setattr(index, "_WORTH_PROCESSES", 1)
    assert rows_of(tmp_path) == at_once


def test_real_images(shared, tmp_path):
    feeds, head = shared("data/images/feeds_bold.nii.gz"), shared("data/images/colin27_T1w.nii.gz")
    siemens = shared("data/images/Siemens_Rest_fMRI_AP_7.nii.gz")
    for label, bold in (("feeds", feeds), ("fixed", feeds), ("siemens", siemens)):
        (tmp_path / f"sub-{label}" / "anat").mkdir(parents=True)
        (tmp_path / f"sub-{label}" / "func").mkdir()
        (tmp_path / f"sub-{label}/anat/sub-{label}_T1w.nii.gz").symlink_to(head)
        (tmp_path / f"sub-{label}/func/sub-{label}_task-rest_bold.nii.gz").symlink_to(bold)
    siemens_json = tmp_path / "sub-siemens/func/sub-siemens_task-rest_bold.json"
    siemens_json.symlink_to(siemens.with_suffix("").with_suffix(".json"))
    fixed = tmp_path / "sub-fixed/func/sub-fixed_task-rest_bold.json"
    write_json(fixed, RepetitionTime=3.0, VoxelSizes=[4, 4, 6])
    rows = {row["subject"]: row for row in rows_of(tmp_path) if row["modality"] == "bold"}
    assert "field of view of 64 x 64 x 21 mm that cannot hold a brain" in rows["feeds"]["reason"]
    assert "no repetition time" in rows["feeds"]["reason"]
    assert (rows["fixed"]["status"], rows["fixed"]["tr_s"], rows["fixed"]["n_frames"]) == ("ok", 3.0, 64)
    assert (rows["siemens"]["status"], rows["siemens"]["tr_s"], rows["siemens"]["n_frames"]) == ("ok", 1.3, 2)


def test_derivatives_at_the_raw_input_are_not_preprocessed_again(tmp_path):
    folder = tmp_path / "sub-01"
    write_image(folder / "anat/sub-01_desc-preproc_T1w.nii.gz")
    write_image(folder / "func/sub-01_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz", frames=9)
    bold, t1w = rows_of(tmp_path)
    assert t1w["reason"].startswith("desc-preproc in the file name: expected a raw image")
    assert bold["reason"].startswith("space-MNI152NLin2009cAsym and desc-preproc in the file name")
    assert "`input: fmriprep`" in bold["reason"]


def test_a_raw_t1w_goes_before_one_that_was_made_of_it(tmp_path):
    write_subject(tmp_path)
    write_image(tmp_path / "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz")
    used = [row["path"].rpartition("/")[2] for row in rows_of(tmp_path) if row["status"] == "ok"]
    assert used == ["sub-01_task-rest_bold.nii.gz", "sub-01_T1w.nii.gz"]
