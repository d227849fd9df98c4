"""Grids of the embedded workflow, in the second environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

THIN_OUT = """
import json
import nibabel as nib
import numpy as np
from bhx_prep.preproc.embedded.grids import thin_out

turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])  # an oblique acquisition
found = {}
for name, zooms in {"fine": (0.5, 0.5, 0.5), "thick": (0.5, 0.5, 2.0), "1 mm": (1.0, 1.0, 1.0)}.items():
    affine = np.eye(4)
    affine[:3, :3] = turn * zooms
    affine[:3, 3] = (-11, 7, 3)
    shape = np.round(np.array([24, 28, 32]) / zooms).astype(int)
    world = np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices(shape).astype(float)) + affine[:3, 3, None, None, None]
    place = affine[:3, :3] @ (0.5 * shape) + affine[:3, 3] + (1.3, -0.7, 0.4)
    blob = np.exp(-((world - place[:, None, None, None]) ** 2).sum(axis=0) / 18)
    image = nib.Nifti1Image(blob.astype(np.float32), affine)
    thin = thin_out(image, 1.0)
    values = np.asarray(thin.dataobj, float)
    at = np.argwhere(np.ones(thin.shape)) @ thin.affine[:3, :3].T + thin.affine[:3, 3]
    centre = (values.ravel() @ at) / values.sum()
    volume = abs(np.linalg.det(thin.affine[:3, :3])) * values.sum() / (abs(np.linalg.det(affine[:3, :3])) * blob.sum())
    found[name] = {
        "zooms": [round(float(v), 4) for v in thin.header.get_zooms()],
        "shape": list(thin.shape),
        "off_mm": float(np.abs(centre - place).max()),
        "volume": float(volume),
        "same": thin is image,
    }
print(json.dumps(found))
"""


def test_a_fine_grid_becomes_one_of_1_mm_in_the_same_place(ants_python: Path):
    done = subprocess.run([ants_python, "-c", THIN_OUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["fine"]["zooms"], found["fine"]["shape"]) == ([1, 1, 1], [24, 28, 32])
    assert (found["thick"]["zooms"], found["thick"]["shape"]) == ([1, 1, 2], [24, 28, 16])
    assert found["1 mm"]["same"]
    for thin in found.values():
        assert thin["off_mm"] < 0.02
        assert thin["volume"] == pytest.approx(1, abs=0.01)
