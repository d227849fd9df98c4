"""A small atlas in every space."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from bhx_prep.atlas import reference
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.io.meshes import MESHES

N_ROIS = 8
SPACE = "MNI152NLin2009cAsym"
NAMES = [f"17Networks_{h}_Vis_{i}" for h in ("LH", "RH") for i in range(1, N_ROIS // 2 + 1)]
MM = 12.0  # large voxels: few of them fill a head
ATLAS_AFFINE = np.array([[MM, 0, 0, -60], [0, MM, 0, -90], [0, 0, MM, -45], [0, 0, 0, 1]])
ATLAS_SHAPE = (11, 13, 9)


def write_templates(folder: Path) -> Path:
    """Blocks as parcels: R on a 12 mm grid, R / 2 on each hemisphere's mesh."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y, _ = np.indices(ATLAS_SHAPE)
    labels = np.where(x < 5, 1, np.where(x > 5, 5, 0)) + np.clip(y // 3, 0, 3) * (x != 5)
    labels *= np.pad(np.ones([n - 2 for n in ATLAS_SHAPE], int), 1)  # as in a head: background all round
    nib.save(nib.Nifti1Image(labels.astype(np.int16), ATLAS_AFFINE), folder / "atlas_volume.nii.gz")
    for n, mesh in MESHES.items():
        left = 1 + np.arange(n) * 4 // n
        left[n // 2 - 300 : n // 2 + 300] = 0
        right = np.where(left > 0, left + 4, 0)
        np.savez(folder / f"atlas_{mesh}.npz", left=left.astype(np.int16), right=right.astype(np.int16))
    metadata = {
        "label": "Schaefer17n8p",
        "names": NAMES,
        "hemisphere": [0] * 4 + [1] * 4,
        "space": SPACE,
        "files": {},
    }
    (folder / "atlas.json").write_text(json.dumps(metadata), encoding="utf-8")
    blocks = Atlas(
        "Schaefer17n8p", tuple(NAMES), SPACE, labels_volume=(labels.astype(np.int16), ATLAS_AFFINE)
    )
    reference.save(folder / reference.FILE, reference.measure(blocks))
    return folder
