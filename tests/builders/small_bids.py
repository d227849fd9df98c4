"""Small BIDS folders with real NIfTI headers: a few voxels of 50 mm, so that a brain would fit."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np

from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import index


def write_image(
    path: Path, *, frames=None, tr_s=2.0, zooms=(50, 50, 50), units=("mm", "sec"), dtype=np.int16
):
    """An image of 4 x 4 x 4 voxels; 3D without `frames`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (4, 4, 4) if frames is None else (4, 4, 4, frames)
    image = nib.Nifti1Image(np.zeros(shape, dtype), np.diag([*zooms, 1]), dtype=dtype)
    image.header.set_xyzt_units(*units)
    if frames is not None:
        image.header["pixdim"][4] = tr_s
    image.to_filename(path)
    return path


def write_json(path: Path, **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))
    return path


def write_subject(root: Path, label: str = "01", *, sidecar=None, **bold):
    """A subject with a T1w image and one resting run of 10 frames."""
    folder = root / f"sub-{label}"
    write_image(folder / "anat" / f"sub-{label}_T1w.nii.gz")
    write_json(folder / "func" / f"sub-{label}_task-rest_bold.json", **(sidecar or {"RepetitionTime": 2.0}))
    return write_image(folder / "func" / f"sub-{label}_task-rest_bold.nii.gz", **{"frames": 10, **bold})


def rows_of(root: Path, name: str = "study", **cohort):
    """Rows of a cohort's index, as dicts."""
    return index.build(name, CohortSection(root=root, **{"input": "bids", **cohort})).to_pylist()


def the_bold(rows):
    """The only BOLD row."""
    (row,) = [row for row in rows if row["modality"] == "bold"]
    return row


def unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder
