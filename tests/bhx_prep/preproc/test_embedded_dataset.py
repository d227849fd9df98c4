"""What the embedded workflow writes is a BIDS dataset whose files say what they are made of."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from bids_validation import errors

#: Saves the derivatives of one T1w and one run: every file that a step would give is a small image or a transform.
SAVE = """
import json, pathlib, sys
import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, isdefined, traits
from bhx_prep.preproc.embedded.derivatives import SaveAnat, SaveRun, write_description

folder = pathlib.Path(sys.argv[1])
out, raw = pathlib.Path("results/preproc"), pathlib.Path("raw")
image, series = str(folder / "image.nii.gz"), str(folder / "series.nii")
affine = np.diag([6.0, 6.0, 6.0, 1.0])
random = np.random.default_rng(0)
nib.Nifti1Image(random.integers(0, 4, (9, 9, 9)).astype(np.uint8), affine).to_filename(image)
nib.Nifti1Image(random.normal(size=(9, 9, 9, 5)).astype(np.float32), affine).to_filename(series)
affine_file, moved = folder / "affine.mat", ants.create_ants_transform(dimension=3)
ants.write_transform(moved, str(affine_file))
(folder / "table.tsv").write_text("a\\n1\\n")
(folder / "metadata.json").write_text("{}")
given = {
    "base": str(out), "sidecar": {"Synthetic": True, "TaskName": "rest"}, "tr_s": 2.0, "n_dummies": 1,
    "to_template": str(affine_file), "to_anat": str(affine_file), "bold_to_anat": str(affine_file),
    "bold": series, "table": str(folder / "table.tsv"), "metadata": str(folder / "metadata.json"),
    "anat": image, "timing": {"SliceTimingCorrected": False},
    "distortion": {"DistortionCorrection": "epi", "DistortionSources": ["bids:raw:sub-01/ses-a/fmap/sub-01_epi.nii.gz"]},
}
for step, more in (
    (SaveAnat, {"folder": "sub-01/ses-a/anat", "stem": "sub-01_ses-a", "resolution_mm": 6.0,
                "source": "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"}),
    (SaveRun, {"folder": "sub-01/ses-a/func", "stem": "sub-01_ses-a_task-rest", "spacing_mm": 6.0,
               "anat": "sub-01/ses-a/anat/sub-01_ses-a", "source": "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz"}),
):
    save = step()
    for name, trait in save.inputs.traits(mandatory=True).items():
        value = {**given, **more}.get(name, image if isinstance(trait.trait_type, File) else None)
        if value is not None:
            setattr(save.inputs, name, value)
    save.run(cwd=str(folder))
write_description(out, raw, json.loads(sys.argv[2]))
(out / "sub-01_status.json").write_text("{}")
(out / "logs").mkdir()
(out / "logs" / "sub-01_embedded.log").write_text("said")
"""


@pytest.fixture(scope="module")
def written(ants_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The derivatives in a study's folder."""
    study = tmp_path_factory.mktemp("study")
    (study / "raw").mkdir()
    about = {"Name": "Heads", "License": "CC0", "DatasetDOI": "doi:10.1/x", "Synthetic": True}
    (study / "raw/dataset_description.json").write_text(json.dumps(about))
    settings = {"embedded_resolution_mm": 6.0, "on_failure": "exclude", "fs_license": "/home/me/license.txt"}
    command = [ants_python, "-c", SAVE, str(study), json.dumps(settings)]
    subprocess.run(command, check=True, cwd=study)
    return study / "results/preproc"


def test_the_validator_of_bids_accepts_it(written: Path):
    assert errors(written) == []


def test_the_description_says_what_it_is_made_of(written: Path):
    about = json.loads((written / "dataset_description.json").read_text())
    assert about["SourceDatasets"] == [{"URL": "../../raw", "DOI": "doi:10.1/x"}]
    assert about["DatasetLinks"] == {"raw": "../../raw"}
    assert (written / about["DatasetLinks"]["raw"] / "dataset_description.json").is_file()
    assert (about["License"], about["Synthetic"]) == ("CC0", True)
    assert about["GeneratedBy"][0]["Name"] == "bhx-embedded"
    assert len(about["ConfigurationHash"]) == 64


def test_every_image_says_what_it_is_made_of(written: Path):
    images = sorted(
        path for path in written.rglob("sub-*") if path.is_file() and path.suffix in (".gz", ".h5", ".txt")
    )
    images = [path for path in images if path.parent.name in ("anat", "func")]
    assert len(images) > 14
    for path in images:
        about = json.loads(path.with_name(path.name.partition(".")[0] + ".json").read_text())
        assert about["Sources"], path
        assert about["Synthetic"] is True
        for source in about["Sources"]:
            scheme, dataset, place = source.split(":", 2)
            assert scheme == "bids"
            assert dataset == "raw" or (written / place).is_file(), (path.name, source)
