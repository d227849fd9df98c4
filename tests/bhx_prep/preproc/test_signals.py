"""Confounds of a run, in fMRIPrep's names and by its definitions."""

from __future__ import annotations

import numpy as np
import pytest

from bhx_model.errors import DataError
from bhx_prep.preproc.embedded import signals

V, T, TR = 600, 80, 2.0


@pytest.fixture
def run():
    rng = np.random.default_rng(0)
    brain = (1000 + rng.normal(0, 5, (V, T))).astype(np.float32)
    masks = signals.Masks(*(np.zeros(V, bool) for _ in range(3)))
    masks.white[:100] = masks.fluid[100:150] = masks.inner[50:] = True
    return rng, brain, masks


def _table(brain, masks, movement=None, n_dummies=0):
    movement = np.zeros((T, 6)) if movement is None else movement
    return signals.confounds(brain, masks, movement, np.arange(T) / T, TR, n_dummies)


def test_frames_of_motion_or_change_have_columns_of_their_own(run):
    _, brain, masks = run
    movement = np.zeros((T, 6))
    movement[20:, 1] = 0.6  # 0.6 mm from frame 19 to 20
    movement[40:, 3] = 0.009  # 0.45 mm on 50 mm: below
    brain[:, 60] += 40  # two changes of the signal
    columns, _ = _table(brain, masks, movement)
    found = {
        name: int(np.flatnonzero(v)[0]) for name, v in columns.items() if name.startswith("motion_outlier")
    }
    assert found == {"motion_outlier00": 20, "motion_outlier01": 60, "motion_outlier02": 61}
    assert all(columns[name].sum() == 1 for name in found)
    limits = columns["framewise_displacement"] > 0.5, columns["std_dvars"] > 1.5
    np.testing.assert_array_equal(np.flatnonzero(limits[0] | limits[1]), [20, 60, 61])


def test_what_varies_most_makes_tcompcor(run):
    rng, brain, masks = run
    noise = rng.normal(0, 1, T).astype(np.float32)
    chosen = np.arange(200, 211)  # 2 % of those inside
    brain[chosen] += 60 * noise
    brain[chosen] += 5 * np.arange(T)  # a drift, which does not count
    brain[10] += 500 * rng.normal(0, 1, T)  # at the border
    columns, described = _table(brain, masks)
    assert abs(np.corrcoef(columns["t_comp_cor_00"], noise)[0, 1]) > 0.95
    about = described["t_comp_cor_00"]
    assert (about["Method"], about["Retained"]) == ("tCompCor", True)
    assert "Mask" not in about
    assert described["t_comp_cor_01"]["CumulativeVarianceExplained"] > about["VarianceExplained"]
    assert np.flatnonzero(signals.most_variable(brain[masks.inner])).tolist() == (chosen - 50).tolist()


def test_averages_and_names(run):
    _, brain, masks = run
    columns, described = _table(brain, masks, n_dummies=2)
    np.testing.assert_allclose(columns["csf_wm"], brain[:150].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(columns["white_matter"], brain[:100].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(columns["rmsd"], np.arange(T) / T)
    for letter, mask in (("a", "combined"), ("c", "CSF"), ("w", "WM")):
        assert described[f"{letter}_comp_cor_00"]["Mask"] == mask
    for name, values in columns.items():
        assert len(values) == T
        if "comp_cor" in name or name.startswith("cosine"):
            assert not values[:2].any()
    assert [columns[f"non_steady_state_outlier0{i}"][i] for i in range(2)] == [1, 1]


def test_parts_give_what_the_whole_gives(run, monkeypatch):
    rng, brain, masks = run
    movement = np.cumsum(rng.normal(0, 0.05, (T, 6)), axis=0) * [1, 1, 1, 0.01, 0.01, 0.01]
    whole, _ = _table(brain, masks, movement)
    monkeypatch.setattr(signals, "PART_BYTES", 8 * T * 37)
    parts, _ = _table(brain, masks, movement)
    assert list(whole) == list(parts)
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-6, atol=1e-6)


def test_a_tissue_is_its_purest_voxels_or_is_not_there():
    inside = np.zeros((10, 10, 10), bool)
    inside[:5] = True
    likely = np.zeros(inside.shape)
    likely[4:6] = 0.97
    np.testing.assert_array_equal(signals.pure_tissue(likely, inside, "fluid"), inside & (likely > 0.9))
    few = np.zeros(inside.shape)
    few[0, 0], few[1] = 0.4, 0.1
    found = signals.pure_tissue(few, inside, "fluid")
    assert found[0, 0].all()
    assert not found[2:].any()
    with pytest.raises(DataError, match="0 of the run's voxels are fluid"):  # not the whole brain
        signals.pure_tissue(np.zeros(inside.shape), inside, "fluid")
