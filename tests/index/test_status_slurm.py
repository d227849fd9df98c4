"""What Slurm tells of a folder, through a stand-in for `squeue`; the real one is asked in tests/slurm."""

from __future__ import annotations

import asyncio
import json
import logging
import os

import pytest

from bhx_prep import cli, efficiency, slurm_jobs, slurm_patience

STUDY = {
    "cohorts": {"town": {"door": "parcellated", "root": "data"}},
    "experiments": {"demo": {"cohorts": ["town"], "preset": "tiny"}},
}


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Make `squeue` answer with these lines."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (tmp_path / "config.yaml").write_text(json.dumps(STUDY))

    def answer(*lines, status=0):
        script = "\n".join(["#!/bin/sh", *(f"echo '{line}'" for line in lines), f"exit {status}"])
        (tmp_path / "bin/squeue").write_text(script + "\n")
        (tmp_path / "bin/squeue").chmod(0o755)

    return answer


def test_only_jobs_of_this_folder_that_have_not_ended_count(queue, tmp_path):
    queue(
        f"7|RUNNING|1:02|n1|{tmp_path}|rule_train_encoder_wildcards_demo_structure",
        f"8|COMPLETED|1:02|n1|{tmp_path}|rule_train_encoder_wildcards_demo_function",
        f"9|PENDING|0:00||{tmp_path}/elsewhere|rule_train_fusion_wildcards_demo",
        f"10|RUNNING|0:09|n2|{tmp_path}|(null)",
    )
    (job,) = slurm_jobs.alive(tmp_path)
    assert (job.number, job.what, job.node) == ("7", "train_encoder_demo_structure", "n1")
    told = slurm_jobs.strays(tmp_path)
    assert told.startswith(
        "a Slurm job of an earlier run of this folder still in the queue: 7 (train_encoder_demo"
    )
    assert "`scancel 7`" in told


def test_no_slurm_or_a_silent_one_holds_nobody_up(queue, tmp_path):
    queue(status=1)
    assert slurm_jobs.alive(tmp_path) is None
    assert slurm_jobs.strays(tmp_path) is None
    queue()
    assert slurm_jobs.alive(tmp_path) == []
    assert slurm_jobs.strays(tmp_path) is None


def test_status_names_the_job_that_a_stage_is_at_work_in(queue, tmp_path, capsys):
    queue(f"7|RUNNING|1:02|n1|{tmp_path}|rule_batch_extract_features_pack_shards")
    log = tmp_path / "results/logs/slurm/group_batch/7.log"
    log.parent.mkdir(parents=True)
    targets = "extract_features:cohort=town,batch=00003 train_encoder:experiment=demo,stage=structure"
    log.write_text(f"  Host: n1\n  Command: snakemake --target-jobs {targets} --cores all\n")
    assert slurm_jobs.at_work(tmp_path, tmp_path / "results/logs/slurm") == {
        ("extract_features", "00003", "town"): "Slurm job 7 on n1, 1:02",
        ("train_encoder", "demo", "structure"): "Slurm job 7 on n1, 1:02",
    }
    assert cli.main(["status"]) == 0
    out = capsys.readouterr().out
    assert "running (structure): structure: Slurm job 7 on n1, 1:02" in out


def test_use_and_advice(queue, tmp_path, capsys):
    queue(f"7|PENDING|0:00||{tmp_path}|rule_train_fusion_wildcards_demo")
    folder = tmp_path / "results/benchmarks/extract_features/town"
    folder.mkdir(parents=True)
    header = "s\tmax_rss\tresources\n"
    asked = "{'mem_mb': 3000, 'runtime': 60, 'slurm_partition': 'cpu'}"
    (folder / "batch-00000.tsv").write_text(f"{header}600.0\t1800.0\t{asked}\n")
    (folder / "batch-00001.tsv").write_text(f"{header}1500.0\t900.0\t{asked}\n")
    (folder / "batch-00002.tsv").write_text(f"{header}0.1\tNA\t{asked}\n")
    (folder / "plain.tsv").write_text("s\tmax_rss\n1.0\t5.0\n")
    (use,) = efficiency.by_rule(tmp_path / "results")
    assert (use.rule, use.jobs, use.memory, use.memory_asked, use.minutes, use.minutes_asked) == (
        "extract_features", 2, 1800, 3000, 25, 60,
    )  # fmt: skip
    assert use.advice == {"mem_mb": 2700, "runtime": 50}
    assert cli.main(["status", "--jobs"]) == 0
    out = capsys.readouterr().out
    assert "1 jobs of this folder in Slurm's queue" in out
    assert "1,800 of 3,000 (60%)" in out
    assert "mem_mb=2700, runtime=50" in out


def test_a_silent_controller_is_asked_until_it_answers(monkeypatch):
    monkeypatch.setattr(slurm_patience, "PAUSE", 0.0)
    answers = [(None, None), (None, None), ({"7": "RUNNING"}, 0.1)]

    async def ask(command, logger):
        return answers.pop(0)

    patient = slurm_patience.until_answered(ask)
    assert asyncio.run(patient("squeue --me", logging.getLogger("test"))) == ({"7": "RUNNING"}, 0.1)
    ages = [None, 120, None]
    remembering = slurm_patience.last_known(lambda: ages.pop(0))
    assert [remembering() for _ in range(3)] == [300, 120, 120]


def test_the_plugin_still_has_what_is_made_patient():
    plugin = pytest.importorskip("snakemake_executor_plugin_slurm")
    before = plugin.query_job_status, plugin.get_min_job_age
    try:
        slurm_patience.install()
        assert plugin.query_job_status is not before[0]
        assert plugin.get_min_job_age is not before[1]
    finally:
        plugin.query_job_status, plugin.get_min_job_age = before
