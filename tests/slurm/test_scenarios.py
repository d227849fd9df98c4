"""`snakemake --profile slurm` on a real cluster: the same results as here, and every fault survived."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
from pathlib import Path

import mini_study
import numpy as np
import psutil
import pytest
from cluster import wait_until
from safetensors.numpy import load_file

STRUCTURE, FUNCTION = (
    f"results/experiments/mini/{stage}/model.safetensors" for stage in ("structure", "function")
)
#: Steps of the longer trainings: enough for a fault to come in time.
STEPS = {"structure": 120, "function": 20}
HARMONICS = "results/templates/harmonics.parquet"


@pytest.fixture(scope="session")
def calm(tmp_path_factory, data, reference):
    """The longer trainings, undisturbed and without Slurm."""
    study = mini_study.MiniStudy(tmp_path_factory.mktemp("calm") / "study", data, like=reference)
    lengthen(study)
    assert study.run(*study.weights("structure", "function"), profile=None) == 0, study.log()
    return study


@pytest.fixture
def training(finished):
    """A study whose longer trainings are to be run."""
    lengthen(finished)
    finished.remove("runs")
    return finished


def lengthen(study):
    for stage, steps in STEPS.items():
        study.override(stage, steps=steps)


def untrain(study):
    """Make the training run again, from its first step: it would find itself done in its run folder."""
    study.remove("experiments/mini/structure/model.safetensors", "runs")


def same_bytes(name, study, other):
    return (study.folder / name).read_bytes() == (other.folder / name).read_bytes()


def log_of_training(study, stage="structure"):
    (made,) = (Path(file).parent for file in study.weights(stage))
    return (study.folder / f"results/logs/train_encoder/{made.parent.name}_{made.name}.log").read_text()


def wait_for_checkpoint(study, stage="structure"):
    """Wait until a training has saved something that it can resume from."""
    runs = study.folder / "results/runs"
    wait_until(lambda: any(runs.glob(f"{stage}-*/step-*")), f"a checkpoint of {stage}")


def ended(process):
    return process.wait(timeout=600)


def processes(job):
    """Processes of a job, with their environments."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            variables = process.environ()
            if variables.get("SLURM_JOB_ID") == job:
                yield process, variables


def trainings(job, n=1):
    """Processes of a job that train, once all `n` have begun, with their environments."""

    def begun():
        found = []
        for process, variables in processes(job):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "bhx_model.train" in process.cmdline()[1:4]:
                    found.append((process, variables))
        return found if len(found) >= n else []

    return wait_until(begun, f"{n} processes of a training in job {job}")


def test_the_whole_way_gives_the_same_hashes(slurm, data, reference, tmp_path):
    study = mini_study.MiniStudy(tmp_path / "study", data)
    assert study.run(environment=slurm.environment) == 0, study.log()[-5000:]
    ours, theirs = study.hashes(), reference.hashes()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert len(set(study.submitted())) < len(study.rules_run())  # short jobs share an allocation
    assert study.run("-n", environment=slurm.environment, log="again.log") == 0
    assert "Nothing to be done" in study.log("again.log")


def test_trainings_get_the_gpus_they_ask_for_and_no_more(slurm, data, reference, tmp_path):
    """Three at once, which need all four GPUs: one, two, and one in the style of ``--gres``."""
    asked = {"one": 1, "two": 2, "gres": 1}
    asking = {
        "one": "TresPerJob=gres:gpu:1",
        "two": "TresPerJob=gres:gpu:2",
        "gres": "TresPerNode=gres:gpu:1",
    }
    # on the command line they go instead of the profile's, the partition too
    by_gres = [f"train_encoder:{fact}" for fact in ("slurm_partition=gpu", "gpu=0", "gres=gpu:1")]
    studies, processes, used = {}, {}, []
    for name, gpus in asked.items():
        studies[name] = study = mini_study.MiniStudy(tmp_path / name, data, like=reference)
        study.config["experiments"]["mini"]["gpus"] = gpus
        study.write_config()
        untrain(study)
        words = ["--set-resources", *by_gres] if name == "gres" else []
        processes[name] = study.start(*study.weights("structure"), *words, environment=slurm.environment)
    with contextlib.ExitStack() as held:
        for name, gpus in asked.items():
            (job,) = wait_until(studies[name].submitted, f"job {name}")
            (visible,) = {variables["CUDA_VISIBLE_DEVICES"] for _, variables in trainings(job, gpus)}
            assert len(visible.split(",")) == gpus
            metadata = slurm.command("scontrol", "show", "--details", "job", job)
            held.enter_context(slurm.paused(job))
            assert "Partition=gpu" in metadata
            assert re.search(rf"{asking[name]}\b", metadata), metadata
            # what the job was given, in Slurm's own words
            (given,) = re.findall(r" GRES=gpu:(\d+)\(IDX:", metadata)
            assert int(given) == gpus, metadata
            node = dict(slurm.queue("%i %N"))[job]
            used += [(node, device) for device in visible.split(",")]
    assert len(used) == len(set(used)) == 4, f"two jobs were given the same GPU: {used}"
    for name in asked:
        assert ended(processes[name]) == 0, studies[name].log()[-3000:]


def test_a_job_over_its_memory_is_killed_and_passes_with_more(slurm, finished):
    finished.override("structure", steps=8)
    status = finished.run(
        *finished.weights("structure"),
        "--set-resources",
        "train_encoder:mem_mb=500*attempt",
        environment=slurm.environment,
    )
    assert status == 0, finished.log()[-3000:]
    first, second = finished.submitted()
    queued = {number: (state, memory) for number, state, memory in slurm.queue("%i %T %m")}
    assert queued[first] in {("FAILED", "500M"), ("OUT_OF_MEMORY", "500M")}
    assert queued[second] == ("COMPLETED", "1000M")
    log = next(finished.folder.glob(f"results/logs/slurm/**/{first}.log")).read_text()
    assert "exceeded memory limit" in log


def test_a_training_at_its_time_limit_saves_and_resumes_to_the_same_bits(
    slurm, finished, data, reference, tmp_path
):
    finished.override("structure", steps=3)
    # of one minute nothing is left after the margin: each attempt does one step
    status = finished.run(
        *finished.weights("structure"),
        "--set-resources",
        "train_encoder:runtime=1",
        environment=slurm.environment,
    )
    assert status == 0, finished.log()[-3000:]
    assert [slurm.state(job) for job in finished.submitted()] == ["FAILED", "FAILED", "COMPLETED"]
    said = re.findall(r" stopped after step (\d) of 3", finished.log(), flags=re.MULTILINE)
    assert said == ["1", "2"]
    straight = mini_study.MiniStudy(tmp_path / "straight", data, like=reference)
    straight.override("structure", steps=3)
    assert straight.run(*straight.weights("structure"), profile=None) == 0
    assert same_bytes(STRUCTURE, finished, straight)


@pytest.mark.long_scenario
def test_a_training_that_slurm_ends_at_its_limit_resumes_to_the_same_bits(slurm, training, calm):
    """It hangs, so that it cannot save in time: Slurm itself ends it, and the next attempt resumes."""
    process = training.start(
        *training.weights("structure"),
        "--set-resources",
        "train_encoder:runtime=2*attempt",
        environment=slurm.environment,
    )
    (job,) = slurm.wait_for_running()
    wait_for_checkpoint(training)
    for stopped, _ in trainings(job):
        stopped.suspend()
    wait_until(lambda: slurm.state(job) == "TIMEOUT", "the time limit")
    assert ended(process) == 0, training.log()[-3000:]
    assert len(training.submitted()) > 1
    assert "resuming from" in log_of_training(training)
    assert same_bytes(STRUCTURE, training, calm)


def test_a_cancelled_job_runs_again(slurm, training, calm):
    process = training.start(*training.weights("structure", "function"), environment=slurm.environment)
    jobs = wait_until(lambda: training.submitted() if len(training.submitted()) == 2 else [], "two jobs")
    queued = [(job, comment) for job, comment in slurm.queue("%i %k")]
    of_stage = {stage: job for stage in STEPS for job, comment in queued if f"_{stage}_" in comment}
    with contextlib.ExitStack() as held:
        for stage in STEPS:
            assert of_stage[stage] in jobs
            wait_for_checkpoint(training, stage)
            held.enter_context(slurm.paused(of_stage[stage]))
        stage = random.choice(list(STEPS))
        slurm.command("scancel", of_stage[stage])
    assert ended(process) == 0, training.log()[-3000:]
    assert slurm.state(of_stage[stage]) == "CANCELLED"
    assert len(training.submitted()) == 3
    assert "resuming from" in log_of_training(training, stage)
    assert same_bytes(STRUCTURE, training, calm)
    assert same_bytes(FUNCTION, training, calm)


def test_a_node_that_dies_takes_no_work_with_it(slurm, training, calm):
    process = training.start(*training.weights("structure"), environment=slurm.environment)
    (job,) = slurm.wait_for_running()
    wait_for_checkpoint(training)
    ((_, node),) = slurm.queue("%i %N", "RUNNING")
    slurm.kill_node(node, job)
    try:
        # until slurmctld misses the node
        wait_until(lambda: slurm.state(job) != "RUNNING", "slurmctld to miss the node")
        # Slurm gives a requeued job a pause of two minutes, which a test need not sit out
        slurm.command("scontrol", "update", f"jobid={job}", "StartTime=now")
        assert ended(process) == 0, training.log()[-3000:]
        queued = {number: (state, where) for number, state, where in slurm.queue("%i %T %N")}
        assert queued[job][0] == "COMPLETED"
        assert queued[job][1] != node
        assert training.submitted() == [job]
        assert same_bytes(STRUCTURE, training, calm)
    finally:
        slurm.start_node(node)
        slurm.command("scontrol", "update", f"nodename={node}", "state=resume", check=False)


@pytest.mark.parametrize(
    ("mode", "grace_s", "becomes"),
    [("REQUEUE", 60, "FAILED"), ("REQUEUE", 0, "COMPLETED"), ("CANCEL", 0, "PREEMPTED")],
)
def test_a_training_makes_room_for_another_job_and_goes_on_later(
    slurm, training, calm, mode, grace_s, becomes
):
    """With a time of grace it saves and ends by itself; without, Slurm ends it, and may start it again."""
    slurm.command("scontrol", "update", "partitionname=gpu", f"PreemptMode={mode}", f"GraceTime={grace_s}")
    process = training.start(*training.weights("structure"), environment=slurm.environment)
    (job,) = slurm.wait_for_running()
    wait_for_checkpoint(training)
    if not grace_s:  # it hangs, so that it does not happen to end by itself first
        for hanging, _ in processes(job):
            hanging.suspend()
    whole = ["--partition=urgent", "--nodes=2", "--exclusive", "--mem=0", "--output=/dev/null"]
    urgent = slurm.command("sbatch", "--parsable", *whole, "--wrap=true").strip()
    wait_until(lambda: slurm.state(urgent) == "COMPLETED", "the urgent job")
    if becomes == "COMPLETED":  # a requeued job has a pause of two minutes, which a test need not sit out
        slurm.command("scontrol", "update", f"jobid={job}", "StartTime=now")
    assert ended(process) == 0, training.log()[-3000:]
    assert slurm.state(job) == becomes
    assert len(training.submitted()) == (1 if becomes == "COMPLETED" else 2)
    assert "resuming from" in log_of_training(training)
    assert same_bytes(STRUCTURE, training, calm)


def test_a_restart_of_the_controller_is_waited_for(slurm, training, calm):
    process = training.start(*training.weights("structure"), environment=slurm.environment)
    slurm.wait_for_running()
    wait_for_checkpoint(training)
    slurm.kill("slurmctld", signal.SIGTERM)
    try:
        training.wait_for_line(process, "Slurm does not answer (squeue)")
        wait_until(lambda: ": trained in" in log_of_training(training), "the training's end")
    finally:
        slurm.start_controller()
    assert ended(process) == 0, training.log()[-3000:]
    assert "Slurm answers again" in training.log()
    assert len(training.submitted()) == 1
    assert same_bytes(STRUCTURE, training, calm)


def test_a_job_to_submit_while_the_controller_is_away_is_submitted_when_it_is_back(slurm, finished):
    # the templates are made here, while slurmctld dies; then a job is to be submitted
    finished.remove("templates/atlas.json", "templates/harmonics.parquet")
    process = finished.start(HARMONICS, environment=slurm.environment)
    finished.wait_for_line(process, "localrule fetch_templates:")
    slurm.kill("slurmctld")
    try:
        finished.wait_for_line(process, "Slurm does not answer (sbatch)")
        assert finished.submitted() == []
    finally:
        slurm.start_controller()
    assert ended(process) == 0, finished.log()[-3000:]
    assert "Trying to restart" not in finished.log()
    (job,) = finished.submitted()
    assert slurm.state(job) == "COMPLETED"


def test_a_job_whose_number_got_lost_is_not_submitted_twice(slurm, finished, tmp_path):
    """Slurm takes the job, and its answer does not arrive: a stand-in for `sbatch` swallows the first."""
    lost = tmp_path / "lost"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text(
        f"""#!/bin/sh
[ -e {lost} ] && exec {shutil.which("sbatch")} "$@"
{shutil.which("sbatch")} "$@" > {lost}
echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
exit 1
"""
    )
    (tmp_path / "bin/sbatch").chmod(0o755)
    environment = slurm.environment | {"PATH": f"{tmp_path}/bin:{slurm.environment['PATH']}"}
    finished.remove("templates/harmonics.parquet")
    assert finished.run(HARMONICS, environment=environment) == 0, finished.log()[-3000:]
    number = lost.read_text().strip()
    assert f"had taken job {number}" in finished.log()
    assert finished.submitted() == [number]
    assert [job for job, place in slurm.queue("%i %Z") if place == str(finished.folder)] == [number]


def test_snakemake_killed_and_started_again_loses_and_doubles_nothing(slurm, training, calm):
    first = training.start(*training.weights("structure"), environment=slurm.environment)
    (job,) = slurm.wait_for_running()
    wait_for_checkpoint(training)
    with slurm.paused(job):
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert (
            training.run(*training.weights("structure"), environment=slurm.environment, log="locked.log") == 1
        )
        assert "cannot be locked" in training.log("locked.log")
        assert training.run("--unlock", environment=slurm.environment, log="unlock.log") == 0
        assert (
            training.run(*training.weights("structure"), environment=slurm.environment, log="early.log") == 1
        )
        early = f"a Slurm job of an earlier run of this folder still in the queue: {job} ("
        assert early in training.log("early.log")
    wait_until(lambda: slurm.state(job) != "RUNNING", "the job's end")
    assert slurm.state(job) == "COMPLETED"
    assert same_bytes(STRUCTURE, training, calm)
    assert training.run(*training.weights("structure"), environment=slurm.environment, log="second.log") == 0
    # the finished training is found, not repeated: by Snakemake, or by the training itself
    found = "Nothing to be done" in training.log("second.log")
    assert found or "is finished: writing its outputs" in log_of_training(training)
    assert same_bytes(STRUCTURE, training, calm)


def test_a_second_snakemake_on_the_folder_is_refused(slurm, finished):
    finished.remove("templates/harmonics.parquet")
    process = finished.start(HARMONICS, environment=slurm.environment)
    (job,) = slurm.wait_for_running()
    with slurm.paused(job):
        assert finished.run(HARMONICS, environment=slurm.environment, log="second.log") == 1
        said = finished.log("second.log")
    assert "Directory cannot be locked. Please make sure that no other Snakemake process" in said
    assert ended(process) == 0, finished.log()[-3000:]
    assert finished.submitted() == [job]


def test_what_can_never_run_is_refused_and_the_others_go_on(slurm, finished):
    index = "town/shards/index.json"
    finished.remove("templates/harmonics.parquet", index)
    too_much = "compute_harmonics:mem_mb=9000000"
    words = [HARMONICS, f"results/{index}", "--set-resources", too_much, "--retries", "0"]
    assert finished.run(*words, environment=slurm.environment) == 1
    assert "sbatch: error" in finished.log()
    (other,) = finished.submitted()
    assert slurm.state(other) == "COMPLETED"
    assert (finished.folder / "results" / index).exists()


def test_a_node_without_the_scratch_folder_works_in_tmp(slurm, finished):
    untrain(finished)
    folder = "/dev/null/scratch"  # root cannot make it either, as users cannot make /scratch
    (line,) = re.findall(r"# - (tmpdir=.*)", (finished.folder / "profiles/slurm/config.v8+.yaml").read_text())
    absent = "train_encoder:" + line.replace("/scratch", folder)
    process = finished.start(
        *finished.weights("structure"), "--set-resources", absent, environment=slurm.environment
    )
    (job,) = slurm.wait_for_running()
    seen = {variables["TMPDIR"] for _, variables in trainings(job)}
    assert ended(process) == 0, finished.log()[-3000:]
    assert seen == {"/tmp"}


def test_two_processes_on_two_nodes_equal_one(slurm, finished, reference):
    finished.config["experiments"]["mini"]["gpus"] = 2
    finished.write_config()
    untrain(finished)
    across = [f"train_encoder:{fact}" for fact in ("mpi=srun", "nodes=2", "tasks=2", "tasks_per_gpu=0")]
    process = finished.start(
        *finished.weights("structure"), "--set-resources", *across, environment=slurm.environment
    )
    (job,) = wait_until(finished.submitted, "a job")
    both = [variables for _, variables in trainings(job, 2)]
    assert ended(process) == 0, finished.log()[-3000:]
    assert [job, "n[1-2]"] in slurm.queue("%i %N")
    assert sorted(one["SLURMD_NODENAME"] for one in both) == ["n1", "n2"]
    assert [len(one["CUDA_VISIBLE_DEVICES"].split(",")) for one in both] == [1, 1]
    metadata = json.loads((finished.folder / STRUCTURE).with_name("run.json").read_text())
    assert metadata["machine"]["processes"] == 2
    two, one = (load_file(study.folder / STRUCTURE) for study in (finished, reference))
    assert two.keys() == one.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-5, err_msg=name)
