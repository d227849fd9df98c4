"""A T1 that does not lie like the template is told from one that does."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bhx_model.errors import DataError, SiteError
from bhx_prep.config.features import FeaturesSection
from bhx_prep.features import qc, t1w
from bhx_prep.features.template_overlap import Overlap, overlap

GRID = t1w.model_grid(2.0, (80, 96, 80))


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head whose inside is smooth chance, as files, and its arrays."""
    folder = tmp_path_factory.mktemp("head")
    place = np.moveaxis(np.indices(GRID.shape), 0, -1) @ GRID.affine[:3, :3].T + GRID.affine[:3, 3]
    inside = (((place - (0, -20, 12)) / (66, 82, 66)) ** 2).sum(-1) <= 1
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(GRID.shape), 2)
    data = np.where(inside, 500 + 100 * noise / noise.std(), 0).astype(np.float32)
    nib.save(nib.Nifti1Image(data, GRID.affine), folder / "head.nii.gz")
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), GRID.affine), folder / "mask.nii.gz")
    return folder, data, inside


def fit(head, data, inside):
    folder, _, _ = head
    nib.save(nib.Nifti1Image(data.astype(np.float32), GRID.affine), folder / "t1.nii")
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), GRID.affine), folder / "m.nii")
    volume = t1w.conform(folder / "t1.nii", GRID, folder / "m.nii")
    return overlap(volume, folder / "head.nii.gz", folder / "mask.nii.gz", GRID)


def test_the_same_head_fits(head):
    _, data, inside = head
    same = fit(head, data, inside)
    assert (same.dice, same.correlation) == (pytest.approx(1), pytest.approx(1))
    bias = np.exp(np.linspace(-0.7, 0.7, GRID.shape[1]))[None, :, None]
    assert fit(head, data * bias, inside).correlation > 0.9
    tight = ndimage.binary_erosion(inside, iterations=3)
    found = fit(head, data, tight)
    assert 0.85 < found.dice < 0.95
    assert found.correlation > 0.9


def test_other_places_and_contrasts_do_not(head):
    _, data, inside = head
    assert fit(head, -data + data.max() + 1, inside).correlation < -0.9
    for axis, step in ((1, 10), (2, 8)):
        moved = fit(head, np.roll(data, step, axis), np.roll(inside, step, axis))
        assert moved.dice < 0.9
        assert abs(moved.correlation) < 0.3
    assert abs(fit(head, data[:, :, ::-1], inside[:, :, ::-1]).correlation) < 0.3
    away = np.zeros(GRID.shape, np.float32)
    away[:9, :9, :9] = 1
    folder = head[0]
    assert overlap(away, folder / "head.nii.gz", folder / "mask.nii.gz", GRID) == Overlap(0.0, 0.0)


def test_a_damaged_template_is_no_scans_fault(head, tmp_path):
    (tmp_path / "head.nii.gz").write_bytes(b"torn")
    with pytest.raises(SiteError, match="fetch the templates again"):
        overlap(head[1], tmp_path / "head.nii.gz", head[0] / "mask.nii.gz", GRID)


def test_thresholds():
    qc.check_template(0.8, 0.5, FeaturesSection())
    for dice, correlation in ((0.79, 0.9), (1.0, 0.49)):
        with pytest.raises(DataError, match=f"Dice {dice:.2f}, correlation {correlation:.2f}") as caught:
            qc.check_template(dice, correlation, FeaturesSection())
        assert len(str(caught.value)) <= 200


def test_a_real_head(shared, templates_with_head):
    """Colin 27 lies like the template, but not upside down."""
    folder = templates_with_head
    colin = nib.load(shared("data/images/colin27_T1w.nii.gz"))
    mask = nib.load(folder / "head_mask.nii.gz")
    to = np.linalg.inv(mask.affine) @ colin.affine
    inside = ndimage.affine_transform(mask.get_fdata(dtype=np.float32), to, output_shape=colin.shape, order=0)
    for name, turn in (
        ("upright", np.eye(4)),
        ("upside down", [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 24], [0, 0, 0, 1]]),
    ):
        affine = np.asarray(turn) @ colin.affine
        nib.save(nib.Nifti1Image(np.asarray(colin.dataobj, np.float32), affine), folder / "t1.nii")
        nib.save(nib.Nifti1Image(inside.astype(np.uint8), affine), folder / "m.nii")
        coarse = t1w.model_grid(4.0, (40, 48, 40))
        volume = t1w.conform(folder / "t1.nii", coarse, folder / "m.nii")
        found = overlap(volume, folder / "head_T1w.nii.gz", folder / "head_mask.nii.gz", coarse)
        assert (found.correlation > 0.75) == (name == "upright")
        assert (found.correlation < 0.4) == (name != "upright")


@pytest.fixture
def templates_with_head(tmp_path):
    from bhx_prep.atlas.sources import packages

    (tmp_path / "head_T1w.nii.gz").write_bytes(packages.head_file().read_bytes())
    packages.head_mask().to_filename(tmp_path / "head_mask.nii.gz")
    return tmp_path
