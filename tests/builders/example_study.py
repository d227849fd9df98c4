"""A study of one cohort with derivatives in the template's space: a head with a face, and templates."""

from __future__ import annotations

import json
from pathlib import Path

import fake_results
import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import review_files

from bhx_prep.config import config
from bhx_prep.config.config import Config
from bhx_prep.features.table_columns import QC_SCHEMA
from bhx_prep.ingest import index
from bhx_prep.io.spaces import MNI152

SPACE = MNI152[0]


def _save(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, review_files.AFFINE), path)


def _derivatives(root: Path, label: str) -> None:
    head, mask = review_files.head(), review_files.brain_mask().astype(np.uint8)
    for stem, suffix in ((f"anat/sub-{label}", "T1w"), (f"func/sub-{label}_task-rest", "bold")):
        start = root / f"sub-{label}" / f"{stem}_space-{SPACE}"
        values = head if suffix == "T1w" else np.repeat(head[..., None], 3, axis=3)
        _save(values, Path(f"{start}_desc-preproc_{suffix}.nii.gz"))
        _save(mask, Path(f"{start}_desc-brain_mask.nii.gz"))
        if suffix == "bold":
            _save(head, Path(f"{start}_boldref.nii.gz"))
            Path(f"{start}_desc-preproc_bold.json").write_text('{"RepetitionTime": 2.0}')
    table = pd.DataFrame({"framewise_displacement": [np.nan, 0.1, 0.1]})
    confounds = root / f"sub-{label}/func/sub-{label}_task-rest_desc-confounds_timeseries.tsv"
    table.to_csv(confounds, sep="\t", na_rep="n/a", index=False)


def write(root: Path, **settings: object) -> tuple[Config, Path]:
    """The study below a folder, its cohort ``town`` with changes to its section; the configuration and the results."""
    derivatives, results = root / "derivatives", root / "results"
    _derivatives(derivatives, "01")
    described = {
        "Name": "t",
        "BIDSVersion": "1.8.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "x"}],
    }
    (derivatives / "dataset_description.json").write_text(json.dumps(described))
    raw = {"cohorts": {"town": {"input": "fmriprep", "root": str(derivatives), "synthetic": True} | settings}}
    study = config.check(raw)
    fake_results.write_templates(results / "templates")
    review_files.write_templates(results / "templates")
    parcels = np.where(
        review_files.brain_mask(), 1 + np.indices(review_files.SHAPE)[1] // 4 % fake_results.R, 0
    )
    _save(parcels.astype(np.int16), results / "templates/atlas_volume.nii.gz")
    features = results / "town/features/batch-00000"
    features.mkdir(parents=True)
    table = index.build("town", study.cohorts["town"])
    pq.write_table(table, results / "town/index.parquet")
    rows = [
        dict.fromkeys(QC_SCHEMA.names)
        | {name: row[name] for name in ("cohort", "subject", "key", "modality", "status")}
        | {
            "synthetic": study.cohorts["town"].synthetic,
            "notes": [],
            "mean_fd_mm": 0.1,
            "tr_s": 2.0,
            "n_frames": 3,
        }
        for row in table.to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(rows, QC_SCHEMA), features / "qc.parquet")
    return study, results
