"""Faults that are provoked in real containers, with nipype's, Python's, podman's and the kernel's own words."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from container_engine import ABSENT, EMPTY, FOREIGN, STAND_IN

from bhx_prep.preproc import container_process

pytestmark = pytest.mark.usefixtures("with_fmriprep")


def test_without_a_fault_it_is_ok(job, tmp_path):
    end = job("ok", STAND_IN)
    assert (end.code, end.status["status"]) == (0, "ok"), end.log
    assert (tmp_path / "preproc/sub-ok/anat/sub-ok_desc-preproc_T1w.nii.gz").is_file()
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("program", "the container lacks a program that fMRIPrep needs"),
        ("library", "the container lacks a program or library that fMRIPrep needs"),
        ("quota", "the quota is used up: free some space"),
    ],
)
def test_faults_of_the_site_end_the_job_and_exclude_nobody(job, label, said):
    end = job(label, STAND_IN)
    assert (end.code, end.status) == (1, None), end.log
    assert said in end.said


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (ABSENT, f"the image {ABSENT} is not on this machine and could not be fetched: docker pull {ABSENT}"),
        (EMPTY, f"the image {EMPTY} has no fmriprep to run"),
        (FOREIGN, f"the image {FOREIGN} is made for another kind of processor"),
    ],
)
def test_images_that_cannot_be_started_end_the_job(job, image, said):
    end = job("ok", image)
    assert (end.code, end.status) == (1, None), end.log
    assert said in end.said, end.log


def test_a_disk_that_fills_ends_the_job(job, small_disk):
    small_disk("work")
    end = job("filling", STAND_IN)
    assert (end.code, end.status) == (1, None), end.log
    assert "the disk is full: free some space" in end.said, end.log


@pytest.mark.parametrize("name", ["work", "preproc"])
@pytest.mark.parametrize("left", [0, 1 << 14, 1 << 16])
def test_a_disk_that_is_full_before_ends_the_job_at_whatever_stage(job, small_disk, name, left):
    fill(small_disk(name) / "large", left)
    end = job("ok", STAND_IN)
    if left and end.code == 0:  # it was enough
        assert end.status["status"] == "ok"
        return
    assert (end.code, end.status) == (1, None), end.log
    assert "the disk is full" in end.said, end.said
    assert "free some space" in end.said


@pytest.mark.parametrize("label", ["pool", "greedy"])
def test_a_lack_of_memory_ends_the_job_for_another_attempt_with_more(job, label, monkeypatch):
    monkeypatch.setattr(container_process, "BROKEN_S", 10)  # nipype may wait for the killed process for ever
    end = job(label, STAND_IN)
    assert (end.code, end.status) == (1, None), end.log
    assert "memory with 24000 MB (attempt 1): if no attempt follows, raise mem_mb of run_fmriprep" in end.said


def test_a_container_that_is_killed_is_a_lack_of_memory(job, docker, tmp_path):
    with when_it_runs(tmp_path, lambda: kill(docker)):
        end = job("waits", STAND_IN)
    assert (end.code, end.status) == (1, None), end.log
    assert "preprocessing ran out of memory with 24000 MB" in end.said, end.log


def test_a_job_that_is_asked_to_end_stops_its_container(job, docker, tmp_path):
    with (
        when_it_runs(tmp_path, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        pytest.raises(SystemExit) as stopped,
    ):
        job("waits", STAND_IN)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert running(docker) == []
    assert [path.name for path in (tmp_path / "preproc").iterdir()] == ["logs"]


@pytest.mark.parametrize(
    ("label", "node", "cause"),
    [
        ("registration", "register_template_wf.registration", "All samples map outside moving image buffer"),
        ("recon", "autorecon1", "ERROR: Talairach failed!"),
        ("corrupt", "t1w_conform", "OSError: Expected 18432 bytes, got "),
    ],
)
def test_what_crashes_a_node_is_the_persons_with_the_node_and_its_cause(job, label, node, cause):
    end = job(label, STAND_IN)
    assert (end.code, end.status["status"]) == (0, "failed"), end.log
    assert f"node anat_fit_wf.{node} crashed: " in end.status["reason"]
    assert cause in end.status["reason"]


def test_a_run_that_crashes_beside_three_leaves_the_three(job, tmp_path):
    end = job("onerun", STAND_IN, runs=[f"task-rest_run-{i}" for i in range(1, 5)])
    assert (end.code, end.status["status"]) == (0, "ok"), end.log
    [excluded] = end.status["excluded"]
    assert excluded["file"] == "sub-onerun_task-rest_run-4_bold.nii.gz"
    assert "node bold_task_rest_run_4_wf.bold_fit_wf.hmc crashed: OSError: Expected" in excluded["reason"]
    kept = list((tmp_path / "preproc/sub-onerun/func").glob("*_bold.nii.gz"))
    assert sorted(path.name[:26] for path in kept) == [f"sub-onerun_task-rest_run-{i}" for i in (1, 2, 3)]


def fill(path: Path, left: int) -> None:
    """Fill a disk but for some bytes."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))
    os.truncate(path, max(path.stat().st_size - left, 0))


class when_it_runs:
    """Do something as soon as the container is at work."""

    def __init__(self, tmp_path: Path, call):
        self.thread = threading.Thread(target=self._wait, args=(tmp_path / "work", call))

    def _wait(self, work, call):
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if list(work.glob("*/out/ready")):
                call()
                return
            time.sleep(0.05)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.thread.join()


def running(docker: Path) -> list[str]:
    return subprocess.run(
        [docker / "docker", "ps", "--quiet"], capture_output=True, text=True, check=True
    ).stdout.split()


def kill(docker: Path) -> None:
    for container in running(docker):
        subprocess.run([docker / "docker", "kill", container], check=True, capture_output=True)
