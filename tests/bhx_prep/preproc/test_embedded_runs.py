"""Runs through the whole embedded workflow: time, distortion and what is said of each. The anatomy is a stand-in."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

#: A subject whose T1w is the template; runs with slice times, with a field map, and with what cannot be used.
SUBJECT = """
import json, pathlib, sys
import ants
import nibabel as nib
import numpy as np
from planted_distortion import distort, head
from bhx_model.errors import DataError
from bhx_prep.preproc.embedded import __main__ as command, brain_mask, normalise, realign_step
from bhx_prep.quality import t1w as quality

folder = pathlib.Path(sys.argv[1])
random = np.random.default_rng(0)
raw = folder / "raw"
tr_s, n = 2.0, 30

def write(path, values, mm, dtype=np.int16):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:3, 3] = -mm * (np.array(values.shape[:3]) - 1) / 2
    image = nib.Nifti1Image(values.astype(dtype), affine)
    image.header.set_xyzt_units("mm", "sec")
    if values.ndim == 4:
        image.header["pixdim"][4] = tr_s
    image.to_filename(path)

def describe(path, **fields):
    path.write_text(json.dumps(fields))

t1w, _, brain = head((40, 48, 36))
write(raw / "sub-01/anat/sub-01_T1w.nii.gz", t1w, 4.0)
for name, values in (("T1w", t1w), ("mask", brain)):
    write(folder / f"templates/head_{name}.nii.gz", values, 4.0, np.float32)
small, moved, inside = head((20, 24, 18))
d = moved * 7 / 8
times = [i * tr_s / 18 for i in range(18)]
signal = lambda t: np.sin(2 * np.pi * 0.04 * t)
scans = [["sub-01/anat/sub-01_T1w.nii.gz", None, None]]
for run, sidecar in enumerate((
    {"SliceTiming": times, "PhaseEncodingDirection": "j", "TotalReadoutTime": 0.05},
    {},
    {"SliceTiming": [1000 * t for t in times]},
    {"PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.05},  # it is j
    {},  # its motion cannot be estimated
), 1):
    when = tr_s * np.arange(n) + np.array(times if run == 1 else [0] * 18)[:, None]
    still = distort(small, d, 1) if run in (1, 4) else small
    frames = still[..., None] * (1 + 0.05 * signal(when)) + random.normal(0, 1, (*small.shape, n))
    name = f"sub-01/func/sub-01_task-rest_run-{run}_bold"
    write(raw / f"{name}.nii.gz", np.maximum(frames, 0), 8.0)
    describe(raw / f"{name}.json", RepetitionTime=tr_s, TaskName="rest", **sidecar)
    scans.append([f"{name}.nii.gz", tr_s, None])
fmap = raw / "sub-01/fmap"
write(fmap / "sub-01_fieldmap.nii.gz", d / 0.05, 8.0, np.float32)
write(fmap / "sub-01_magnitude.nii.gz", small, 8.0)
meant = [f"func/sub-01_task-rest_run-{run}_bold.nii.gz" for run in (1, 4)]
describe(fmap / "sub-01_fieldmap.json", Units="Hz", IntendedFor=meant)
(folder / "raw.json").write_text(json.dumps({"scans": {"01": scans}}))
(folder / "preproc.json").write_text(json.dumps({"embedded_resolution_mm": 4.0, "on_failure": "exclude"}))

def same_space(self, work):
    path = str(work / "identity.mat")
    ants.write_transform(ants.create_ants_transform(dimension=3), path)
    self._results |= {"to_template": path, "to_anat": path}

realign_of_others = realign_step.Realign._compute

def realign(self, work):
    if "run-5" in work.name:
        raise DataError("planted")
    realign_of_others(self, work)

realign_step.Realign._compute = realign
normalise.Normalize._compute = same_space
quality.template_correlation = lambda *_: 0.9  # the stand-in is no head of MNI space
ants.n4_bias_field_correction = lambda image, **settings: image  # the head is even
brain_mask.probability = lambda values: brain.astype(np.float32)
out = folder / "out"
words = ["--subject", "01", "--cohort", "raw", "--root", raw, "--tasks", "rest", "--out", out]
words += ["--templates", folder / "templates", "--preproc", folder / "preproc.json", "--scans", folder / "raw.json"]
words += ["--status", out / "status.json", "--work", folder / "work"]
sys.exit(command.main([str(word) for word in words]))
"""


@pytest.fixture(scope="module")
def preprocessed(root: Path, ants_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The subject's derivatives."""
    folder = tmp_path_factory.mktemp("subject")
    code = f"import sys; sys.path.insert(0, {str(root / 'tests/builders')!r})\n{SUBJECT}"
    done = subprocess.run([ants_python, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status = json.loads((folder / "out/status.json").read_text())
    assert status["status"] == "ok", (status, (folder / "out/logs/sub-01_embedded.log").read_text()[-3000:])
    return folder / "out"


def _sidecar(out: Path, run: int) -> dict:
    (path,) = (out / "sub-01/func").glob(f"*_run-{run}_*desc-preproc_bold.json")
    return json.loads(path.read_text())


def test_what_was_done_to_a_run_stands_in_its_sidecar(preprocessed: Path):
    first, second = (_sidecar(preprocessed, run) for run in (1, 2))
    assert (first["SliceTimingCorrected"], first["StartTime"]) == (True, pytest.approx(17 / 18, abs=1e-3))
    assert first["DistortionCorrection"] == "fieldmap"
    assert first["DistortionSources"] == [
        f"bids:raw:sub-01/fmap/sub-01_{n}.nii.gz" for n in ("fieldmap", "magnitude")
    ]
    assert second["SliceTimingCorrected"] is False
    assert "StartTime" not in second
    assert second["DistortionCorrection"] == "none"
    assert second["DistortionNote"] == "distortion not corrected: no field map is intended for it"


def test_what_was_not_done_is_said_and_what_cannot_be_is_excluded(preprocessed: Path):
    status = json.loads((preprocessed / "status.json").read_text())
    name = "sub-01_task-rest_run-{}_bold.nii.gz"
    assert [note for note in status["notes"] if note["file"] != name.format(5)] == [
        {"file": name.format(2), "note": "slice timing not corrected: its sidecar has no SliceTiming"},
        {"file": name.format(2), "note": "distortion not corrected: no field map is intended for it"},
        {"file": name.format(4), "note": "slice timing not corrected: its sidecar has no SliceTiming"},
        {"file": name.format(4), "note": _sidecar(preprocessed, 4)["DistortionNote"]},
    ]
    assert "check PhaseEncodingDirection" in _sidecar(preprocessed, 4)["DistortionNote"]
    milliseconds, planted = status["excluded"]
    assert milliseconds["file"] == name.format(3)
    assert "milliseconds" in milliseconds["reason"]
    # steps of the others come after it, and were made
    assert planted == {"file": name.format(5), "reason": "step realign failed: planted"}


def test_time_and_place_are_right_in_standard_space(preprocessed: Path):
    nib = pytest.importorskip("nibabel")
    np = pytest.importorskip("numpy")
    (path,) = (preprocessed / "sub-01/func").glob("*_run-1_*desc-preproc_bold.nii.gz")
    (mask,) = (preprocessed / "sub-01/func").glob("*_run-1_space-*_desc-brain_mask.nii.gz")
    values, inside = nib.load(path).get_fdata(), nib.load(mask).get_fdata() > 0
    lines = [
        values[:, :, z][inside[:, :, z]].mean(axis=0)
        for z in range(values.shape[2])
        if inside[:, :, z].sum() > 20
    ]
    correlated = np.corrcoef(lines)
    assert correlated.min() > 0.97  # a phase of 0.04 Hz over 1.9 s would be 0.89
    header = (preprocessed / "sub-01/func/sub-01_task-rest_run-1_desc-confounds_timeseries.tsv").read_text()
    names = set(header.splitlines()[0].split("\t"))
    assert {"rmsd", "csf_wm", "t_comp_cor_00", "framewise_displacement", "std_dvars", "trans_x"} <= names
