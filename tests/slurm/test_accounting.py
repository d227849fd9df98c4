"""A cluster with accounts and a database, as a site has them: `slurm_account`, and `sacct` as the status command."""

from __future__ import annotations

import cluster
import pytest

HARMONICS = "results/templates/harmonics.parquet"
#: What such a site writes into its profile.
SITE = (
    "--slurm-status-command=sacct",
    "--default-resources",
    "slurm_account=lab",
    "slurm_partition=cpu",
    "mem_mb=2000",
    "runtime=30",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A running cluster with accounting; a job without an account that it knows is refused."""
    with cluster.running(
        tmp_path_factory.mktemp("site"), nodes=1, memory_mb=48000, accounting=True
    ) as started:
        yield started


def accounted(site, job, what):
    """A job's metadata in the database, which learns them some seconds later."""

    def answered():
        answer = site.command("sacct", "-X", "-n", "-P", f"--jobs={job}", f"--format={what}", check=False)
        return answer.strip().split("|") if answer.strip() else []

    return cluster.wait_until(answered, f"job {job} in the database")


def test_jobs_run_on_the_account_and_a_failure_says_why(site, finished):
    finished.remove("templates/harmonics.parquet")
    too_little = ("--set-resources", "compute_harmonics:mem_mb=300*attempt*attempt")
    assert finished.run(HARMONICS, *SITE, *too_little, environment=site.environment) == 0, finished.log()[
        -3000:
    ]
    first, *_, last = finished.submitted()
    # which state it ends with depends on who notices first, Slurm or the job's own Snakemake; its log names the cause
    log = next(finished.folder.glob(f"results/logs/slurm/**/{first}.log")).read_text()
    assert "exceeded memory limit" in log
    assert accounted(site, first, "Account,State")[0] == "lab"
    assert accounted(site, first, "State")[0] in {"OUT_OF_MEMORY", "FAILED"}
    assert accounted(site, last, "Account,State") == ["lab", "COMPLETED"]


def test_an_unknown_account_is_refused_with_its_name(site, finished):
    finished.remove("templates/harmonics.parquet")
    words = [word.replace("=lab", "=nolab") for word in SITE]
    assert finished.run(HARMONICS, *words, "--retries=0", environment=site.environment) == 1
    assert "nolab" in finished.log()
    assert finished.submitted() == []


def test_a_restart_of_the_database_is_waited_for(site, finished):
    finished.remove("templates/harmonics.parquet")
    process = finished.start(HARMONICS, *SITE, environment=site.environment)
    (job,) = site.wait_for_running()
    site.kill("slurmdbd")
    try:
        finished.wait_for_line(process, "Slurm does not answer (sacct)")
    finally:
        site.start_accounting()
    assert process.wait(timeout=600) == 0, finished.log()[-3000:]
    assert finished.submitted() == [job]
    assert accounted(site, job, "State") == ["COMPLETED"]
