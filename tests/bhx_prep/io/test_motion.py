from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

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


@pytest.fixture
def moved():
    """Rigid transforms of a head: world of the reference -> world of the frame, (T, 4, 4)."""
    rng = np.random.default_rng(0)
    matrices = np.tile(np.eye(4), (12, 1, 1))
    matrices[:, :3, :3] = Rotation.from_rotvec(rng.normal(0, 0.02, (12, 3))).as_matrix()
    matrices[:, :3, 3] = rng.normal(0, 1, (12, 3))
    return matrices


@pytest.mark.parametrize("handedness", [1, -1])
def test_parameters_are_those_of_fsls_matrices(handedness, moved):
    """nitransforms writes the matrices that FSL would have, and scipy takes their angles apart."""
    nitransforms = pytest.importorskip(
        "nitransforms", reason="reads FSL's transforms: pip install 'bhx[dev]'"
    )
    shape, zooms = (56, 64, 34), np.array([3.0, 3.2, 4.0])
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec([0.2, -0.1, 0.15]).as_matrix() * zooms * [handedness, 1, 1]
    affine[:3, 3] = -80, -100, -50
    image = nib.Nifti1Image(np.zeros(shape, np.float32), affine)
    fsl = nitransforms.io.fsl.FSLLinearTransformArray.from_ras(moved, reference=image, moving=image)
    found = np.stack([transform["parameters"] for transform in fsl.xforms])

    voxel = np.array([27.0, 30.0, 15.0])
    parameters = motion.parameters(moved, affine, shape, voxel)
    rotations = found[:, :3, :3]
    angles = Rotation.from_matrix(rotations.transpose(0, 2, 1)).as_euler("XYZ")
    np.testing.assert_allclose(parameters[:, 3:], angles, atol=1e-9)
    if handedness == 1:  # FSL counts x from the other side then
        voxel[0] = shape[0] - 1 - voxel[0]
    centre = voxel * zooms
    shifts = found[:, :3, 3] - centre + rotations @ centre
    np.testing.assert_allclose(parameters[:, :3], shifts, atol=1e-5)

    # over a sphere of 80 mm: mean square of the displacement, by drawing points
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20000, 3))
    points *= 80 * rng.random((20000, 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    points += (np.array(shape) - 1) * zooms / 2
    step = found[1:] @ np.linalg.inv(found[:-1])
    change = points @ step[:, :3, :3].transpose(0, 2, 1) + step[:, None, :3, 3] - points
    drawn = np.sqrt((change**2).sum(axis=2).mean(axis=1))
    deviation = motion.rms_deviation(moved, affine, shape)
    assert np.isnan(deviation[0])
    np.testing.assert_allclose(deviation[1:], drawn, rtol=0.01)
