"""`input: timeseries`: tables of every kind, found by a pattern, with what they state without being read."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from nibabel.cifti2 import Cifti2Image, ParcelsAxis, SeriesAxis
from small_bids import rows_of, the_bold, write_image, write_json

from bhx_model.contract import check_key
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import index

ROIS = [f"17Networks_{side}H_VisCent_{n}" for side in "LR" for n in (1, 2)]
SERIES = np.arange(48, dtype=np.float32).reshape(4, 12)  # ROI x time


def write_table(path, *, by_roi=True):
    """The series as a table with named axes: one column per ROI, or one per frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(SERIES.T, columns=ROIS)
    if not by_roi:
        frame = pd.DataFrame(SERIES, columns=[f"timepoint_{t}" for t in range(12)])
        frame.insert(0, "label_name", ROIS)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".feather":
        frame.to_feather(path)
    else:
        frame.to_csv(path, sep="\t" if ".tsv" in path.name else ",", index=False)
    return path


def write_ptseries(path, *, step=0.735):
    path.parent.mkdir(parents=True, exist_ok=True)
    grayordinates = [("CIFTI_STRUCTURE_CORTEX_LEFT", np.array([i])) for i in range(4)]
    parcels = ParcelsAxis(
        ROIS,
        [np.empty((0, 3), int)] * 4,
        [{structure: vertices} for structure, vertices in grayordinates],
        nvertices={"CIFTI_STRUCTURE_CORTEX_LEFT": 4},
    )
    Cifti2Image(SERIES.T, (SeriesAxis(0, step, 12), parcels)).to_filename(path)
    return path


def tables(root, **cohort):
    return rows_of(root, input="timeseries", **{"tr_s": 2.0, **cohort})


def test_a_subject_with_a_table_and_a_head(tmp_path):
    path = write_table(tmp_path / "sub-01/func/sub-01_task-rest_atlas-Schaefer17n400p_timeseries.tsv")
    sidecar = write_json(tmp_path / "task-rest_timeseries.json", RepetitionTime=0.735)
    head = write_image(tmp_path / f"sub-01/anat/sub-01_space-{'MNI152NLin2009cAsym'}_T1w.nii.gz")
    bold, anat = tables(tmp_path)
    assert bold == {
        **dict.fromkeys(index.SCHEMA.names),
        "cohort": "study", "input": "timeseries", "subject": "01", "modality": "bold",
        "key": "study_sub-01_task-rest", "task": "rest", "kind": "table", "tr_s": 0.735, "path": str(path),
        "sidecar": str(sidecar), "anat": "study_sub-01", "synthetic": False, "status": "ok", "notes": [],
    }  # fmt: skip
    assert (anat["path"], anat["space"], anat["key"]) == (str(head), "MNI152NLin2009cAsym", "study_sub-01")


@pytest.mark.parametrize(
    ("name", "write", "n_frames", "tr_s"),
    [
        ("t.tsv", write_table, None, 2.0),  # counting rows would mean to read them
        ("t.csv", lambda path: write_table(path, by_roi=False), 12, 2.0),
        ("t.csv.gz", lambda path: write_table(path, by_roi=False), 12, 2.0),
        ("t.parquet", write_table, 12, 2.0),
        ("t.parquet", lambda path: write_table(path, by_roi=False), 12, 2.0),
        ("t.tsv.gz", lambda path: write_table(path, by_roi=False), 12, 2.0),
        ("t.feather", write_table, None, 2.0),
        ("t.ptseries.nii", write_ptseries, 12, 0.735),
    ],
)
def test_what_a_table_states_without_being_read(tmp_path, name, write, n_frames, tr_s):
    path = tmp_path / f"sub-01/sub-01_task-rest_timeseries.{name.split('.', 1)[1]}"
    path.parent.mkdir()
    write(path)
    row = the_bold(tables(tmp_path))
    assert (row["status"], row["n_frames"], row["tr_s"]) == ("ok", n_frames, tr_s)


def test_numbered_columns_might_be_either_axis(tmp_path):
    path = tmp_path / "sub-01/sub-01_task-rest_timeseries.parquet"
    path.parent.mkdir()
    pd.DataFrame(SERIES, columns=[str(n) for n in range(12)]).to_parquet(path, index=False)
    row = the_bold(tables(tmp_path))
    assert (row["status"], row["n_frames"]) == ("ok", None)


@pytest.mark.parametrize(
    ("shape", "section", "n_frames"),
    [
        ((4, 12), {}, 12),  # four names in names.txt
        ((12, 4), {}, 12),
        ((5, 4), {"orientation": "frame,roi"}, 5),
        ((4, 4), {"orientation": "frame,roi"}, 4),
    ],
)
def test_axes_of_arrays_are_what_the_cohort_states(tmp_path, shape, section, n_frames):
    (tmp_path / "sub-01").mkdir()
    np.save(tmp_path / "sub-01/sub-01_task-rest_timeseries.npy", np.ones(shape))
    (tmp_path / "names.txt").write_text("\n".join(ROIS))
    row = the_bold(tables(tmp_path, **section))
    assert row["n_frames"] == n_frames
    assert "are the ROIs of names.txt, the table names none" in row["notes"][0]


@pytest.mark.parametrize(
    ("shape", "section", "reason"),
    [
        ((4, 4), {}, "both sides could be the 4 ROIs of names.txt: set the cohort's `orientation`"),
        ((4, 5), {"orientation": "frame,roi"}, "its columns are not the 4 ROIs of names.txt"),
        ((3, 5), {}, "neither side is the 4 ROIs of names.txt"),
    ],
)
def test_axes_of_arrays_that_cannot_be_told(tmp_path, shape, section, reason):
    (tmp_path / "sub-01").mkdir()
    np.save(tmp_path / "sub-01/sub-01_task-rest_timeseries.npy", np.ones(shape))
    (tmp_path / "names.txt").write_text("\n".join(ROIS))
    assert reason in the_bold(tables(tmp_path, **section))["reason"]
    (tmp_path / "names.txt").unlink()
    assert "has no ROI names and is" in the_bold(tables(tmp_path, **section))["reason"]


def test_the_repetition_time_may_stand_in_the_table_or_as_a_frequency(tmp_path):
    path = write_table(tmp_path / "sub-01/sub-01_task-rest_timeseries.parquet")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"bhx": json.dumps({"tr_s": 0.8})}), path)
    assert the_bold(tables(tmp_path, tr_s=None))["tr_s"] == 0.8
    path.unlink()
    write_table(path.with_suffix(".tsv"))
    write_json(path.with_suffix(".json"), SamplingFrequency=0.5)
    row = the_bold(tables(tmp_path, tr_s=None))
    assert (row["tr_s"], row["notes"]) == (
        2.0,
        ["repetition time chosen: 1 / SamplingFrequency (0.5 Hz) of its sidecar"],
    )
    for nothing in ("TR", True, 10**400, float("nan"), 0):
        write_json(path.with_suffix(".json"), SamplingFrequency=nothing)
        assert "no repetition time" in the_bold(tables(tmp_path, tr_s=None))["reason"]


@pytest.mark.parametrize("nothing", [True, 10**400, "2"])
def test_a_repetition_time_of_the_image_that_is_no_number_is_none(tmp_path, nothing):
    stem = "sub-01/func/sub-01_task-rest_run-01"
    write_table(tmp_path / f"{stem}_space-MNI152NLin6Asym_seg-A_stat-mean_timeseries.tsv")
    write_json(tmp_path / f"{stem}_desc-denoised_bold.json", RepetitionTime=nothing)
    assert "no repetition time" in the_bold(tables(tmp_path, tr_s=None))["reason"]


def test_the_repetition_time_of_the_image_that_a_table_was_made_of(tmp_path):
    stem = "sub-01/func/sub-01_task-rest_run-01"
    write_table(tmp_path / f"{stem}_space-MNI152NLin6Asym_seg-A_stat-mean_timeseries.tsv")
    write_json(tmp_path / f"{stem}_space-MNI152NLin6Asym_seg-A_stat-mean_timeseries.json", Sources=["x"])
    write_json(tmp_path / "sub-01/func/sub-01_task-rest_run-02_desc-denoised_bold.json", RepetitionTime=3)
    assert "no repetition time" in the_bold(tables(tmp_path, tr_s=None))["reason"]
    write_json(tmp_path / f"{stem}_space-MNI152NLin6Asym_res-2_desc-denoised_bold.json", RepetitionTime=0.8)
    row = the_bold(tables(tmp_path, tr_s=None))
    assert row["tr_s"] == 0.8
    assert row["notes"][0].endswith("_res-2_desc-denoised_bold.json, its own sidecar states none")
    row = the_bold(tables(tmp_path, tr_s=2))
    assert (row["tr_s"], row["notes"]) == (2, [])


def test_one_of_several_tables_of_a_run(tmp_path):
    for seg in ("4S456Parcels", "Gordon"):
        write_table(tmp_path / f"sub-01/func/sub-01_task-rest_seg-{seg}_stat-mean_timeseries.tsv")
    rows = tables(tmp_path)
    assert {row["status"] for row in rows} == {"excluded"}
    for choice in ({"select": {"seg": ["Gordon"]}}, {"prefer": {"seg": ["Gordon", "4S456Parcels"]}}):
        (row,) = [row for row in tables(tmp_path, **choice) if row["status"] == "ok"]
        assert "seg-Gordon" in row["path"]


@pytest.mark.parametrize(
    ("ending", "content", "reason"),
    [
        ("tsv", b"", "file is empty"),
        ("npy", b"no numpy", "the table cannot be read (ValueError)"),
        ("parquet", b"no parquet", "the table cannot be read (ArrowInvalid)"),
        ("csv.gz", b"no gzip", "cannot be read (BadGzipFile)"),
        ("csv.gz", gzip.compress(b"a,b\n" * 9, mtime=0)[:8], "cannot be read (EOFError)"),
        ("ptseries.nii", b"no cifti", "is no CIFTI-2 file"),
        ("h5", b"hdf", "not a table that BHX reads: .tsv, .tsv.gz, .csv, .csv.gz, "),
        ("csv", b"1," * 4_200_000, "its first line is longer than 4 MB"),
        ("csv", b"PK\x03\x04 a workbook", "an Excel workbook: save it as text"),
        ("tsv", b"<!DOCTYPE html><p>404", "a web page, no table"),
        ("tsv", b"version https://git-lfs.github.com/spec/v1", "(git lfs pull)"),
        ("csv", b"label_name,t1\nA,1\n", "there is one frame only: expected a series"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path, ending, content, reason):
    (tmp_path / "sub-01").mkdir()
    (tmp_path / f"sub-01/sub-01_task-rest_timeseries.{ending}").write_bytes(content)
    write_table(tmp_path / "sub-02/sub-02_task-rest_timeseries.tsv")
    bad, good = tables(tmp_path)
    assert bad["status"] == "excluded"
    assert reason in bad["reason"]
    assert good["status"] == "ok"


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 3, 4)), "the array is 3D: expected ROI x time"),
        (np.zeros((4, 1)), "there is one frame only"),
        (np.array([{"a": 1}], dtype=object), "the array holds Python objects"),  # a pickle
        (np.zeros((4, 12), complex), "the array has complex128 values: expected real numbers"),
        (np.zeros((4, 12), bool), "the array has bool values"),
    ],
)
def test_an_array_that_is_no_series(tmp_path, array, reason):
    (tmp_path / "sub-01").mkdir()
    np.save(tmp_path / "sub-01/sub-01_task-rest_timeseries.npy", array, allow_pickle=True)
    assert reason in the_bold(tables(tmp_path))["reason"]


def test_flat_folders_as_published(tmp_path):
    for label in ("50002", "50003"):
        path = tmp_path / f"{label}_Schaefer17n400p.csv.gz"
        write_table(path, by_roi=False)
    rows = tables(tmp_path, series="{subject}_Schaefer17n400p.csv.gz")
    assert [(row["key"], row["n_frames"]) for row in rows] == [
        ("study_sub-50002_task-rest", 12), ("study_sub-50003_task-rest", 12),
    ]  # fmt: skip


def test_a_folder_per_subject_and_visit(tmp_path):
    write_table(tmp_path / "1000017_2_0/i2/fMRI.Schaefer17n400p.csv.gz", by_roi=False)
    (row,) = tables(tmp_path, series="{subject}_2_0/**/fMRI.Schaefer17n400p.csv.gz")
    assert (row["subject"], row["status"]) == ("1000017", "ok")


def test_a_subject_that_stands_twice_in_the_pattern_must_agree(tmp_path):
    write_table(tmp_path / "sub-01/01_ts.csv")
    write_table(tmp_path / "sub-01/02_ts.csv")
    (row,) = tables(tmp_path, series="sub-{subject}/{subject}_ts.csv")
    assert row["path"].endswith("/01_ts.csv")


def test_two_atlases_in_one_place_are_a_question(tmp_path):
    for atlas in ("Schaefer17n400p", "Tian"):
        write_table(tmp_path / f"sub-01/sub-01_task-rest_atlas-{atlas}_timeseries.tsv")
    assert {row["reason"] for row in tables(tmp_path)} == {
        "2 files claim to be this scan (..t_atlas-Schaefer17n400p_timeseries.tsv, "
        "..01_task-rest_atlas-Tian_timeseries.tsv): let `select` or `series` match one"
    }
    rows = tables(tmp_path, series="sub-{subject}/**/*_atlas-Schaefer17n400p_timeseries.tsv")
    assert [row["status"] for row in rows] == ["ok"]


def test_what_is_no_series_of_the_wanted_task(tmp_path):
    write_table(tmp_path / "sub-01/sub-01_task-nback_timeseries.tsv")
    write_table(tmp_path / "sub-01/sub-01_task-rest_desc-confounds_timeseries.tsv")
    row = the_bold(tables(tmp_path, subjects=("01",)))
    assert (
        row["reason"] == "no table of the tasks rest matches sub-{subject}/**/*_timeseries.*; there is: nback"
    )
    row = the_bold(tables(tmp_path, subjects=("07",)))
    assert row["reason"].startswith("nothing of this subject in the root")


def test_subjects_with_invalid_labels(tmp_path):
    write_table(tmp_path / "sub-a b/sub-a b_task-rest_timeseries.tsv")
    write_table(tmp_path / "sub-02/sub-01_task-rest_timeseries.tsv")
    rows = tables(tmp_path)
    reasons = " ".join(row["reason"] for row in rows)
    assert "'a b' is not a subject label: only letters and digits may be used" in reasons
    assert "the file of sub-01 is in the place of sub-02" in reasons
    assert all(row["status"] == "excluded" and check_key(row["key"]) for row in rows)


def test_a_pattern_without_a_subject_is_a_mistake_of_the_configuration(tmp_path):
    with pytest.raises(ValueError, match=r"`series` must contain \{subject\}"):
        index.build("study", CohortSection(input="timeseries", root=tmp_path, series="*.csv"))
    with pytest.raises(ValueError, match="no subjects in"):
        index.build("study", CohortSection(input="timeseries", root=tmp_path))
