"""Parcellation of dense series beside Connectome Workbench, where that is installed."""

from __future__ import annotations

import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
from atlas_files import write_label_file
from small_templates import NAMES

from bhx_prep.features import parcellate
from bhx_prep.io.meshes import FSLR_VERTICES

WB = shutil.which("wb_command")


@pytest.mark.skipif(WB is None, reason="wb_command is not installed (Debian: connectome-workbench)")
def test_dense_series_as_workbench_parcellates_them(tmp_path, rng, atlas):
    cortex = np.arange(FSLR_VERTICES) % 11 != 0  # holes, as the medial wall is one
    axes = [nib.cifti2.BrainModelAxis.from_mask(cortex, name=f"Cortex{side}") for side in ("Left", "Right")]
    header = nib.cifti2.Cifti2Header.from_axes((nib.cifti2.SeriesAxis(0, 0.8, 12), axes[0] + axes[1]))
    values = rng.normal(9000, 60, (12, 2 * cortex.sum())).astype(np.float32)
    run, labels, out = (tmp_path / f"{name}.nii" for name in ("run.dtseries", "atlas.dlabel", "out.ptseries"))
    nib.Cifti2Image(values, header).to_filename(run)
    # Workbench refuses labels where the file has no data; we average what there is
    left, right = (np.where(cortex, side, 0) for side in atlas.surface("fsLR"))
    write_label_file(labels, (left, right), NAMES)
    subprocess.run([WB, "-cifti-parcellate", run, labels, "COLUMN", out], check=True, capture_output=True)
    theirs = nib.load(out)
    order = [list(theirs.header.get_axis(1).name).index(name) for name in NAMES]
    ours = parcellate.parcellate_file(run, atlas).series
    np.testing.assert_allclose(ours, np.asarray(theirs.dataobj).T[order], rtol=1e-5)
