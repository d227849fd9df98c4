"""A plane takes off the face and leaves the brain whole, however the image lies in the scanner."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat

from bhx_model.errors import DataError, SiteError
from bhx_prep.dicom import deface


def head(tilt: float, flip: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A head of 1 everywhere, a ball of brain of 60 mm in it, and an affine of 4 mm voxels, tilted and flipped."""
    turned = euler2mat(z=tilt / 2, x=tilt) @ np.diag([-4.0 if flip else 4.0, 4.0, 4.0])
    affine = np.eye(4)
    affine[:3, :3] = turned
    shape = (50, 60, 55)
    affine[:3, 3] = -turned @ (np.array(shape) / 2)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    places = grid @ turned.T + affine[:3, 3]
    return np.linalg.norm(places, axis=-1) < 60, affine, places


@pytest.mark.parametrize(("tilt", "flip"), [(0.0, False), (0.3, True), (-0.2, False)])
def test_the_brain_is_kept_and_everything_in_front_and_below_is_removed(
    tilt: float, flip: bool, tmp_path: Path
):
    brain, affine, places = head(tilt, flip)
    file = tmp_path / "head.nii"
    nib.save(nib.Nifti1Image(np.ones(brain.shape, np.int16), affine), file)
    plane = deface.plane_of(brain, affine)
    assert plane == pytest.approx(65, abs=4)
    share = deface.cut(file, plane)
    left = np.asarray(nib.load(file).dataobj)
    assert left[brain].all()
    assert share == pytest.approx(1 - left.mean())
    front_and_below = places[..., 1] - places[..., 2] > 100
    assert front_and_below.any()
    assert not left[front_and_below].any()
    assert left[(places[..., 2] > 0) & (places[..., 1] < 85)].all()


def test_an_image_without_a_place_or_a_brain_is_refused(tmp_path: Path):
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), None)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(DataError, match="states no place in space"):
        deface.cut(tmp_path / "a.nii", 0.0)
    with pytest.raises(DataError, match="no brain was found"):
        deface.plane_of(np.zeros((4, 4, 4), bool), np.eye(4))


def test_the_other_environment_is_named_where_it_is_missing(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("BHX_ANTS_PYTHON", str(tmp_path / "none"))
    with pytest.raises(SiteError, match="to cut off faces"):
        deface.find_plane(tmp_path / "a.nii")
    lacking = tmp_path / "python"
    lacking.write_text("#!/bin/sh\necho 'ModuleNotFoundError: No module named deepbet' >&2\nexit 1\n")
    lacking.chmod(0o755)
    monkeypatch.setenv("BHX_ANTS_PYTHON", str(lacking))
    with pytest.raises(SiteError, match="lacks deepbet"):
        deface.find_plane(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("says", "code", "error"),
    [
        ("ERROR no brain was found in the T1w image: look at whether it is one", 1, DataError),
        ("", 137, SiteError),
        ("OSError: [Errno 28] No space left on device", 1, SiteError),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:117] not enough memory", 1, SiteError),
    ],
)
def test_only_an_image_without_a_brain_is_the_images_fault(says, code, error, tmp_path: Path, monkeypatch):
    ends = tmp_path / "python"
    ends.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {code}\n")
    ends.chmod(0o755)
    monkeypatch.setenv("BHX_ANTS_PYTHON", str(ends))
    with pytest.raises(error) as raised:
        deface.find_plane(tmp_path / "a.nii")
    assert type(raised.value) is error
    assert len(str(raised.value)) <= 200


def test_commands_that_cannot_be_used(tmp_path: Path):
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(SiteError, match="cannot be started"):
        deface.call([str(tmp_path / "none"), "{in}", "{out}"], tmp_path / "a.nii", tmp_path)
    other = (
        "import sys, nibabel as n, numpy as p; n.save(n.Nifti1Image(p.ones((3, 4, 4)), None), sys.argv[1])"
    )
    with pytest.raises(DataError, match="no image on the grid"):
        deface.call([sys.executable, "-c", other, "{out}", "{in}"], tmp_path / "a.nii", tmp_path)
