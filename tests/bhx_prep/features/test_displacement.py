"""Framewise displacement: the table's own, or computed, or said to be unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bhx_prep.features.displacement import displacement
from bhx_prep.io import motion

PATH = Path("c.tsv")


@pytest.fixture
def table(shared):
    rows = np.loadtxt(shared("data/images/motion_mcflirt_365x6.txt"))
    return pd.DataFrame(np.c_[rows[:, 3:], rows[:, :3]], columns=list(motion.NAMES))


def test_of_real_motion(table):
    fd, assumed = displacement(table, PATH)
    steps = np.abs(np.diff(table.to_numpy(), axis=0))
    np.testing.assert_allclose(fd[1:], steps[:, :3].sum(1) + 50 * steps[:, 3:].sum(1))
    assert np.isnan(fd[0])
    assert assumed == [
        "motion not measured as usual: c.tsv has no framewise_displacement: computed from the six motion parameters"
    ]
    given, assumed = displacement(table.assign(framewise_displacement=fd), PATH)
    np.testing.assert_array_equal(given, fd)
    assert not assumed


def test_of_real_tables(shared):
    """fMRIPrep's own column is Power's displacement of its own parameters; nilearn altered two values of one."""
    for name in ("v21", "v20_all_columns"):
        real = pd.read_csv(shared(f"data/fmriprep/confounds_{name}.tsv"), sep="\t", na_values=["n/a"])
        given, assumed = displacement(real, PATH)
        assert not assumed
        computed, assumed = displacement(real.drop(columns="framewise_displacement"), PATH)
        assert np.isclose(computed[1:], given[1:], atol=1e-5).sum() >= len(given) - 3
        assert len(assumed) == 1


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_gaps_are_computed(table, lost):
    fd, _ = displacement(table, PATH)
    gap = fd.copy()
    gap[40:60] = lost
    found, [note] = displacement(table.assign(framewise_displacement=gap), PATH)
    np.testing.assert_array_equal(found, fd)
    assert "n/a in 20 of 365 frames: computed" in note
    found, [note] = displacement(table.assign(framewise_displacement=0.0), PATH)
    np.testing.assert_array_equal(found, fd)
    assert "0 in every frame: computed" in note
    found, [note] = displacement(pd.DataFrame({"framewise_displacement": gap}), PATH)
    assert np.isnan(found[40:60]).all()
    assert "not measured in 20 frames" in note


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.iloc[:, :0], "parameters are missing: motion is not measured"),
        (lambda t: t.drop(columns="rot_x"), "rot_x is missing: motion is not measured"),
        (lambda t: t * 0, "never change: motion is not measured"),
        (lambda t: t * np.nan, "never change: motion is not measured"),
        (lambda t: t.assign(rot_y=np.linspace(-2, 2, len(t))), "in degrees, not in radians: motion is not"),
    ],
)
def test_what_is_not_measured_is_said(table, change, why):
    found, [note] = displacement(change(table), PATH)
    assert np.isnan(found).all()
    assert why in note


def test_negative_displacement_is_refused(table):
    with pytest.raises(ValueError, match="negative in frame 3"):
        displacement(table.assign(framewise_displacement=np.where(table.index == 3, -1, 0.1)), PATH)
