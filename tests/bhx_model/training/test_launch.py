"""Starting a training in several processes."""

from __future__ import annotations

import subprocess

import pytest

from bhx_model.errors import ConfigError, SiteError
from bhx_model.training import launch


def test_one_node_needs_no_slurm():
    assert launch.allocated_nodes({}) == 1
    assert "--nproc-per-node=4" in launch.command(4, ["-m", "bhx_model.train"], 1)


def test_processes_are_spread_evenly():
    words = launch.command(8, ["-m", "bhx_model.train"], 2)
    assert words[0] == "srun"
    assert "--processes=4" in words
    with pytest.raises(ConfigError, match="7 processes cannot be spread evenly over 2 nodes"):
        launch.command(7, [], 2)


@pytest.mark.parametrize(
    "answer", [FileNotFoundError("squeue"), subprocess.TimeoutExpired("squeue", 60), "slurm_load_jobs error"]
)
def test_a_slurm_that_does_not_answer_is_a_sentence(monkeypatch, capsys, answer):
    def run(command, **more):
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess(command, 0, stdout=answer)

    monkeypatch.setattr(launch.subprocess, "run", run)
    with pytest.raises(SiteError, match="how many nodes job 7 has"):
        launch.allocated_nodes({"SLURM_JOB_ID": "7"})
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert launch.main(["--processes", "4", "-m", "bhx_model.train"]) == 1
    assert "ERROR Slurm does not say how many nodes job 7 has" in capsys.readouterr().err
