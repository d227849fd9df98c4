"""The cohort `lemon`: one real resting scan, in fMRIPrep's shape. Nothing here is synthetic.

sub-010188 of the LEMON study (Babayan et al. 2019, Scientific Data 6:180308), as brainspace packages it: on
fsaverage5, already denoised, low-passed and centred by the study's own pipeline, with the confounds that it used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

from bhx_model import __version__
from bhx_model.atomic_write import atomic_write, write_json
from bhx_prep.demo import folder, sources
from bhx_prep.io import motion

_README = """LEMON sub-010188, session 02, resting state: real data, nothing is synthetic

One resting scan of the LEMON study (Babayan et al. 2019, Scientific Data 6:180308), as the Python package brainspace
carries it: on fsaverage5, already denoised, low-passed and centred by the study's own pipeline, with the confounds
that it used. The values are unchanged; they were put into files of fMRIPrep's names. fMRIPrep never saw these data.
"""
SUBJECT, SESSION = "010188", "02"
STEM = f"sub-{SUBJECT}_ses-{SESSION}_task-rest_acq-AP_run-01"


def fill(root: Path, seed: int, each: folder.Each = map) -> None:
    """Write the cohort; `seed` and `each` have no effect on one real scan."""
    del seed, each
    func = root / f"sub-{SUBJECT}" / f"ses-{SESSION}" / "func"
    for hemi, values in zip("LR", sources.lemon_series(), strict=True):
        name = f"{STEM}_hemi-{hemi}_space-fsaverage5_bold"
        write_gifti(func / f"{name}.func.gii", values, hemi, sources.LEMON_TR_S)
        write_json(
            func / f"{name}.json",
            {
                "RepetitionTime": sources.LEMON_TR_S,
                "TaskName": "rest",
                "SpatialReference": "fsaverage5, 10242 vertices",
                "Synthetic": False,
                "Description": "As packaged: denoised, low-passed and centred by the study's pipeline",
            },
        )
    columns = confounds()
    folder.write_tsv(func / f"{STEM}_desc-confounds_timeseries.tsv", columns, digits=9)
    write_json(func / f"{STEM}_desc-confounds_timeseries.json", _described(columns))
    folder.write_tsv(root / "participants.tsv", {"participant_id": [f"sub-{SUBJECT}"]})
    write_json(
        root / "dataset_description.json",
        {
            "Name": "LEMON sub-010188, resting state on fsaverage5",
            "BIDSVersion": folder.BIDS_VERSION,
            "DatasetType": "derivative",
            "Synthetic": False,
            "GeneratedBy": [
                {"Name": "LEMON preprocessing", "Description": "The study's own pipeline; not fMRIPrep"},
                {
                    "Name": "bhx synth",
                    "Version": __version__,
                    "Description": "Put into fMRIPrep's files; values unchanged",
                },
            ],
            "ReferencesAndLinks": ["https://doi.org/10.1038/sdata.2018.308"],
        },
    )
    folder.write_text(root / "README", _README)
    folder.ignore_non_bids(root)


def confounds() -> dict[str, np.ndarray]:
    """The packaged confounds, by fMRIPrep's names where there is one: (652,) each.

    Intercept and trends are excluded: they are no measurements. Framewise displacement is computed from the motion.
    """
    given = sources.lemon_confounds()
    columns = {name: values for name, values in given.items() if not name.startswith("polynomial")}
    for name in columns:
        if name.endswith("_derivative1"):  # fMRIPrep leaves the first one empty, the study wrote 0
            columns[name] = np.concatenate([[np.nan], columns[name][1:]])
    fd = motion.framewise_displacement(sources.real_motion())
    return {"framewise_displacement": fd, **columns}


def _described(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    text = {
        "framewise": "Power et al. 2012, computed here from the motion columns (50 mm radius)",
        "a": "CompCor component of the study's pipeline, unit norm; its mask is not documented",
        "trans": "Translation of the study's motion correction (mm), or its backward difference",
        "rot": "Rotation of the study's motion correction (rad), or its backward difference",
        "motion": "1 in a frame that the study's pipeline called an outlier",
    }
    return {name: {"Description": text[name.split("_")[0]]} for name in columns}


def write_gifti(path: Path, values: np.ndarray, hemi: str, tr_s: float) -> None:
    """Write a surface series (V, T) as fMRIPrep does: one array a frame, float32."""
    arrays = [
        GiftiDataArray(
            np.ascontiguousarray(frame, np.float32),
            intent="NIFTI_INTENT_TIME_SERIES",
            datatype="NIFTI_TYPE_FLOAT32",
            meta=GiftiMetaData({"Name": f"frame {t}"}),
        )
        for t, frame in enumerate(values.T)
    ]
    side = {"L": "CortexLeft", "R": "CortexRight"}[hemi]
    meta = GiftiMetaData({"AnatomicalStructurePrimary": side, "TimeStep": str(tr_s)})
    with atomic_write(path) as part:
        nib.save(GiftiImage(meta=meta, darrays=arrays), part)
