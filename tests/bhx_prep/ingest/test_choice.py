"""Which files a cohort's section leaves out, selects and prefers."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
from small_bids import rows_of, the_bold, write_image, write_json, write_subject

from bhx_model.errors import ConfigError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import choice, index
from bhx_prep.io.spaces import is_space, t1w_spaces

PATH = Path("/data/sub-01/ses-a/func/sub-01_ses-a_task-rest_run-01_bold.nii.gz")
KEY = "study_sub-01_ses-a_task-rest_run-01"


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        (KEY, True),
        ("study_sub-01_ses-a_task-rest_run-1", True),  # an index is a number
        ("sub-01_ses-a_task-rest_run-1", True),
        (PATH.name, True),
        ("sub-01_ses-a_task-rest_run-01_bold", True),
        ("sub-01/ses-a/func/" + PATH.name, True),
        ("sub-01/ses-a", True),
        ("sub-01/ses-a/", True),
        ("./sub-01/ses-a/func", True),
        ("sub-01", True),
        ("sub-*/ses-a/*", True),
        ("*_run-1_bold*", True),
        ("sub-1", False),
        ("ses-a", False),
        ("sub-01/ses-b", False),
        ("*_run-10_*", False),
        ("sub-01_ses-a_task-rest_run-?", False),
        ("sub-0[1]", False),
    ],
)
def test_what_exclude_names(pattern, left_out):
    made = choice.Choice("study", Path("/data"), excluded=(pattern,))
    reason = made.left_out(PATH, [KEY])
    assert (reason is not None) == left_out
    assert reason is None or reason.startswith("left out by `exclude` (")


def test_a_pattern_that_leaves_nothing_out_is_a_warning(tmp_path, caplog):
    write_subject(tmp_path)
    with caplog.at_level(logging.WARNING):
        rows_of(tmp_path, exclude=("sub-O1", "sub-01/func"))
    assert [record.args[1] for record in caplog.records if record.args] == ["sub-O1"]


def test_a_t1w_that_is_left_out_makes_room_for_the_next(tmp_path):
    write_subject(tmp_path)
    anat = tmp_path / "sub-01" / "anat"
    shutil.move(anat / "sub-01_T1w.nii.gz", anat / "sub-01_run-1_T1w.nii.gz")
    write_image(anat / "sub-01_run-2_T1w.nii.gz")
    rows = {Path(r["path"]).name: r for r in rows_of(tmp_path, exclude=("sub-01_run-01_T1w.nii.gz",))}
    assert rows["sub-01_run-1_T1w.nii.gz"]["reason"].startswith("left out by `exclude`")
    assert (rows["sub-01_run-2_T1w.nii.gz"]["status"], rows["sub-01_run-2_T1w.nii.gz"]["notes"]) == ("ok", [])


@pytest.mark.parametrize(
    ("columns", "cell", "used"),
    [
        ("exclude", "1", False),
        ("bhx_exclude", "True", False),
        ("Exclude", "motion", False),
        ("exclude", "n/a", True),
        ("exclude", "0", True),
        ("exclude", "", True),
        ("exclude\tbhx_exclude", "1\tno", True),  # the more specific one holds
        ("quality", "bad", True),
    ],
)
def test_columns_of_scans_tsv(tmp_path, columns, cell, used):
    write_subject(tmp_path)
    table = f"filename\t{columns}\nfunc/sub-01_task-rest_bold.nii.gz\t{cell}\n"
    (tmp_path / "sub-01/sub-01_scans.tsv").write_text(table)
    assert (the_bold(rows_of(tmp_path))["status"] == "ok") == used


def test_an_edit_of_scans_tsv_is_seen(tmp_path):
    root, cohort = tmp_path / "data", CohortSection(input="bids", root=tmp_path / "data")
    write_subject(root)
    table = root / "sub-01/sub-01_scans.tsv"
    table.write_text("filename\texclude\nfunc/sub-01_task-rest_bold.nii.gz\t0\n")
    folder = (root / "sub-01").stat()
    assert the_bold(index.load(tmp_path / "cache", "a", cohort).to_pylist())["status"] == "ok"
    table.write_text("filename\texclude\nfunc/sub-01_task-rest_bold.nii.gz\tyes\n")
    os.utime(root / "sub-01", ns=(folder.st_atime_ns, folder.st_mtime_ns))
    reason = the_bold(index.load(tmp_path / "cache", "a", cohort).to_pylist())["reason"]
    assert reason == "left out by scans.tsv (exclude: 'yes')"


def test_fmripreps_own_bidsignore_is_not_read(tmp_path):
    stem = tmp_path / "sub-01/func/sub-01_task-rest"
    image = Path(f"{stem}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz")
    write_image(image, frames=10)
    write_json(Path(str(image).replace(".nii.gz", ".json")), RepetitionTime=2.0)
    Path(f"{stem}_desc-confounds_timeseries.tsv").write_text("x\n1\n")
    (tmp_path / ".bidsignore").write_text("*_timeseries.tsv\n*_bold.nii.gz\n")
    assert the_bold(rows_of(tmp_path, input="fmriprep"))["status"] == "ok"


def test_a_selected_echo_is_a_run_of_one_echo(tmp_path):
    path = write_subject(tmp_path, tr_s=2.0)
    for echo in ("1", "2"):
        shutil.copy(path, path.with_name(f"sub-01_task-rest_echo-{echo}_bold.nii.gz"))
    path.unlink()
    row = the_bold(rows_of(tmp_path, select={"echo": [2]}))
    assert (Path(row["path"]).name, row["echoes"]) == ("sub-01_task-rest_echo-2_bold.nii.gz", None)


def test_a_selection_of_runs_does_not_lose_the_t1w(tmp_path):
    path = write_subject(tmp_path, tr_s=2.0)
    path.rename(path.with_name("sub-01_task-rest_acq-mb_bold.nii.gz"))
    write_json(tmp_path / "task-rest_bold.json", RepetitionTime=2.0)
    assert {row["status"] for row in rows_of(tmp_path, select={"acq": ["mb"]})} == {"ok"}
    reason = the_bold(rows_of(tmp_path, select={"acq": ["sb", "none"]}))["reason"]
    assert reason == "left out by `select`, which asks for acq-sb or no acq-"


def test_two_reconstructions_are_used_with_a_note(tmp_path):
    path = write_subject(tmp_path, tr_s=2.0)
    write_json(tmp_path / "task-rest_bold.json", RepetitionTime=2.0)
    for rec in ("a", "b"):
        shutil.copy(path, path.with_name(f"sub-01_task-rest_rec-{rec}_bold.nii.gz"))
    path.unlink()
    rows = [row for row in rows_of(tmp_path) if row["modality"] == "bold"]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert all("2 reconstructions (rec-) of this run are used" in row["notes"][0] for row in rows)


def test_spaces():
    assert is_space("MNIPediatricAsym:cohort-3")
    assert not is_space("MNIPediatricAsym")
    assert t1w_spaces("MNI152NLin6Asym") == ("MNI152NLin6Asym", "MNI152NLin2009cAsym")
    assert t1w_spaces("fsLR")[0] == "MNI152NLin2009cAsym"
    with pytest.raises(ValueError, match="did you mean 'MNI152NLin2009cAsym'"):
        CohortSection(input="fmriprep", root=Path("x"), space="MNI152NLin2009CAsym")


def test_an_unreadable_bidsignore_is_a_sentence(tmp_path):
    write_subject(tmp_path)
    (tmp_path / ".bidsignore").mkdir()
    with pytest.raises(ConfigError, match="bidsignore cannot be read"):
        rows_of(tmp_path)
