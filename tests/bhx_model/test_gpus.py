"""GPUs of a machine, as a stand-in for nvidia-smi lists them: what a job sees, and that no other job has it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from bhx_model import gpus
from bhx_model.command_line import run_command
from bhx_model.errors import SiteError


def ids(found):
    return [gpu.uuid for gpu in found]


def test_gpus_are_as_nvidia_smi_lists_them(pretended_gpus):
    assert gpus.present() == []
    pretended_gpus("GPU-a", "GPU-b")
    assert ids(gpus.present()) == ["GPU-a", "GPU-b"]
    assert {(gpu.name, gpu.gb, gpu.driver) for gpu in gpus.present()} == {("H100", 80.0, "535.54")}


def test_an_nvidia_smi_that_fails_or_hides_numbers_lists_what_it_can(pretended_gpus):
    pretended_gpus("GPU-a", memory="[N/A]")
    assert gpus.present()[0].gb == 0
    pretended_gpus("GPU-a", status=9)
    assert gpus.present() == []


@pytest.mark.parametrize(
    ("stated", "seen"),
    [
        (None, ["GPU-a", "GPU-b", "GPU-c"]),
        ("", []),
        ("2,0", ["GPU-c", "GPU-a"]),
        ("GPU-b", ["GPU-b"]),
        ("1,7,0", ["GPU-b"]),
        ("-1", []),
        ("MIG-x,MIG-y", ["MIG-x", "MIG-y"]),
    ],
)
def test_what_cuda_would_see(pretended_gpus, stated, seen):
    pretended_gpus("GPU-a", "GPU-b", "GPU-c")
    environment = {} if stated is None else {gpus.VISIBLE: stated}
    assert ids(gpus.visible(gpus.present(), environment)) == seen


def test_a_job_without_gpus_sees_none(pretended_gpus):
    pretended_gpus("GPU-a")
    environment = {}
    gpus.reserve(0, environment)
    assert environment[gpus.VISIBLE] == ""


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({}, "2 GPUs asked for, and there is 1 here: change experiments"),
        ({gpus.VISIBLE: ""}, "and there is 1 here, of which CUDA_VISIBLE_DEVICES leaves none: change"),
    ],
)
def test_more_gpus_than_there_are_is_a_sentence(pretended_gpus, stated, said):
    pretended_gpus("GPU-a")
    with pytest.raises(SiteError, match=said):
        gpus.reserve(2, dict(stated))


def test_where_nothing_lists_gpus_nothing_is_hidden_and_that_is_said(caplog):
    environment = {gpus.VISIBLE: "0"}  # of a Slurm job in a container without nvidia-smi
    gpus.reserve(1, environment)
    assert environment == {gpus.VISIBLE: "0"}
    assert "1 GPU asked for, and nvidia-smi lists none here" in caplog.text


TAKES = """
import os, sys
from bhx_model import gpus
gpus.reserve(int(sys.argv[1]), os.environ)
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


def job(count, **more):
    """Another process that takes GPUs and holds them until its standard input is closed; what it sees."""
    process = subprocess.Popen(
        [sys.executable, "-c", TAKES.replace("from bhx_model import gpus", LOCKED_IN), str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | more,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


LOCKED_IN = "from pathlib import Path; from bhx_model import gpus; gpus.LOCKS = Path(os.environ['LOCKS'])"


def test_where_nothing_can_be_locked_gpus_are_taken_with_a_warning(pretended_gpus, monkeypatch, caplog):
    def no_locks(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    pretended_gpus("GPU-a", "GPU-b")
    monkeypatch.setattr(gpus.fcntl, "flock", no_locks)
    environment: dict[str, str] = {}
    gpus.reserve(1, environment)
    assert environment[gpus.VISIBLE] == "GPU-a"
    assert "has no locks (No locks available): other jobs may use the same GPUs" in caplog.text


def test_other_users_can_lock_what_a_user_with_a_strict_umask_made(pretended_gpus):
    pretended_gpus("GPU-a")
    before = os.umask(0o077)
    try:
        gpus.reserve(1, {})
    finally:
        os.umask(before)
    made = sorted(gpus.LOCKS.glob("bhx-gpu-*.lock"))
    assert made
    assert {path.stat().st_mode & 0o777 for path in made} == {0o644}


def test_two_jobs_never_share_a_gpu(pretended_gpus, monkeypatch):
    pretended_gpus("GPU-a", "GPU-b", "GPU-c")
    monkeypatch.setenv("LOCKS", str(gpus.LOCKS))
    first, seen = job(1)
    assert seen == "GPU-a"
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            first.kill()
            first.wait()

    environment = {}
    gpus.reserve(2, environment, sleep=wait)
    assert environment[gpus.VISIBLE] == "GPU-b,GPU-c"
    assert not waits
    gpus.reserve(1, environment := {}, sleep=wait)
    assert environment[gpus.VISIBLE] == "GPU-a", "free when the job that had it was killed"
    assert len(waits) == 2


def test_jobs_of_another_slurm_allocation_are_none_of_its_business(pretended_gpus):
    pretended_gpus("GPU-a")
    for number in ("7", "8"):
        environment = {"SLURM_JOB_ID": number}
        gpus.reserve(1, environment, sleep=lambda seconds: pytest.fail("it waits"))
        assert environment[gpus.VISIBLE] == "GPU-a"


def test_every_command_of_a_job_keeps_to_the_gpus_it_was_planned_with(pretended_gpus, monkeypatch, capsys):
    pretended_gpus("GPU-a", "GPU-b")
    seen = []
    for asked in ("0", "1"):
        monkeypatch.delenv(gpus.VISIBLE, raising=False)
        monkeypatch.setenv(gpus.ASKED, asked)
        assert run_command(lambda: seen.append(os.environ[gpus.VISIBLE])) == 0
        assert gpus.ASKED not in os.environ
    assert seen == ["", "GPU-a"]
    monkeypatch.setenv(gpus.ASKED, "3")
    assert run_command(lambda: pytest.fail("it ran")) == 1
    assert "ERROR 3 GPUs asked for" in capsys.readouterr().err
