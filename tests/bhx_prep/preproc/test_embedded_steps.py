"""Steps of the embedded workflow, run where ANTs is: in the second environment."""

from __future__ import annotations

import json
import subprocess

import pytest

SEGMENT_TWICE = """
import hashlib, pathlib, sys
import nibabel as nib
import numpy as np
from bhx_prep.preproc.embedded.segment import Segment

folder = pathlib.Path(sys.argv[1])
random = np.random.default_rng(0)
distance = np.linalg.norm(np.indices((28, 28, 28)) - 13.5, axis=0)
brain = (distance < 12).astype(np.uint8)
head = np.select([distance < 6, distance < 10, distance < 12], [90.0, 60.0, 25.0], 0) + random.normal(0, 12, distance.shape)
for name, values in (("head", (head * brain).astype(np.float32)), ("mask", brain)):
    nib.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])).to_filename(folder / f"{name}.nii.gz")
for run in ("a", "b"):
    (folder / run).mkdir()
    step = Segment(in_file=str(folder / "head.nii.gz"), mask=str(folder / "mask.nii.gz"))
    out = step.run(cwd=str(folder / run)).outputs
    found = np.asarray(nib.load(out.dseg).dataobj)
    tissue = "".join("-GWC"[v] for v in found[14, 14, [14, 22, 25, 27]])  # from the middle outwards
    print(tissue, *(hashlib.sha256(np.asarray(nib.load(f).dataobj).tobytes()).hexdigest() for f in (out.dseg, out.gm)))
"""


def test_tissues_are_found_and_equal_each_time(ants_python, tmp_path):
    command = [str(ants_python), "-c", SEGMENT_TWICE, str(tmp_path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = [line for line in lines if line.startswith(("W", "G", "C", "-")) and len(line.split()) == 3]
    assert len(found) == 2
    assert found[0] == found[1]
    assert found[0].startswith("WGC- ")


DESCRIBE = """
import pathlib, sys
from bhx_prep.preproc.embedded.derivatives import write_description
for place in map(pathlib.Path, sys.argv[1:]):
    write_description(place / "out", place / "raw", {})
"""

#: Descriptions of raw data, and whether the derivatives are synthetic then.
DESCRIBED = {
    "synthetic": ('{"Name": "made", "Synthetic": true}', True),
    "measured": ('{"Name": "measured"}', None),
    "broken": ("{", None),
    "absent": (None, None),
}


@pytest.fixture(scope="module")
def described(ants_python, tmp_path_factory):
    """Derivatives of all of them, by one process: it imports nipype."""
    places = {name: tmp_path_factory.mktemp(name) for name in DESCRIBED}
    for name, place in places.items():
        (place / "raw").mkdir()
        (place / "out").mkdir()
        content, _ = DESCRIBED[name]
        if content is not None:
            (place / "raw" / "dataset_description.json").write_text(content)
    subprocess.run([str(ants_python), "-c", DESCRIBE, *map(str, places.values())], check=True)
    return places


@pytest.mark.parametrize("name", DESCRIBED)
def test_derivatives_of_synthetic_data_say_so(described, name):
    _, synthetic = DESCRIBED[name]
    description = json.loads((described[name] / "out" / "dataset_description.json").read_text())
    assert description.get("Synthetic") is synthetic
    assert ("synthetic" in description["Name"]) == bool(synthetic)
