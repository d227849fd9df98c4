"""Skeletons of public data sets, laid out as their sources lay them out: a few ROIs, frames and voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_bids import write_image, write_json

STRATEGY = "Outputs/cpac/filt_global/rois_cc200"


def series(n_rois: int, n_frames: int = 40, seed: int = 0) -> np.ndarray:
    """Values that vary, ROI x frame."""
    return np.random.default_rng(seed).normal(size=(n_rois, n_frames)).cumsum(axis=1).round(4)


def write_pcp_table(path: Path, values: np.ndarray, mark: str = "") -> Path:
    """As C-PAC writes it: a line of region numbers (``# `` before it in some copies), then a line per frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = mark + "\t".join(f"#{i}" for i in range(1, len(values) + 1))
    lines = ["\t".join(f"{v:.6f}" for v in frame) for frame in values.T]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def write_athena_table(path: Path, values: np.ndarray) -> Path:
    """As AFNI's 3dROIstats writes it: file and sub-brick before the regions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = "File\tSub-brick\t" + "\t".join(f"Mean_{i}  " for i in range(1, len(values) + 1))
    name = path.name.replace("_cc200_TCs.1D", ".nii.gz")
    lines = [f"{name}\t{i}[?]\t" + "\t".join(f"{v:.6f}" for v in frame) for i, frame in enumerate(values.T)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def write_site(
    root: Path, site: str, labels: list[str], *, tr_s: float = 2.0, session: str | None = None
) -> Path:
    """One site of the raw release: repetition time in the site's own sidecar only."""
    write_json(root / site / "dataset_description.json", Name=site, BIDSVersion="1.0.2")
    write_json(root / site / "T1w.json", MagneticFieldStrength=3)
    write_json(root / site / "task-rest_bold.json", RepetitionTime=tr_s, TaskName="rest")
    (root / site / "participants.tsv").write_text(
        "participant_id\tage\n" + "".join(f"{label.lstrip('0')}\t9\n" for label in labels)
    )
    for label in labels:
        own = root / site / f"sub-{label}" / (f"ses-{session}" if session else "")
        name = f"sub-{label}" + (f"_ses-{session}" if session else "")
        write_image(own / "anat" / f"{name}_T1w.nii.gz")
        write_image(own / "func" / f"{name}_task-rest_run-1_bold.nii.gz", frames=10, tr_s=tr_s)
    return root
