from __future__ import annotations

import numpy as np
import pytest

from bhx_prep.io import motion


def test_rotations_count_on_a_sphere_and_the_first_frame_has_none():
    parameters = np.zeros((3, 6))
    parameters[1] = [1, -2, 0, 0.01, 0, -0.02]
    fd = motion.framewise_displacement(parameters)
    assert np.isnan(fd[0])
    np.testing.assert_allclose(fd[1:], [3 + 50 * 0.03] * 2)
    np.testing.assert_allclose(
        motion.framewise_displacement(parameters, radius_mm=80)[1:], [3 + 80 * 0.03] * 2
    )


def test_other_columns_than_six_are_a_bug_of_the_caller():
    with pytest.raises(ValueError, match=r"expected \(frames, 6\): trans_x"):
        motion.framewise_displacement(np.zeros((3, 5)))


def test_expansion_has_fmripreps_names():
    columns = motion.expand({"x": np.array([1.0, 3.0])})
    assert list(columns) == ["x", "x_derivative1", "x_derivative1_power2", "x_power2"]
    np.testing.assert_array_equal(columns["x_derivative1"], [np.nan, 2])
    np.testing.assert_array_equal(columns["x_derivative1_power2"], [np.nan, 4])
    np.testing.assert_array_equal(columns["x_power2"], [1, 9])
