"""T1 volumes: MNI grid, intensities inside the brain, and no volume of another space."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bhx_prep.features import t1w


def brain(mm=2.0, centre=(0, -20, 12), radii=(66, 85, 68), flip=False):
    """An ellipsoid whose intensity is a known function of the place."""
    n = int(220 / mm)
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:3, 3] = -110, -130, -98
    if flip:
        affine[0] = -mm, 0, 0, 110
    place = np.moveaxis(np.indices((n, n, n)), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    inside = (((place - centre) / radii) ** 2).sum(-1) <= 1
    data = np.where(inside, 500 + place[..., 0] + 2 * place[..., 1] + 0.5 * place[..., 2], 0)
    return data.astype(np.float32), inside, affine


def save(path, data, affine):
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def test_grids():
    fine = t1w.model_grid(1.0, (160, 192, 160))
    np.testing.assert_array_equal(
        fine.affine[:3, 3], [-80, -113, -61]
    )  # from (-91, -126, -72) by (11, 13, 11)
    coarse = t1w.model_grid(2.0, (80, 96, 80))
    np.testing.assert_array_equal(
        coarse.affine[:3, 3], [-80, -114, -62]
    )  # from (-90, -126, -72) by (5, 6, 5)
    assert coarse.zooms_mm == [2, 2, 2]
    whole = t1w.model_grid(2.0, (91, 109, 91))
    np.testing.assert_array_equal(whole.affine[:3, 3], [-90, -126, -72])
    with pytest.raises(ValueError, match=r"does not fit into the MNI grid at 2 mm, \[91, 109, 91\]"):
        t1w.model_grid(2.0, (160, 192, 160))


@pytest.mark.parametrize("mm", [2.0, 3.0, 4.0])
@pytest.mark.parametrize("flip", [False, True])
def test_every_voxel_has_the_value_of_its_place(tmp_path, mm, flip):
    """From any resolution and orientation: a linear function of the place stays one."""
    data, inside, affine = brain(mm, flip=flip)
    mask = save(tmp_path / "mask.nii.gz", inside.astype(np.uint8), affine)
    data[~inside] = 90  # skull, to be masked away
    grid = t1w.model_grid(4.0, (40, 48, 40))
    found = t1w.conform(save(tmp_path / "t1.nii.gz", data, affine), grid, mask).astype(np.float64)
    assert found.dtype == np.float64
    assert found.shape == grid.shape
    place = np.moveaxis(np.indices(grid.shape), 0, -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    expected = 500 + place @ [1, 2, 0.5]
    deep = (((place - (0, -20, 12)) / (50, 70, 52)) ** 2).sum(-1) <= 1
    outside = (((place - (0, -20, 12)) / (72, 91, 74)) ** 2).sum(-1) > 1
    values = data[inside].astype(np.float64)
    low, high = np.percentile(values, (2, 98))
    middle = values[(values >= low) & (values <= high)]
    np.testing.assert_allclose(found[deep], (expected[deep] - middle.mean()) / middle.std(), atol=0.01)
    assert (found[outside] == 0).all()


def test_scale_of_the_scanner_does_not_matter(tmp_path):
    data, inside, affine = brain(4.0)
    mask = save(tmp_path / "m.nii.gz", inside.astype(np.uint8), affine)
    grid = t1w.model_grid(4.0, (40, 48, 40))
    a = t1w.conform(save(tmp_path / "a.nii.gz", data, affine), grid, mask)
    b = t1w.conform(save(tmp_path / "b.nii.gz", data * 37 + 1000, affine), grid, mask)
    assert a.dtype == np.float32
    np.testing.assert_allclose(a, b, atol=2e-2)
    c = t1w.conform(save(tmp_path / "c.nii.gz", data, affine), grid)  # stripped: needs no mask
    empty = np.where(data == 0, np.nan, data)  # as SPM and its kin write it
    np.testing.assert_array_equal(t1w.conform(save(tmp_path / "d.nii.gz", empty, affine), grid), c)
    np.testing.assert_array_equal(a, c)


def test_other_places_are_refused(tmp_path):
    grid = t1w.model_grid(4.0, (40, 48, 40))
    data, inside, affine = brain(4.0)

    def refused(message, data=data, affine=affine, mask=None, name="t.nii.gz"):
        with pytest.raises(ValueError, match=message):
            t1w.conform(save(tmp_path / name, data, affine), grid, mask)

    moved = affine.copy()
    moved[1, 3] += 60
    refused("is not in MNI space", affine=moved)
    refused("is not in MNI space", affine=affine * [[0.5], [0.5], [0.5], [1]])
    turned = affine[[1, 0, 2, 3]]
    refused("is not in MNI space", affine=turned)
    refused("voxels of 40", affine=affine * [[10], [10], [10], [1]])
    refused("skull was not stripped", data=brain(4.0, radii=(95, 105, 95))[0])
    refused("not skull-stripped", data=data + 100)
    refused("every voxel is the same", data=np.zeros_like(data))
    refused("every voxel is the same", data=np.full_like(data, np.nan))
    refused("one volume is expected", data=np.stack([data] * 2, -1))
    refused("complex64 values", data=data.astype(np.complex64))
    refused("all the same", data=np.where(inside, 5, 0).astype(np.float32))
    refused("another grid", mask=save(tmp_path / "m.nii.gz", np.ones((4, 4, 4), np.uint8), affine))
    refused("is empty", mask=save(tmp_path / "n.nii.gz", np.zeros(data.shape, np.uint8), affine))
    flat = affine.copy()
    flat[2] = 0
    image = nib.Nifti1Image(data, affine)
    image.set_sform(flat, 1)
    nib.save(image, tmp_path / "f.nii.gz")
    with pytest.raises(ValueError, match="cannot be inverted"):
        t1w.conform(tmp_path / "f.nii.gz", grid)
    path = save(tmp_path / "cut.nii.gz", data, affine)
    raw = path.read_bytes()
    wrong_length, wrong_checksum = raw[:-4] + b"\1\2\3\4", raw[:-8] + b"\1\2\3\4" + raw[-4:]
    good = save(tmp_path / "good.nii.gz", data, affine)
    for damaged in (raw[:50], raw[: len(raw) // 2], wrong_length, wrong_checksum):
        path.write_bytes(damaged)
        for words in ([path, grid], [good, grid, path]):  # the volume, and a mask
            with pytest.raises(ValueError, match=r"^cut\.nii\.gz (cannot be read|is no readable image)"):
                t1w.conform(*words)


def test_real_heads(shared):
    """Colin27 is in MNI space but has its skull; a run of EPI is no T1."""
    grid = t1w.model_grid(2.0, (80, 96, 80))
    with pytest.raises(ValueError, match="skull was not stripped"):
        t1w.conform(shared("data/images/colin27_T1w.nii.gz"), grid)
    with pytest.raises(ValueError, match="one volume is expected"):
        t1w.conform(shared("data/images/feeds_bold.nii.gz"), grid)
