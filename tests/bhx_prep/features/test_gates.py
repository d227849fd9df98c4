"""What fMRIPrep made is judged by the limits of the embedded workflow."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from planted_heads import BRAIN, TEMPLATE, person, run_of

from bhx_model.errors import LimitError, SiteError
from bhx_prep.features import gates
from bhx_prep.quality import bold, limits

SPACE = "space-MNI152NLin2009cAsym"


def write(path: Path, values: np.ndarray, affine: np.ndarray = bold.AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), affine), path)
    return path


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("template")
    return write(folder / "head.nii", TEMPLATE), write(folder / "mask.nii", BRAIN)


@pytest.fixture
def anat(tmp_path) -> tuple[Path, Path]:
    return (
        write(tmp_path / f"sub-01_{SPACE}_desc-preproc_T1w.nii", person(1)),
        write(tmp_path / f"sub-01_{SPACE}_desc-brain_mask.nii", BRAIN),
    )


def run(folder: Path, picture: np.ndarray, space: str = SPACE) -> tuple[Path, Path]:
    write(folder / f"sub-01_task-rest_{space}_boldref.nii.gz", picture)
    mask = write(folder / f"sub-01_task-rest_{space}_desc-brain_mask.nii.gz", BRAIN)
    return folder / f"sub-01_task-rest_{space}_desc-preproc_bold.nii.gz", mask


def test_whose_run_it_is(tmp_path, anat, template):
    own = gates.of_bold(run(tmp_path / "own", run_of(person(1))), anat, template)
    limits.check(own, "bold")
    for name, picture in (("other", run_of(person(2))), ("mirrored", run_of(person(1))[::-1])):
        found = gates.of_bold(run(tmp_path / name, picture), anat, template)
        with pytest.raises(LimitError, match=r"coreg_likeness -?[\d.e-]+ \(limit 0.003\)"):
            limits.check(found, "bold")


def test_what_decides_nothing(tmp_path, anat, template):
    files = run(tmp_path, run_of(person(1)), "space-MNI152NLin6Asym")
    assert gates.of_bold(files, anat, template) == {}  # the T1w image lies in another space
    write(tmp_path / "sub-01_task-rest_desc-hmc_boldref.nii.gz", np.ones((4, 4, 4)), np.diag([8, 8, 4, 1]))
    coarse = run(tmp_path, run_of(person(1)))
    assert gates.of_bold(coarse, anat, template)["coreg_likeness"] is None  # measured with voxels of 8 mm
    (tmp_path / "sub-01_task-rest_desc-hmc_boldref.nii.gz").unlink()
    assert gates.of_bold(coarse, anat, template)["coreg_likeness"] is not None
    synthetic = write(tmp_path / f"sub-02_{SPACE}_desc-preproc_T1w.nii", TEMPLATE), anat[1]
    assert gates.of_bold(run(tmp_path, run_of(person(1))), synthetic, template)["coreg_likeness"] is None


def test_a_t1w_image_and_the_head_that_it_was_made_of(tmp_path, anat, template):
    assert gates.of_t1w(anat, template).keys() == {"tissue_contrast"}
    write(tmp_path / "sub-01_desc-preproc_T1w.nii.gz", np.where(BRAIN, 100, 5)[:, :, :40])
    write(tmp_path / "sub-01_desc-brain_mask.nii.gz", BRAIN[:, :, :40])
    found = gates.of_t1w(anat, template)
    assert set(found) == set(gates.COLUMNS["t1w"])
    with pytest.raises(LimitError, match=r"cut_cm2 \d+ \(limit 20\): does the image show the whole brain"):
        limits.check(found, "t1w")
    other = write(tmp_path / f"sub-03_{SPACE}_desc-preproc_T1w.nii", np.where(BRAIN, 300 - person(1), 0))
    with pytest.raises(LimitError, match="is it T1-weighted"):
        limits.check(gates.of_t1w((other, None), template), "t1w")


def test_a_damaged_template_is_no_scans_fault(tmp_path, anat):
    torn = tmp_path / "torn.nii.gz"
    torn.write_bytes(b"torn")
    with pytest.raises(SiteError, match="fetch the templates again"):
        gates.of_t1w(anat, (torn, torn))
