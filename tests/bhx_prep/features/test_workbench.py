"""Parcellation of dense series beside Connectome Workbench, where that is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_templates import NAMES

from bhx_prep.features import parcellate
from bhx_prep.io.meshes import FSLR_VERTICES

WB = shutil.which("wb_command")


def write_labels(path: Path, labels: tuple[np.ndarray, np.ndarray], names: list[str]) -> None:
    """A CIFTI label file of both cortices."""
    axes = [
        nib.cifti2.BrainModelAxis.from_surface(np.arange(side.size), side.size, name)
        for side, name in zip(labels, ("CortexLeft", "CortexRight"), strict=True)
    ]
    table = {0: ("???", (0, 0, 0, 0))} | {i + 1: (name, (0.5, 0.5, 0.5, 1)) for i, name in enumerate(names)}
    header = nib.cifti2.Cifti2Header.from_axes((nib.cifti2.LabelAxis(["atlas"], [table]), axes[0] + axes[1]))
    nib.Cifti2Image(np.concatenate(labels)[None].astype(np.float32), header).to_filename(path)


@pytest.mark.skipif(WB is None, reason="wb_command is not installed (Debian: connectome-workbench)")
def test_dense_series_as_workbench_parcellates_them(tmp_path, rng, atlas):
    cortex = np.arange(FSLR_VERTICES) % 11 != 0  # holes, as the medial wall is one
    axes = [nib.cifti2.BrainModelAxis.from_mask(cortex, name=f"Cortex{side}") for side in ("Left", "Right")]
    header = nib.cifti2.Cifti2Header.from_axes((nib.cifti2.SeriesAxis(0, 0.8, 12), axes[0] + axes[1]))
    values = rng.normal(9000, 60, (12, 2 * cortex.sum())).astype(np.float32)
    run, atlas, out = (tmp_path / f"{name}.nii" for name in ("run.dtseries", "atlas.dlabel", "out.ptseries"))
    nib.Cifti2Image(values, header).to_filename(run)
    # Workbench refuses labels where the file has no data; we average what there is
    left, right = (np.where(cortex, side, 0) for side in atlas.surface("fsLR"))
    write_labels(atlas, (left, right), NAMES)
    subprocess.run([WB, "-cifti-parcellate", run, atlas, "COLUMN", out], check=True, capture_output=True)
    theirs = nib.load(out)
    order = [list(theirs.header.get_axis(1).name).index(name) for name in NAMES]
    ours = parcellate.parcellate_file(run, atlas).series
    np.testing.assert_allclose(ours, np.asarray(theirs.dataobj).T[order], rtol=1e-5)
