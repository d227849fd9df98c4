"""What a step of the embedded workflow raises: data that cannot be used are a status, a bug stops the job."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

#: Runs the command once per planted error, in one process: importing nipype and ANTs takes seconds.
PLANTED = """
import json, pathlib, sys
import nibabel as nib
import numpy as np
from bhx_model.errors import DataError, SiteError
from bhx_prep.preproc.embedded import __main__ as command, bias, step

folder = pathlib.Path(sys.argv[1])
random = np.random.default_rng(0)
for name, shape in (("anat/sub-01_T1w", (30, 30, 30)), ("func/sub-01_task-rest_bold", (30, 30, 30, 12))):
    path = folder / "raw/sub-01" / f"{name}.nii.gz"
    path.parent.mkdir(parents=True)
    image = nib.Nifti1Image(random.integers(1, 99, shape).astype(np.int16), np.diag([6.0, 6.0, 6.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.0
    image.to_filename(path)
scans = [["sub-01/anat/sub-01_T1w.nii.gz", None, None], ["sub-01/func/sub-01_task-rest_bold.nii.gz", 2.0, None]]
(folder / "raw.json").write_text(json.dumps({"scans": {"01": scans}}))
(folder / "templates").mkdir()
for name in ("head_T1w.nii.gz", "head_mask.nii.gz"):
    nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)).to_filename(folder / "templates" / name)
(folder / "preproc.json").write_text(json.dumps({"embedded_resolution_mm": 4.0, "on_failure": "exclude"}))

def planted(error):
    def clean(*_):
        if error == "broadcast":
            return np.zeros(3) + np.zeros(4)
        if error == "key":
            return {}["zooms"]
        if error == "assert":
            assert not error
        if error == "data":
            raise DataError("the image is odd: 7 heads")
        if error == "machine":
            raise SiteError("the weights cannot be read: install them again")
        if error == "memory":
            raise MemoryError
        if error in ("disk", "empty"):
            raise OSError(28, "No space left on device", "x.nii.gz")
        if error == "quota":
            raise OSError(122, "Disk quota exceeded", "x.nii.gz")
        if error == "itk memory":
            raise RuntimeError("ITK ERROR: Image(0x1): Failed to allocate memory for image.")
        if error == "torch memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        if error == "torch":
            raise RuntimeError("Given groups=1, expected 4 channels, but got 3 channels instead")
        raise RuntimeError("Registration failed: ITK ERROR: All samples map\\n outside moving image buffer")
    return clean

def no_room_for_a_crash_file(node, traceback=None, hostname=None):
    path = pathlib.Path(node.config["execution"]["crashdump_dir"]) / f"crash-1-u-{node.name}-0.txt"
    path.touch()
    return str(path)

ends = {}
for error in ("broadcast", "key", "assert", "torch", "data", "itk", "memory", "itk memory", "torch memory", "disk",
              "quota", "machine", "no room", "empty"):
    room = step.full_disk
    if error == "no room":  # ITK is not even asked
        step.full_disk = lambda folders, room: f"the disk is full below {room} bytes"
    if error == "empty":
        from nipype.pipeline.plugins import linear
        linear.report_crash = no_room_for_a_crash_file
    bias.clean = planted(error)
    out = folder / error
    words = ["--subject", "01", "--cohort", "raw", "--root", folder / "raw", "--tasks", "rest", "--out", out]
    words += ["--templates", folder / "templates", "--preproc", folder / "preproc.json"]
    words += ["--scans", folder / "raw.json"]
    words += ["--status", out / "status.json", "--work", folder / "work"]
    try:
        code, raised = command.main([str(word) for word in words]), None
    except command.StepFailed as stopped:
        code, raised = None, str(stopped)
    status = out / "status.json"
    step.full_disk = room
    ends[error] = code, raised, json.loads(status.read_text()) if status.exists() else None
(folder / "ends.json").write_text(json.dumps(ends))
"""


def test_bugs_stop_the_job_and_unusable_data_exclude(ants_python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [ants_python, "-c", PLANTED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ends = json.loads((tmp_path / "ends.json").read_text())
    for error, last in (("broadcast", "ValueError: operands could not be broadcast"), ("key", "KeyError: 'zooms'"),
                        ("assert", "AssertionError"), ("torch", "RuntimeError: Given groups=1")):  # fmt: skip
        code, raised, status = ends[error]
        assert (code, status) == (None, None)  # no row
        assert "by a bug of BHX" in raised
        assert "Traceback" in raised
        assert "bias.py" in raised
        assert last in raised
    for error, reason in (("data", "the image is odd: 7 heads"), ("itk", "ANTs: All samples map outside")):
        code, raised, status = ends[error]
        assert (code, raised, status["status"]) == (0, None, "failed")
        assert f"step bias failed: {reason}" in status["reason"]
    for error in ("memory", "itk memory", "torch memory"):  # the job ends, nobody is excluded
        assert ends[error] == [1, None, None]
    for error in ("disk", "quota", "machine", "no room", "empty"):
        assert ends[error] == [1, None, None]
    assert done.stderr.count("the disk is full: free some space") == 1
    assert done.stderr.count("the quota is used up: free some space") == 1
    assert done.stderr.count("crash file is empty") == 1
    assert done.stderr.count("got no memory (sub-01 is not excluded") == 3
    assert done.stderr.count("the weights cannot be read: install them again") == 1
    assert done.stderr.count("ERROR the disk is full below 8388608 bytes") == 1
