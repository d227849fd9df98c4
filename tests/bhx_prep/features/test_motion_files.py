"""Motion that other pipelines wrote has fMRIPrep's names and units."""

from __future__ import annotations

import numpy as np
import pytest

from bhx_model.errors import DataError
from bhx_prep.features import confounds, motion_files
from bhx_prep.features.confounds_table import read_table
from bhx_prep.features.displacement import displacement
from bhx_prep.io import motion

TRUTH = np.random.default_rng(3).normal(0, 0.02, (30, 6))


def _write(path, values, header=""):
    np.savetxt(path, values, fmt="%.9f", header=header, comments="")
    return path


def _degrees(values):
    return np.hstack([values[:, :3], np.rad2deg(values[:, 3:])])


@pytest.mark.parametrize(
    ("name", "stored", "header"),
    [
        ("Movement_Regressors.txt", np.hstack([_degrees(TRUTH), np.zeros((30, 6))]), ""),
        ("prefiltered_func_data_mcf.par", TRUTH[:, [3, 4, 5, 0, 1, 2]], ""),
        ("sub-a_task-rest_run-1_motion.tsv", _degrees(TRUTH), "X Y Z RotX RotY RotZ"),
    ],
)
def test_every_file_gives_the_same_motion(tmp_path, name, stored, header):
    path = _write(tmp_path / name, stored, header)
    table, _ = read_table(path)
    np.testing.assert_allclose(table[list(motion.NAMES)], TRUTH, atol=1e-7)
    np.testing.assert_allclose(
        displacement(table, path)[0][1:], motion.framewise_displacement(TRUTH)[1:], atol=1e-6
    )


def test_relative_rms_is_displacement_and_the_note_says_which(tmp_path):
    path = _write(tmp_path / "Movement_RelativeRMS.txt", TRUTH[:, :1] ** 2)
    table, notes = motion_files.read(path)
    np.testing.assert_allclose(displacement(table, path)[0][1:], TRUTH[1:, 0] ** 2, atol=1e-8)
    assert "Jenkinson" in notes[0]


def test_a_strategy_that_asks_for_more_is_refused(tmp_path):
    path = _write(tmp_path / "Movement_Regressors.txt", _degrees(TRUTH))
    with pytest.raises(DataError, match=r"lacks global_signal"):
        confounds.select(confounds.load_strategy("paper"), path, 30)
    assert confounds.select(confounds.load_strategy("none"), path, 30).fd_mm.shape == (30,)


@pytest.mark.parametrize("content", ["", "1 2 3\n4 5 6\n", "a b c d e f\n", "1 2 3 4 5 nan\n"])
def test_what_is_no_motion_is_refused(tmp_path, content):
    path = tmp_path / "Movement_Regressors.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=r"Movement_Regressors\.txt"):
        motion_files.read(path)
