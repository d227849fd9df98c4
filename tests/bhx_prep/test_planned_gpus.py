"""GPUs that a plan asks for, beside those that stand-ins for nvidia-smi and sinfo list."""

from __future__ import annotations

import pytest

from bhx_model import gpus
from bhx_model.errors import ConfigError, SiteError
from bhx_prep import planned_gpus
from bhx_prep.planned_gpus import PlannedJob
from bhx_prep.slurm import jobs


def training(gpus=0, preset="base", partition=None, experiment="demo"):
    return PlannedJob("train_encoder", experiment, preset, gpus, partition)


def test_more_gpus_than_this_machine_has_end_the_run_before_it_begins(pretended_gpus, monkeypatch):
    pretended_gpus("GPU-a")
    assert planned_gpus.check([training(1)], submits=False) == []
    with pytest.raises(SiteError, match="2 GPUs asked for, and there is 1 here: change experiments"):
        planned_gpus.check([training(1), training(2)], submits=False)
    assert planned_gpus.check([training(2)], submits=True) == [], "Slurm has others"
    monkeypatch.setenv(gpus.VISIBLE, "")
    with pytest.raises(SiteError, match="of which CUDA_VISIBLE_DEVICES leaves none"):
        planned_gpus.check([training(1)], submits=False)


def test_a_machine_without_gpus_is_said(pretended_gpus):
    (line,) = planned_gpus.check([training(2), training(2)], submits=False)
    assert line.startswith("experiments.demo.gpus: 2, but nvidia-smi lists no GPU here")
    assert planned_gpus.check([training(0)], submits=False) == []


def test_a_large_preset_beside_idle_gpus_is_said(pretended_gpus):
    pretended_gpus("GPU-a")
    (line,) = planned_gpus.check([training(0)], submits=False)
    assert line.startswith("experiments.demo.gpus: 0 trains preset base on the CPU")
    evaluation = PlannedJob("evaluate_model", "demo", "base", 0)
    assert planned_gpus.check([training(0, "tiny"), evaluation], submits=False) == []


def test_a_large_preset_without_gpus_in_a_partition_that_has_them_is_said(pretended_gpus, tmp_path):
    asked = [training(0, partition="gpu"), training(0, partition="cpu", experiment="other")]
    assert planned_gpus.check(asked, submits=True) == [], "no sinfo"
    sinfo = tmp_path / "commands" / "sinfo"
    sinfo.write_text('#!/bin/sh\ncase "$2" in *=gpu) echo "gpu:a100:8";; *) echo "(null)";; esac\n')
    sinfo.chmod(0o755)
    (line,) = planned_gpus.check(asked, submits=True)
    assert "experiments.demo.gpus: 0 trains preset base on the CPU" in line
    assert line.endswith("and partition gpu has GPUs: set gpus")
    assert planned_gpus.check([training(0, "tiny", "gpu"), training(1, partition="gpu")], submits=True) == []


def test_gpus_that_do_not_spread_evenly_over_the_nodes_end_the_run_before_it_begins(pretended_gpus):
    for gpus_, nodes in ((7, 2), (1, 2), (0, 2)):
        with pytest.raises(ConfigError, match=rf"gpus: {gpus_} cannot be spread evenly over the 2 nodes"):
            planned_gpus.check(
                [PlannedJob("train_fusion", "demo", "base", gpus_, "gpu", nodes)], submits=True
            )
    for nodes in (None, 1, 2, 8):
        assert not planned_gpus.check(
            [PlannedJob("train_fusion", "demo", "base", 8, "gpu", nodes)], submits=True
        )


def test_slurm_without_its_commands_as_in_a_container(pretended_gpus, tmp_path):
    mistakes, notes = jobs.lacking("squeue")
    assert "submits jobs by `sbatch`, not here" in mistakes[0]
    assert "asks for their states by `squeue`" in mistakes[1]
    assert not notes
    for name in ("sbatch", "sacct"):
        (tmp_path / "commands" / name).symlink_to("/bin/true")
    mistakes, (note,) = jobs.lacking("sacct")
    assert not mistakes
    assert note.startswith("there is no `squeue` here")
    assert jobs.strays(tmp_path, submits=True) is None
