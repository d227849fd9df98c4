"""Derivatives of the abcd-hcp-pipeline become rows of the index; those of fMRIPrep are listed as anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import known_cohorts as known
import pytest

from bhx_prep.config.cohorts import CohortSection
from bhx_prep.features import motion_files
from bhx_prep.ingest import abcd, index

VISIT = "sub-NDARINV01ABCDEF/ses-baselineYear1Arm1/func"
STEM = "sub-NDARINV01ABCDEF_ses-baselineYear1Arm1_task-rest"
DENOISED = f"{STEM}_bold_desc-filtered_timeseries.dtseries.nii"


def _rows(root, strategy="none", **more):
    section = CohortSection(input="fmriprep", layout="abcd", root=root, strategy=strategy, **more)
    return index.build("a", section).to_pylist()


def _motion(func: Path, run: int, n_frames: int) -> None:
    lines = ["X Y Z RotX RotY RotZ XDt", *(f"{0.01 * t + run} 0 0 0 0 0 0" for t in range(n_frames))]
    known.write(func / f"{STEM}_run-{run}_motion.tsv", "\n".join(lines))


@pytest.mark.parametrize("below", ["", "derivatives/abcd-hcp-pipeline/"])
def test_the_denoised_series_is_used_with_the_motion_of_its_runs(tmp_path, below):
    func = tmp_path / f"{below}{VISIT}"
    known.dtseries(func / DENOISED, known.series(), 0.8)
    known.dtseries(func / f"{STEM}_run-1_bold_timeseries.dtseries.nii", known.series(n_frames=15), 0.8)
    for run, n in ((1, 15), (2, 25)):
        _motion(func, run, n)
    (row,) = _rows(tmp_path)
    assert (row["status"], row["key"]) == ("ok", "a_sub-NDARINV01ABCDEF_ses-baselineYear1Arm1_task-rest")
    assert (row["path"], row["tr_s"], row["n_frames"]) == (str(func / DENOISED), 0.8, 40)
    assert "2 runs are joined" in row["notes"][0]
    table, _ = motion_files.read(Path(row["confounds"]))
    assert len(table) == 40
    assert motion_files.joins(Path(row["confounds"])) == (15,)
    assert table["framewise_displacement"].max() == pytest.approx(0.01)


def test_series_that_are_not_denoised_are_refused(tmp_path):
    known.dtseries(tmp_path / VISIT / f"{STEM}_run-1_bold_timeseries.dtseries.nii", known.series(), 0.8)
    (row,) = _rows(tmp_path)
    assert "is not denoised" in row["reason"]


def test_denoising_them_again_is_refused(tmp_path):
    known.dtseries(tmp_path / VISIT / DENOISED, known.series(), 0.8)
    (row,) = _rows(tmp_path, strategy="paper")
    assert "set `strategy: none`" in row["reason"]


def test_derivatives_of_fmriprep_are_listed_as_anywhere(tmp_path):
    known.dtseries(
        tmp_path / VISIT / f"{STEM}_run-1_space-fsLR_den-91k_bold.dtseries.nii", known.series(), 0.8
    )
    (row,) = _rows(tmp_path, strategy="paper")
    assert (row["run"], row["kind"]) == ("1", "cifti")
    assert "no confounds table" in row["reason"]


@pytest.mark.parametrize("spelt", ["NDAR_INV01ABCDEF", "sub-NDARINV01ABCDEF", "NDARINV01ABCDEF"])
def test_ids_of_tables(spelt):
    assert abcd.label(spelt) == "NDARINV01ABCDEF"


def test_a_subject_whose_folder_may_not_be_read_is_not_left_out(tmp_path, monkeypatch):
    known.dtseries(tmp_path / VISIT / DENOISED, known.series(), 0.8)
    (tmp_path / "sub-NDARINV02").mkdir()
    for name in ("listdir", "scandir"):
        listed = getattr(os, name)

        def refused(place, listed=listed):
            if str(place).endswith("sub-NDARINV02"):
                raise PermissionError(13, "Permission denied", str(place))
            return listed(place)

        monkeypatch.setattr(os, name, refused)
    with pytest.raises(PermissionError):
        abcd.subjects(tmp_path)
