"""Brain mask of a head, where deepbet is: in the second environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bhx_prep.atlas.sources import packages

FIND = """
import pathlib, socket, sys

def no_network(*_, **__):
    raise OSError("no network in this test")

socket.socket.connect = socket.getaddrinfo = no_network
import deepbet
import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from bhx_model.errors import DataError, SiteError
from bhx_prep.preproc.embedded.brain_mask import BrainMask, find_brain, largest_piece

folder = pathlib.Path(sys.argv[1])
head, brain = nib.load(sys.argv[2]), nib.load(folder / "brain.nii.gz")
affine = head.affine @ np.diag([3, 3, 3, 1.0])
grid = tuple((np.array(head.shape) // 3).tolist()), affine
resample_from_to(head, grid, order=1).to_filename(folder / "head.nii.gz")
found = BrainMask(in_file=str(folder / "head.nii.gz")).run(cwd=str(folder)).outputs.mask
mask = np.asarray(nib.load(found).dataobj) > 0
true = np.asarray(resample_from_to(brain, grid, order=0).dataobj) > 0
print("dice", 2 * (mask & true).sum() / (mask.sum() + true.sum()))
print("one piece", np.array_equal(mask, largest_piece(mask)))
# the same head, scanned obliquely and with much air around it
turn = np.eye(4)
turn[:3, :3] = [[0.94, -0.34, 0], [0.34, 0.94, 0], [0, 0, 1]]
turn[:3, :3] /= np.linalg.norm(turn[:3, :3], axis=0)
wide = np.diag([4, 4, 4, 1.0])
wide[:3, 3] = (-190, -210, -180)
small = resample_from_to(head, ((95, 100, 90), turn @ wide), order=1)
tilted = find_brain(small)
true = np.asarray(resample_from_to(brain, small, order=0).dataobj) > 0
print("oblique dice", 2 * (tilted & true).sum() / (tilted.sum() + true.sum()))
for values in (0.0, 7.0):
    nib.Nifti1Image(np.full((40, 40, 40), values, np.float32), affine).to_filename(folder / "flat.nii.gz")
    try:
        BrainMask(in_file=str(folder / "flat.nii.gz")).run(cwd=str(folder))
    except DataError as error:
        print("refused", error)

def broken(**_):
    raise RuntimeError("PytorchStreamReader failed reading zip archive")

deepbet.BrainExtraction = broken
try:
    BrainMask(in_file=str(folder / "head.nii.gz")).run(cwd=str(folder))
except SiteError as error:
    print("machine", error)
"""


def test_a_brain_is_found_upright_or_oblique_without_a_network_and_a_flat_image_has_none(
    ants_python: Path, tmp_path: Path
):
    packages.head_mask().to_filename(tmp_path / "brain.nii.gz")
    done = subprocess.run(
        [ants_python, "-c", FIND, str(tmp_path), str(packages.head_file())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    said = dict(
        line.rsplit(" ", 1) for line in lines if line.startswith(("dice", "one piece", "oblique dice"))
    )
    assert float(said["dice"]) > 0.95
    assert float(said["oblique dice"]) > 0.93
    assert said["one piece"] == "True"
    assert sum(line.startswith("refused no brain was found in the T1w image") for line in lines) == 2
    assert (
        sum(line.startswith("machine the weights of deepbet cannot be read (Pytorch") for line in lines) == 1
    )
