"""``bhx t1w``, and the description of the T1s that it reads."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bhx_model.data.t1w_space import T1wSpace
from bhx_prep import cli
from bhx_prep.features import t1w, t1w_space


@pytest.fixture
def head(tmp_path):
    """A head whose inside is smooth chance, its mask, and the description with it as the template."""
    grid = t1w.model_grid(4.0, (40, 48, 40))
    place = np.moveaxis(np.indices(grid.shape), 0, -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    inside = (((place - (0, -20, 12)) / (66, 82, 66)) ** 2).sum(-1) <= 1
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(grid.shape), 1)
    data = np.where(inside, 500 + 100 * noise / noise.std(), 0).astype(np.float32)
    nib.save(nib.Nifti1Image(data, grid.affine), tmp_path / "T1w.nii.gz")
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), grid.affine), tmp_path / "mask.nii.gz")
    nib.save(nib.Nifti1Image(data[:, ::-1], grid.affine), tmp_path / "flipped.nii.gz")
    (tmp_path / "t1w.json").write_text(json.dumps({"t1w_resolution_mm": 4.0, "t1w_shape": [40, 48, 40]}))
    words = ["--t1w", "t1w.json", "--head", "T1w.nii.gz", "--mask", "mask.nii.gz", "--out", "t1w.npz"]
    given = [str(tmp_path / word) if not word.startswith("--") else word for word in words]
    assert t1w_space.main(given) == 0
    return tmp_path


def test_a_t1_is_brought_to_the_grid_of_weights(head, capsys):
    words = ["t1w", str(head / "T1w.nii.gz"), "--weights", str(head), "--out", str(head / "T1.npy")]
    assert cli.main([*words, "--mask", str(head / "mask.nii.gz")]) == 0
    space = T1wSpace.load(head / "t1w.npz")
    volume = np.load(head / "T1.npy")
    np.testing.assert_array_equal(volume, t1w.conform(head / "T1w.nii.gz", space.grid, head / "mask.nii.gz"))
    of_file = [*words[:3], str(head / "t1w.npz"), "--out", str(head / "again.npy")]
    assert cli.main([*of_file, "--mask", str(head / "mask.nii.gz")]) == 0
    np.testing.assert_array_equal(np.load(head / "again.npy"), volume)
    assert cli.main([*words, "--mask", str(head / "absent.nii.gz")]) == 1
    assert cli.main([words[0], str(head / "flipped.nii.gz"), *words[2:]]) == 1
    assert "flipped" in capsys.readouterr().err
    assert cli.main([*words[:2], "--weights", str(head / "absent"), "--out", str(head / "T1.npy")]) == 1
    assert f"there is no {head / 'absent'}: name an export" in capsys.readouterr().err
    (head / "bare").mkdir()
    assert cli.main([*words[:2], "--weights", str(head / "bare"), "--out", str(head / "T1.npy")]) == 1
    assert "does not describe its T1s" in capsys.readouterr().err
    assert cli.main([*words[:4], "--out", str(head / "T1.nii")]) == 1
    assert "written as .npy" in capsys.readouterr().err
