"""What Slurm reports of a folder, through a stand-in for `squeue`; the real one is asked in tests/slurm."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import logging
import os
import shlex
import threading
from types import SimpleNamespace

import pytest

from bhx_prep import cli
from bhx_prep.config import config
from bhx_prep.slurm import efficiency, jobs, plugin_patch
from bhx_prep.trainings import Trainings

STUDY = {
    "cohorts": {"town": {"input": "timeseries", "root": "data"}},
    "experiments": {"demo": {"cohorts": ["town"], "preset": "tiny"}},
}


def structure_encoder() -> dict[str, str]:
    """Wildcards of the training of the study's structure encoder."""
    made = Trainings(config.check(STUDY))
    return {
        "trainset": made.trainset("demo"),
        "stage": "structure",
        "recipe": made.recipe("demo", "structure"),
    }


def target_of(rule: str, wildcards: dict[str, str]) -> str:
    """How Snakemake names what a job makes."""
    return f"{rule}:{','.join(f'{name}={value}' for name, value in wildcards.items())}"


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
        f"7|RUNNING|1:02|n1|{tmp_path}|rule_train_encoder_wildcards_demo_structure#1f6a09c3",
        f"8|COMPLETED|1:02|n1|{tmp_path}|rule_train_encoder_wildcards_demo_function",
        f"9|PENDING|0:00||{tmp_path}/elsewhere|rule_train_fusion_wildcards_demo",
        f"10|RUNNING|0:09|n2|{tmp_path}|(null)",
    )
    (job,) = jobs.alive(tmp_path)
    assert (job.number, job.what, job.node) == ("7", "train_encoder_demo_structure", "n1")
    warning = jobs.strays(tmp_path)
    assert warning.startswith(
        "a Slurm job of an earlier run of this folder still in the queue: 7 (train_encoder_demo"
    )
    assert "`scancel 7`" in warning


def test_no_slurm_or_a_silent_one_holds_nothing_up(queue, tmp_path):
    queue(status=1)
    assert jobs.alive(tmp_path) is None
    assert jobs.strays(tmp_path) is None
    assert "does not answer" in jobs.strays(tmp_path, submits=True)
    queue()
    assert jobs.alive(tmp_path) == []
    assert jobs.strays(tmp_path) is None


def test_status_names_the_job_that_a_stage_is_at_work_in(queue, tmp_path, capsys):
    queue(f"7|RUNNING|1:02|n1|{tmp_path}|rule_batch_extract_features_pack_shards")
    log = tmp_path / "results/logs/slurm/group_batch/7.log"
    log.parent.mkdir(parents=True)
    wildcards = structure_encoder()
    targets = f"extract_features:cohort=town,batch=00003 {target_of('train_encoder', wildcards)}"
    log.write_text(f"  Host: n1\n  Command: snakemake --target-jobs {targets} --cores all\n")
    assert jobs.at_work(tmp_path, tmp_path / "results/logs/slurm") == {
        ("extract_features", "00003", "town"): "Slurm job 7 on n1, 1:02",
        ("train_encoder", *sorted(wildcards.values())): "Slurm job 7 on n1, 1:02",
    }
    assert cli.main(["status"]) == 0
    out = capsys.readouterr().out
    assert "running (structure): structure: Slurm job 7 on n1, 1:02" in out


def test_status_says_which_job_failed_and_why_slurm_ended_it(queue, tmp_path, capsys):
    queue()
    logs, wildcards = tmp_path / "results/logs", structure_encoder()
    for number, said in (("7", ""), ("12", "slurmstepd: error: Job 12 exceeded memory limit (812 > 500)\n")):
        log = logs / f"slurm/rule_train_encoder/{number}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(
            f"  Command: snakemake --target-jobs {target_of('train_encoder', wildcards)} --x\n{said}"
        )
        os.utime(log, (int(number), int(number)))
    (logs / "train_encoder").mkdir()
    (logs / "train_encoder/{trainset}_{stage}-{recipe}.log".format(**wildcards)).write_text("step 12\n")
    assert cli.main(["status"]) == 0
    line = "structure: failed in Slurm job 12 (Job 12 exceeded memory limit (812 > 500)); last line: step 12"
    assert line in capsys.readouterr().out


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
    # a training's last job may be short because others went before it
    assert dataclasses.replace(use, rule="train_encoder").advice == {"mem_mb": 2700}
    assert cli.main(["status", "--jobs"]) == 0
    out = capsys.readouterr().out
    assert "1 jobs of this folder in Slurm's queue" in out
    assert "1,800 of 3,000 (60%)" in out
    assert "mem_mb=2700, runtime=50" in out


def test_a_silent_controller_is_asked_until_it_answers(monkeypatch):
    monkeypatch.setattr(plugin_patch, "PAUSE", 0.0)
    answers = [(None, None), (None, None), ({"7": "RUNNING"}, 0.1)]

    async def ask(command, logger):
        return answers.pop(0)

    patient = plugin_patch.until_answered(ask, threading.Event())
    assert asyncio.run(patient("squeue --me", logging.getLogger("test"))) == ({"7": "RUNNING"}, 0.1)
    ages = [None, 120, None]
    remembering = plugin_patch.last_known(lambda: ages.pop(0))
    assert [remembering() for _ in range(3)] == [300, 120, 120]


def test_a_job_that_was_preempted_for_good_has_ended(caplog):
    answers = [
        {"7": "PREEMPTED", "8": "PREEMPTED"},
        {"7": "PREEMPTED", "8": "PENDING", "9": "PREEMPTED"},
        {"7": "PREEMPTED", "8": "RUNNING", "9": "PREEMPTED"},
    ]

    async def ask(command, logger):
        return (answers.pop(0), 0.1) if answers else (None, None)

    patched = plugin_patch.preempted_end(ask)
    logger = logging.getLogger("test")
    found = [asyncio.run(patched("squeue --me", logger))[0] for _ in range(4)]
    assert [states and states["7"] for states in found] == ["PREEMPTED", "CANCELLED", "CANCELLED", None]
    assert [states and states["8"] for states in found] == ["PREEMPTED", "PENDING", "RUNNING", None]
    assert [states and states.get("9") for states in found] == [None, "PREEMPTED", "CANCELLED", None]
    assert caplog.messages == [
        f"Slurm cancelled job {job} to make room for another: it counts as failed." for job in "79"
    ]


@pytest.fixture
def submission(tmp_path, monkeypatch):
    """Submit to a stand-in for `sbatch` that runs these lines of shell; `$n` counts its calls."""
    monkeypatch.setattr(plugin_patch, "PAUSE", 0.0)
    interrupted = threading.Event()

    def submit(*lines):
        count = f"n=$(($(cat {tmp_path}/n 2>/dev/null || echo 0) + 1)); echo $n > {tmp_path}/n"
        script = tmp_path / "bin/sbatch"
        script.write_text("\n".join(["#!/bin/sh", count, *lines]) + "\n")
        script.chmod(0o755)
        call = "sbatch --parsable --comment rule_train_encoder_wildcards_demo_structure --wrap='true'"
        made = plugin_patch.Submission(call, logging.getLogger("test"), interrupted)
        return made, *made.communicate()

    submit.interrupted = interrupted
    submit.calls = lambda: int((tmp_path / "n").read_text())
    return submit


AWAY = "echo 'sbatch: error: Batch job submission failed: Unable to contact slurm controller' >&2; exit 1"


def test_a_job_is_submitted_until_the_controller_takes_it(queue, submission):
    queue("6|rule_train_encoder_wildcards_demo_structure#00000000", "5|(null)")
    made, out, err = submission(f"[ $n -gt 2 ] || {{ {AWAY}; }}", "echo 7")
    # the plugin takes words about a failed submission for one
    assert (made.returncode, out, err) == (0, "7\n", "")
    assert submission.calls() == 3


def test_a_job_that_was_taken_in_silence_is_found_by_its_mark(queue, submission, tmp_path):
    queue()
    answer = (
        f"for word; do case $word in rule_*) echo \"echo '7|$word'\" >> {tmp_path}/bin/squeue;; esac; done"
    )
    (tmp_path / "bin/squeue").write_text("#!/bin/sh\n")
    made, out, _ = submission(answer, AWAY)
    assert (made.returncode, out) == (0, "7")
    assert submission.calls() == 1


def test_a_refusal_is_passed_on_at_once(queue, submission):
    queue()
    made, _, err = submission("echo 'sbatch: error: invalid partition specified: cpus' >&2; exit 1")
    assert made.returncode == 1
    assert "invalid partition" in err
    assert submission.calls() == 1


def test_an_interrupted_snakemake_waits_for_no_controller(queue, submission):
    queue()
    submission.interrupted.set()
    made, _, err = submission(AWAY)
    assert made.returncode == 1
    assert "interrupted" in err


def test_the_plugin_still_has_what_is_made_patient(monkeypatch):
    plugin = pytest.importorskip("snakemake_executor_plugin_slurm")
    made_patient = ("query_job_status", "get_min_job_age", "cancel_slurm_jobs", "subprocess")
    before = {name: getattr(plugin, name) for name in made_patient}
    for name, value in before.items():
        monkeypatch.setattr(plugin, name, value)  # puts them back at the end
    plugin_patch.install()
    assert all(getattr(plugin, name) is not value for name, value in before.items())
    # the call of sbatch is made where it is looked for, and carries the comment that gets the mark
    assert "subprocess.Popen(" in inspect.getsource(plugin.Executor.run_job)
    assert "subprocess.Popen(" in inspect.getsource(plugin.Executor.run_array_jobs)
    params = {
        "run_uuid": "0", "slurm_logfile": "log", "comment_str": "rule_a_wildcards_b c", "account": "",
        "partition": "", "workdir": "/",
    }  # fmt: skip
    job = SimpleNamespace(threads=1, resources=Resources(mem_mb=1000))
    call = plugin.get_submit_command(job, params)
    marked = plugin_patch.Submission(call, logging.getLogger("test"), threading.Event())
    assert f"rule_a_wildcards_b c#{marked.mark}" in shlex.split(marked.call)


class Resources(dict):
    """Resources of a job as the plugin reads them: by key and by attribute."""

    __getattr__ = dict.__getitem__
