"""Mounts, user, network and exit codes are podman's; only the image is ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from container_engine import BARE


@pytest.mark.usefixtures("docker")
def test_a_subject_goes_through_a_real_container(job, tmp_path: Path):
    job("02", BARE)  # another subject is there, too
    end = job("01", BARE)
    assert end.code == 0, end.said
    assert end.status is not None
    assert end.status["status"] == "ok", end.log
    assert "arguments: /data /out participant --participant-label 01" in end.log
    assert "subjects: sub-01\n" in end.log
    assert "interfaces: lo \n" in end.log
    assert "could be written" not in end.log
    made = tmp_path / "preproc/sub-01/func/sub-01_task-rest_desc-preproc_bold.nii.gz"
    assert made.read_bytes() == (tmp_path / "raw/sub-01/func/sub-01_task-rest_bold.nii.gz").read_bytes()
    assert made.stat().st_uid == os.getuid()
