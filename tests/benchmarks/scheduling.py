"""Overhead per job: stub batches through a real Slurm scheduler, and the plan for 70,933 scans.

    python tests/benchmarks/scheduling.py jobs --way single --jobs 100     (single, array or group; needs root and Slurm)
    python tests/benchmarks/scheduling.py plan --scans 70933 --batch-size 20 100

`jobs` runs the real workflow whose `bhx_prep.features.extract` is replaced by a stub that notes when it began; one
line of JSON gives seconds a job from its submission on, where they were spent, and the peak memory of the main process.
`plan` writes an index of simulated subjects, with empty files, and gives time and memory of `snakemake -n`, and the CPU
seconds in which Snakemake starts in a job of such a study. No part of the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/slurm"))

STUB = '''"""A stub of the features: notes when it began and writes its outputs empty."""
import argparse, json, os, pathlib, time
began = time.time()
parser = argparse.ArgumentParser()
parser.add_argument("--out", type=pathlib.Path)
out = parser.parse_known_args()[0].out
time.sleep(float(os.environ.get("STUB_SECONDS", "1")))
out.mkdir(parents=True, exist_ok=True)
for name in ("timeseries.parquet", "bold.arrow", "t1w.arrow", "carpets.parquet", "qc.parquet"):
    (out / name).write_text("")
times = {"began": began, "ended": time.time(), "job": os.environ.get("SLURM_JOB_ID")}
(out / "times.json").write_text(json.dumps(times))
'''


def make_study(folder: Path, subjects: int, batch_size: int) -> None:
    """A study of one cohort whose series are links to one subject's, with the stub in place of the features."""
    from bhx_prep.demo import timeseries

    timeseries.fill_pretraining(folder / "one", seed=0, n=1, step_mm=8.0)
    for number in range(subjects):
        for file in (folder / "one/sub-t001").rglob("*timeseries*"):
            label = f"sub-p{number:05d}"
            link = folder / "data" / label / "func" / file.name.replace("sub-t001", label)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    (folder / "workflow/bhx_prep").mkdir(parents=True)
    for path in (ROOT / "workflow").iterdir():
        if path.name != "bhx_prep":
            (folder / "workflow" / path.name).symlink_to(path)
    for path in (ROOT / "workflow/bhx_prep").iterdir():
        if path.name not in ("features", "__pycache__"):
            (folder / "workflow/bhx_prep" / path.name).symlink_to(path)
    # a folder of its own: through a link to the folder, the stub would replace the real module
    features = folder / "workflow/bhx_prep/features"
    features.mkdir()
    for path in (ROOT / "workflow/bhx_prep/features").iterdir():
        if path.name not in ("extract.py", "__pycache__"):
            (features / path.name).symlink_to(path)
    (features / "extract.py").write_text(STUB)
    for name in ("rules", "envs", "bhx_model", "profiles", "slurm"):
        (folder / name).symlink_to(ROOT / name)
    # inputs of every batch, empty
    templates = folder / "results/templates"
    templates.mkdir(parents=True)
    names = ["atlas.json", "atlas_volume.nii.gz", "atlas_fsLR.npz", "atlas_fsaverage5.npz", "cortex.npz"]
    names += [f"{kind}_{side}.surf.gii" for kind in ("surface", "inflated") for side in ("left", "right")]
    for name in [*names, "head_T1w.nii.gz", "head_mask.nii.gz"]:
        (templates / name).write_text("")
    config = {
        "batch_size": batch_size,
        "cohorts": {"pretraining": {"input": "timeseries", "root": str(folder / "data"), "synthetic": True}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def run_jobs(way: str, jobs: int, at_once: int, stub_seconds: float) -> dict[str, object]:
    """Run some `jobs` batches on a cluster of its own and account for their seconds."""
    import cluster

    if reason := cluster.why_not():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="scheduling-") as name:
        folder = Path(name) / "study"
        make_study(folder, subjects=3 * jobs, batch_size=3)
        with cluster.running(Path(name) / "cluster", cpus=8, memory_mb=64000, gpus=1) as started:
            numbers = subprocess.run(
                [sys.executable, "-c", "from bhx_prep.study import Study; import yaml; "
                 "print(*Study(yaml.safe_load(open('config.yaml')), build=True).cohorts['pretraining'].batches())"],
                cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")}, capture_output=True, text=True,
                check=True,
            ).stdout.split()  # fmt: skip
            outputs = [f"results/pretraining/features/batch-{number}/qc.parquet" for number in numbers]
            words = [
                sys.executable, "-m", "snakemake", *outputs, "--profile", "slurm", "--jobs", str(at_once),
                "--latency-wait=10", "--slurm-init-seconds-before-status-checks=2",
                "--seconds-between-status-checks=2",
                "--max-jobs-per-timespan=50/1s", "--default-resources", "slurm_partition=cpu", "mem_mb=1500", "runtime=30",
                "--set-resources", "extract_features:mem_mb=1500",
            ]  # fmt: skip
            if way == "array":
                # all at once: the plugin (2.8.0) waits for ever where fewer may be queued than are ready
                words += [
                    "--groups",
                    "pack_shards=none",
                    "--slurm-array-jobs",
                    "extract_features",
                    "--jobs",
                    "1000",
                ]
            elif way == "single":
                words += ["--groups", "pack_shards=none"]
            else:
                words += ["--groups", "extract_features=batch", "--group-components", "batch=8"]
            environment = {**started.environment, "STUB_SECONDS": str(stub_seconds), "NO_ET": "1"}
            began = time.time()
            with (folder / "log").open("wb") as log:
                main = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)
                peak = watch(main)
            wall = time.time() - began
            if main.returncode:
                print((folder / "log").read_text()[-3000:], file=sys.stderr)
            queue = [
                dict(zip(("id", "submitted", "started", "ended"), row, strict=True))
                for row in started.queue("%A %V %S %e")
            ]
            times = [
                json.loads(p.read_text()) for p in folder.glob("results/pretraining/features/*/times.json")
            ]
    return {"way": way, "status": main.returncode, **account(wall, stub_seconds, queue, times, peak)}


def watch(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; its peak memory in MB."""
    peak = 0.0
    while process.poll() is None:
        try:
            peak = max(peak, psutil.Process(process.pid).memory_info().rss / 1e6)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.1)
    process.wait()
    return peak


def account(wall: float, stub: float, queue: list, times: list, peak: float) -> dict[str, object]:
    """Seconds by what they were spent on. Slurm's clock has whole seconds; the machine's cores are shared by all jobs."""
    started = {row["id"]: _seconds(row["started"]) for row in queue}
    ended = {row["id"]: _seconds(row["ended"]) for row in queue}
    waited = [_seconds(row["started"]) - _seconds(row["submitted"]) for row in queue]
    first, last = {}, {}
    for entry in times:
        first[entry["job"]] = min(first.get(entry["job"], 1e18), entry["began"])
        last[entry["job"]] = max(last.get(entry["job"], 0), entry["ended"])
    known = [job for job in first if job in started]
    return {
        "batches": len(times),
        "slurm_jobs": len(queue),
        "wall_s": round(wall, 1),
        "wall_s_a_batch": round(wall / max(1, len(times)), 2),
        "work_s": round(stub * len(times), 1),
        "pending_s": _median(waited),
        "start_to_work_s": _median([first[job] - started[job] for job in known]),
        "work_to_end_s": _median([ended[job] - last[job] for job in known]),
        "main_process_mb": round(peak),
    }


def _seconds(stamp: str) -> float:
    return time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S"))


def _median(values: list[float]) -> float | None:
    return round(statistics.median(values), 1) if values else None


def cpu_of_children() -> float:
    """CPU seconds of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_plan(scans: int, batch_size: int) -> dict[str, object]:
    """Plan a cohort of `scans` subjects with one run each: time and memory of `snakemake -n`, and a job's start."""
    import pyarrow as pa

    from bhx_prep.config import config
    from bhx_prep.ingest import index
    from bhx_prep.ingest.rows import Row

    with tempfile.TemporaryDirectory(prefix="plan-") as name:
        folder, data = Path(name) / "study", Path(name) / "data"
        folder.mkdir()
        raw = {
            "batch_size": batch_size,
            "cohorts": {"many": {"input": "timeseries", "root": str(data), "synthetic": True}},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(raw))
        rows = []
        for number in range(scans):
            subject = f"p{number:06d}"
            path = data / f"sub-{subject}/func/sub-{subject}_task-rest_timeseries.parquet"
            path.parent.mkdir(parents=True)
            path.touch()
            path.with_suffix(".json").touch()
            row = Row(cohort="many", input="timeseries", synthetic=True)
            row |= {
                "subject": subject, "modality": "bold", "key": f"many_sub-{subject}_task-rest", "status": "ok",
                "path": str(path), "sidecar": str(path.with_suffix(".json")),
            }  # fmt: skip
            rows.append(row)
        table = pa.Table.from_pylist(rows, schema=index.SCHEMA)
        cohort = config.check(raw).cohorts["many"]
        key, states = index._cache_key("many", cohort), index._states(table, cohort)
        index._write(folder / ".bhx/index", "many", table, key, states)
        began, before = time.time(), cpu_of_children()
        words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")]
        with (folder / "log").open("wb") as log:
            main = subprocess.Popen(
                [*words, "cohort_many", "-n", "--quiet", "rules"], cwd=folder, stdout=log, stderr=log
            )
            peak = watch(main)
        wall, cpu = time.time() - began, cpu_of_children() - before
        output = (folder / "log").read_text()
        if main.returncode:
            print(output[-3000:], file=sys.stderr)
        jobs = {
            line.split()[0]: int(line.split()[1])
            for line in output.splitlines()
            if len(line.split()) == 2 and line.split()[1].isdigit()
        }
        # as the plugin starts it, once as the job and once as its step
        before = cpu_of_children()
        subprocess.run(
            [
                *words, "--target-jobs", f"extract_features:cohort=many,batch={0:05d}", "--allowed-rules",
                "extract_features", "--mode", "remote", "--cores", "1", "--nolock", "-n", "--quiet", "all",
            ],
            cwd=folder, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        start = cpu_of_children() - before
        shutil.rmtree(data)
    return {
        "scans": scans,
        "batch_size": batch_size,
        "status": main.returncode,
        "jobs": jobs.get("total"),
        "slurm_jobs": jobs.get("extract_features"),
        "plan_s": round(wall, 1),
        "plan_cpu_s": round(cpu, 1),
        "job_start_cpu_s": round(start, 2),
        "main_process_mb": round(peak),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    jobs = commands.add_parser("jobs")
    jobs.add_argument(
        "--way", choices=("single", "array", "group"), nargs="+", default=["single", "array", "group"]
    )
    jobs.add_argument("--jobs", type=int, default=100)
    jobs.add_argument("--at-once", type=int, default=16, help="jobs in the queue")
    jobs.add_argument("--stub-seconds", type=float, default=1.0)
    plan = commands.add_parser("plan")
    plan.add_argument("--scans", type=int, default=70933)
    plan.add_argument("--batch-size", type=int, nargs="+", default=[20, 100])
    args = parser.parse_args()
    if args.command == "jobs":
        for way in args.way:
            print(json.dumps(run_jobs(way, args.jobs, args.at_once, args.stub_seconds)), flush=True)
    else:
        for size in args.batch_size:
            print(json.dumps(run_plan(args.scans, size)), flush=True)


if __name__ == "__main__":
    main()
