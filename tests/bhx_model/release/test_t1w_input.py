"""A T1 image becomes what the weights read, by the export alone; one that is flipped or elsewhere is refused."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from tiny_shards import NAMES, export_words

import bhx_model
from bhx_model.data import t1w
from bhx_model.data.t1w_space import T1wSpace, space_of
from bhx_model.errors import ConfigError, DataError
from bhx_model.release import export

#: The tiny structure encoder's grid, in voxels that a head fits into.
GRID = t1w.model_grid(5.0, (32, 40, 32))


def head(shape, affine, seed=0):
    """Smooth chance inside an ellipsoid of a brain's size, and its mask; the same place has the same value in any grid."""
    fine = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((46, 56, 46)), 1.2)
    place = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    inside = (((place - (0, -20, 12)) / (66, 82, 66)) ** 2).sum(-1) <= 1
    index = np.moveaxis((place - (-90, -126, -72)) / 4, -1, 0)
    values = ndimage.map_coordinates(fine, index, order=1, mode="nearest")
    return np.where(inside, 500 + 100 * values / fine.std(), 0).astype(np.float32), inside.astype(np.uint8)


@pytest.fixture(scope="module")
def space():
    affine = np.diag([3.0, 3, 3, 1]) + np.array([[0, 0, 0, -90], [0, 0, 0, -126], [0, 0, 0, -72], [0] * 4])
    data, mask = head((61, 73, 61), affine)
    volume = t1w.conform(data, affine, GRID, "head", mask)
    return (
        space_of(GRID, "MNI152NLin2009cAsym", volume, min_dice=0.8, min_correlation=0.5),
        data,
        mask,
        affine,
    )


def test_what_is_saved_is_read(space, tmp_path):
    known, data, mask, affine = space
    known.save(tmp_path / "a.npz")
    known.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = T1wSpace.load(tmp_path / "a.npz")
    assert again.describe() == known.describe()
    assert json.dumps(again.describe())
    np.testing.assert_array_equal(again.conform(data, affine, mask), known.conform(data, affine, mask))
    (tmp_path / "c.npz").write_bytes(b"")
    with pytest.raises(DataError, match="take the export as it was made"):
        T1wSpace.load(tmp_path / "c.npz")


def test_a_shifted_volume_is_refused(space):
    known, data, mask, affine = space
    volume = known.conform(data, affine, mask)
    known.check(volume)
    known.check(volume + 3)  # whatever the background is
    for flipped, sentence in (
        (volume[::-1], "the T1 is mirrored|does not lie as"),
        (volume[:, ::-1], "is flipped front to back"),
        (volume[:, :, ::-1], "is upside down"),
        (volume[:, ::-1, ::-1], "is flipped front to back and upside down"),
        (np.roll(volume, 6, axis=1), "does not lie as MNI152NLin2009cAsym"),
        (-volume, "does not lie as MNI152NLin2009cAsym"),
        (np.zeros_like(volume), "does not lie as"),
    ):
        with pytest.raises(DataError, match=sentence) as raised:
            known.check(np.ascontiguousarray(flipped))
        assert len(str(raised.value)) <= 200


@pytest.mark.slow
def test_a_real_head_is_distinguished_from_its_mirror_image(shared):
    """Colin27 and the template are different people, whose asymmetry is alike."""
    packages = pytest.importorskip("bhx_prep.atlas.sources.packages")
    from nibabel.processing import resample_from_to
    from nilearn.datasets import load_mni152_brain_mask

    grid = t1w.model_grid(2.0, (80, 96, 80))
    half = np.diag([2.0, 2, 2, 1])
    head = nib.load(packages.head_file())
    template, affine = np.asarray(head.dataobj, np.float32)[::2, ::2, ::2], head.affine @ half
    coarse = nib.Nifti1Image(template, affine)
    brain = load_mni152_brain_mask(resolution=2)
    mask = np.asarray(resample_from_to(brain, coarse, order=0).dataobj)
    normal = t1w.conform(template, affine, grid, "template", mask)
    known = space_of(grid, "MNI152NLin2009cAsym", normal, min_dice=0.8, min_correlation=0.5)
    colin = nib.load(shared("data/images/colin27_T1w.nii.gz"))
    data, affine_of_colin = np.asarray(colin.dataobj, np.float32)[::2, ::2, ::2], colin.affine @ half
    other = nib.Nifti1Image(data, affine_of_colin)
    inside = np.asarray(resample_from_to(brain, other, order=0).dataobj)
    volume = known.conform(data, affine_of_colin, inside)
    with pytest.raises(DataError, match=r"is mirrored, left is right: its asymmetry correlates -0\.\d+ with"):
        known.check(np.ascontiguousarray(volume[::-1]))
    affine_of_colin[0] *= -1  # a header that takes left for right
    with pytest.raises(DataError, match="is mirrored"):
        known.conform(data, affine_of_colin, inside)


@pytest.fixture(scope="module")
def described(trained, space, tmp_path_factory):
    """An export of the tiny experiment that describes its T1s."""
    folder = tmp_path_factory.mktemp("described")
    grid = t1w.ModelGrid((32, 48, 32), GRID.affine)
    data, mask, affine = space[1:]
    volume = t1w.conform(data, affine, grid, "head", mask)
    space_of(grid, "MNI<152>", volume, min_dice=0.8, min_correlation=0.5).save(folder / "t1w.npz")
    how = {"town": {"strategy": "paper", "what": "<script>x</script> | cut"}}
    (folder / "how.json").write_text(json.dumps(how))
    words = [*export_words(trained, folder / "export"), "--t1w", str(folder / "t1w.npz")]
    assert export.main([*words, "--denoising", str(folder / "how.json")]) == 0
    return folder / "export"


def test_hub_tokens_of_images_from_the_export_alone(described, subject, space, tmp_path):
    series, tr_s, _ = subject
    _, data, mask, affine = space
    model = bhx_model.from_pretrained(described)
    image, inside = nib.Nifti1Image(data, affine), nib.Nifti1Image(mask, affine)
    nib.save(image, tmp_path / "T1w.nii.gz")
    nib.save(inside, tmp_path / "mask.nii.gz")
    volume = model.prepare_t1w(image, inside)
    assert volume.shape == (32, 48, 32)
    expected = model.embed(series, tr_s, NAMES, t1w=volume)
    found = model.embed(series, tr_s, NAMES, t1w=tmp_path / "T1w.nii.gz", mask=tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(model.embed(series, tr_s, NAMES, t1w=image, mask=mask), expected)
    np.save(tmp_path / "T1.npy", volume)
    np.testing.assert_array_equal(model.embed(series, tr_s, NAMES, t1w=tmp_path / "T1.npy"), expected)
    for t1, given, error, sentence in (
        (volume[:, ::-1], None, DataError, "the T1 is flipped front to back"),
        (
            nib.Nifti1Image(data[:, ::-1], affine),
            mask[:, ::-1],
            DataError,
            "not in MNI space|flipped|does not lie",
        ),
        (nib.Nifti1Image(data + 1, affine), None, DataError, "is not skull-stripped"),
        (image, mask[1:], DataError, "the brain mask has shape"),
        (image, nib.Nifti1Image(mask, np.eye(4)), DataError, "another affine"),
        (tmp_path / "absent.nii", None, DataError, "there is no such file"),
        (volume, mask, ConfigError, "an array is masked already"),
        (None, mask, ConfigError, "the mask is of a T1, and there is none"),
    ):
        with pytest.raises(error, match=sentence):
            model.embed(series, tr_s, NAMES, t1w=t1, mask=given)


def test_the_export_says_what_it_wants(described):
    about = json.loads((described / "config.json").read_text())
    assert about["export"] == 2
    assert about["t1w"]["template"] == "MNI<152>"
    assert about["t1w"]["affine"] == GRID.affine.tolist()
    assert about["denoising"]["town"]["strategy"] == "paper"
    card = (described / "README.md").read_text()
    assert "<script>" not in card
    assert "| town | paper | &lt;script&gt;x&lt;/script&gt; / cut |" in card
    assert "32 x 48 x 32 voxels of 5 x 5 x 5 mm" in card


def test_descriptions_that_do_not_belong(described, trained, exported, subject, tmp_path, capsys, space):
    space[0].save(tmp_path / "other.npz")
    words = [*export_words(trained, tmp_path / "out"), "--t1w", str(tmp_path / "other.npz")]
    assert export.main(words) == 1
    assert (
        "describes T1s of (32, 40, 32) voxels, the weights' grid is (32, 48, 32)" in capsys.readouterr().err
    )
    assert export.main([*words[:-1], str(tmp_path / "absent.npz")]) == 1
    # an export of before describes no T1: images are refused, arrays are taken
    folder = shutil.copytree(exported, tmp_path / "before")
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "export": 1}))
    series, tr_s, volume = subject
    model = bhx_model.from_pretrained(folder)
    assert model.embed(series, tr_s, NAMES, t1w=volume).shape == (16, 64)
    with pytest.raises(DataError, match="this export does not describe its T1s"):
        model.embed(series, tr_s, NAMES, t1w=nib.Nifti1Image(volume, np.eye(4)))
    folder = shutil.copytree(described, tmp_path / "cut")
    (folder / "t1w.npz").unlink()
    with pytest.raises(DataError, match=r"t1w\.npz is missing from the export"):
        bhx_model.from_pretrained(folder)
    shutil.copy(tmp_path / "other.npz", folder / "t1w.npz")
    with pytest.raises(DataError, match=r"t1w\.npz is not the file that was exported"):
        bhx_model.from_pretrained(folder)
