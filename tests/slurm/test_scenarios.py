"""`snakemake --profile slurm` on a real cluster: the same results as here, and every fault survived."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time

import mini_study
import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

WEIGHTS = "results/experiments/mini/structure/model.safetensors"
#: Enough for a fault to come in time: some 20 s.
STEPS = 200
LOG = "results/logs/train_encoder/mini_structure.log"


@pytest.fixture(scope="session")
def calm(tmp_path_factory, data, reference):
    """The longer training, undisturbed and without Slurm."""
    study = mini_study.MiniStudy(tmp_path_factory.mktemp("calm") / "study", data, like=reference)
    study.override("structure", steps=STEPS)
    assert study.run(WEIGHTS, profile=None) == 0, study.log()
    return study


@pytest.fixture
def training(finished):
    """A study whose longer training is due."""
    finished.override("structure", steps=STEPS)
    return finished


def same_weights(study, calm):
    name = WEIGHTS
    return (study.folder / name).read_bytes() == (calm.folder / name).read_bytes()


def wait_for_checkpoint(study, seconds=60):
    """Wait until the training has saved something that it can resume from."""
    before = set((study.folder / "results/runs").iterdir())
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        new = set((study.folder / "results/runs").iterdir()) - before
        if any(list(run.glob("step-*")) for run in new):
            return
        time.sleep(0.2)
    raise TimeoutError("no checkpoint")


def ended(process, seconds=180):
    try:
        return process.wait(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_whole_way_gives_the_same_hashes(slurm, data, reference, tmp_path):
    study = mini_study.MiniStudy(tmp_path / "study", data)
    assert study.run(environment=slurm.environment) == 0, study.log()[-5000:]
    ours, theirs = study.hashes(), reference.hashes()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert len(set(study.submitted())) < len(study.rules_run())  # short jobs share an allocation
    assert study.run("-n", environment=slurm.environment, log="again.log") == 0
    assert "Nothing to be done" in study.log("again.log")


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_training_gets_the_gpus_it_asks_for_and_no_more(slurm, finished, gpus):
    finished.config["experiments"]["mini"]["gpus"] = gpus
    finished.override("structure", steps=40)
    process = finished.start(WEIGHTS, environment=slurm.environment)
    (job,) = slurm.wait_for_running()
    seen = set()
    while process.poll() is None and not seen:
        seen = {variables["CUDA_VISIBLE_DEVICES"] for variables in environments(job, "bhx_model.train")}
        time.sleep(0.2)
    asked = slurm.command("scontrol", "show", "job", job)
    assert ended(process) == 0, finished.log()[-3000:]
    assert re.search(rf"TresPerJob=gres:gpu:{gpus}\b", asked), asked
    assert "Partition=gpu" in asked
    (devices,) = seen
    assert len(devices.split(",")) == gpus


def environments(job, module):
    """Environments of a job's processes that run a module."""
    for process in psutil.process_iter():
        try:
            variables = process.environ()
            if variables.get("SLURM_JOB_ID") == job and module in process.cmdline()[1:4]:
                yield variables
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def test_a_job_over_its_memory_is_killed_and_passes_with_more(slurm, finished):
    finished.override("structure", steps=8)
    status = finished.run(
        WEIGHTS, "--set-resources", "train_encoder:mem_mb=500*attempt", environment=slurm.environment
    )
    assert status == 0, finished.log()[-3000:]
    first, second = finished.submitted()
    told = {number: (state, memory) for number, state, memory in slurm.queue("%i %T %m")}
    assert told[first] in {("FAILED", "500M"), ("OUT_OF_MEMORY", "500M")}
    assert told[second] == ("COMPLETED", "1000M")
    assert (
        "exceeded memory limit"
        in next(finished.folder.glob(f"results/logs/slurm/**/{first}.log")).read_text()
    )


def test_a_training_at_its_time_limit_saves_and_resumes_to_the_same_bits(
    slurm, finished, data, reference, tmp_path
):
    finished.override("structure", steps=3)
    # of one minute nothing is left after the margin: each attempt does one step
    status = finished.run(
        WEIGHTS, "--set-resources", "train_encoder:runtime=1", environment=slurm.environment
    )
    assert status == 0, finished.log()[-3000:]
    assert [state for number, state in slurm.queue() if number in finished.submitted()] == [
        "FAILED", "FAILED", "COMPLETED",
    ]  # fmt: skip
    said = re.findall(r"^stopped after step (\d) of 3", finished.log(), flags=re.MULTILINE)
    assert said == ["1", "2"]
    straight = mini_study.MiniStudy(tmp_path / "straight", data, like=reference)
    straight.override("structure", steps=3)
    assert straight.run(WEIGHTS, profile=None) == 0
    assert same_weights(finished, straight)


def test_a_cancelled_job_runs_again(slurm, training, calm):
    process = training.start(WEIGHTS, WEIGHTS.replace("structure", "function"), environment=slurm.environment)
    running = slurm.wait_for_running()
    wait_for_checkpoint(training)
    chosen = random.Random(0).choice(running)
    slurm.command("scancel", chosen)
    assert ended(process) == 0, training.log()[-3000:]
    assert dict(slurm.queue())[chosen] == "CANCELLED"
    assert len(training.submitted()) == 2
    assert "going on from" in (training.folder / LOG).read_text()
    assert same_weights(training, calm)


def test_a_node_that_dies_takes_no_work_with_it(slurm, training, calm):
    process = training.start(WEIGHTS, environment=slurm.environment)
    (job,) = slurm.wait_for_running()
    wait_for_checkpoint(training)
    ((_, node),) = slurm.queue("%i %N", "RUNNING")
    slurm.kill_node(node, job)
    try:
        while dict(slurm.queue())[job] == "RUNNING":  # until slurmctld misses the node
            time.sleep(1)
        # Slurm gives a requeued job a pause of two minutes, which a test need not sit out
        slurm.command("scontrol", "update", f"jobid={job}", "StartTime=now")
        assert ended(process) == 0, training.log()[-3000:]
        told = {number: (state, where) for number, state, where in slurm.queue("%i %T %N")}
        assert told[job][0] == "COMPLETED"
        assert told[job][1] != node
        assert training.submitted() == [job]
        assert same_weights(training, calm)
    finally:
        slurm.start_node(node)
        slurm.command("scontrol", "update", f"nodename={node}", "state=resume", check=False)


def test_a_restart_of_the_controller_is_waited_for(slurm, training, calm):
    process = training.start(WEIGHTS, environment=slurm.environment)
    slurm.wait_for_running()
    wait_for_checkpoint(training)
    slurm.kill("slurmctld", signal.SIGTERM)
    try:
        time.sleep(25)  # the training ends meanwhile, and the plugin asks in vain
    finally:
        slurm.start_controller()
    assert ended(process) == 0, training.log()[-3000:]
    assert "Slurm answers again" in training.log()
    assert len(training.submitted()) == 1
    assert same_weights(training, calm)


def test_snakemake_killed_and_started_again_loses_and_doubles_nothing(slurm, training, calm):
    first = training.start(WEIGHTS, environment=slurm.environment)
    (job,) = slurm.wait_for_running()
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert training.run(WEIGHTS, environment=slurm.environment, log="locked.log") == 1
    assert "cannot be locked" in training.log("locked.log")
    assert training.run("--unlock", environment=slurm.environment, log="unlock.log") == 0
    assert training.run(WEIGHTS, environment=slurm.environment, log="early.log") == 1
    assert f"a Slurm job of an earlier run of this folder still in the queue: {job} (" in training.log(
        "early.log"
    )
    while dict(slurm.queue())[job] == "RUNNING":
        time.sleep(0.5)
    assert dict(slurm.queue())[job] == "COMPLETED"
    assert same_weights(training, calm)
    assert training.run(WEIGHTS, environment=slurm.environment, log="second.log") == 0
    # the finished training is found, not repeated
    assert "is finished: writing its outputs" in (training.folder / LOG).read_text()
    assert same_weights(training, calm)


def test_a_second_snakemake_on_the_folder_is_told_so(slurm, finished):
    finished.override("structure", steps=40)
    process = finished.start(WEIGHTS, environment=slurm.environment)
    slurm.wait_for_running()
    assert finished.run(WEIGHTS, environment=slurm.environment, log="second.log") == 1
    assert "Directory cannot be locked. Please make sure that no other Snakemake process" in finished.log(
        "second.log"
    )
    assert ended(process) == 0, finished.log()[-3000:]
    assert len(finished.submitted()) == 1


def test_what_can_never_run_is_refused_and_does_not_hang(slurm, finished):
    finished.override("structure", steps=5)
    began = time.monotonic()
    status = finished.run(
        WEIGHTS,
        "--set-resources",
        "train_encoder:mem_mb=9000000",
        "--retries",
        "0",
        environment=slurm.environment,
    )
    assert status == 1
    assert "Requested node configuration is not available" in finished.log() or "Memory" in finished.log()
    assert time.monotonic() - began < 60


def test_a_node_without_the_scratch_folder_works_in_tmp(slurm, finished):
    finished.override("structure", steps=40)
    folder = "/dev/null/scratch"  # root cannot make it either, as users cannot make /scratch
    (line,) = re.findall(r"# - (tmpdir=.*)", (finished.folder / "profiles/slurm/config.v8+.yaml").read_text())
    absent = "train_encoder:" + line.replace("/scratch", folder)
    process = finished.start(WEIGHTS, "--set-resources", absent, environment=slurm.environment)
    (job,) = slurm.wait_for_running()
    seen = set()
    while process.poll() is None and not seen:
        seen = {variables["TMPDIR"] for variables in environments(job, "bhx_model.train")}
        time.sleep(0.2)
    assert ended(process) == 0, finished.log()[-3000:]
    assert seen == {"/tmp"}


def test_two_processes_on_two_nodes_equal_one(slurm, finished, reference):
    finished.config["experiments"]["mini"]["gpus"] = 2
    finished.write_config()
    shutil.rmtree(finished.folder / "results/runs")  # or the training would find itself done
    across = [f"train_encoder:{fact}" for fact in ("mpi=srun", "nodes=2", "tasks=2", "tasks_per_gpu=0")]
    status = finished.run(WEIGHTS, "--set-resources", *across, environment=slurm.environment)
    assert status == 0, finished.log()[-3000:]
    (job,) = finished.submitted()
    assert [job, "n[1-2]"] in slurm.queue("%i %N")
    facts = json.loads((finished.folder / WEIGHTS).with_name("run.json").read_text())
    assert facts["machine"]["processes"] == 2
    two, one = (load_file(study.folder / WEIGHTS) for study in (finished, reference))
    assert two.keys() == one.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-5, err_msg=name)
