"""Rules in another workflow, in environments and images, and on a scheduler that a command submits to."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import skeleton
import snakemake_server
import yaml

TIMESERIES = Path(__file__).parents[1] / "skeletons/timeseries-two-tr.yml"

#: Imports the rules; its own prefix ends every command of its own.
IMPORTING = """
import sys
shell.prefix("exit 3; ")
configfile: "mine.yaml"
module bhx:
    snakefile: {snakefile!r}
    config: config["bhx"]
use rule * from bhx as bhx_*
rule mine:
    input: rules.bhx_publish_index.output[0].format(cohort="a")
    output: "mine.txt"
    shell: "touch {{output}}"
print("local:", *workflow._localrules, file=sys.stderr)
"""

#: Stand-ins for what Snakemake asks of conda and Apptainer before it plans.
STAND_IN_CONDA = """#!/bin/sh
case "$*" in
    "info --json") echo '{"conda_prefix": "/opt/conda", "platform": "linux-64"}' ;;
    "--version") echo conda 24.11.0 ;;
    *) echo '{"get": {"channel_priority": "strict"}}' ;;
esac
"""
STAND_IN_APPTAINER = "#!/bin/sh\necho apptainer version 1.3.4\n"

#: Stands in for a scheduler's submit command: starts the job's script here and prints the number of its process.
STAND_IN_SUBMIT = """#!/bin/sh
echo "$*" >> submitted
for script; do :; done
sh "$script" > job.log 2>&1 &
echo $!
"""

#: Stands in for the preprocessing: writes the status file, which is all that Snakemake looks at.
STAND_IN_ANTS = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --status ] && echo '{}' > "$2"; shift; done
"""


def test_as_a_module_the_rules_are_their_own(root: Path, tmp_path: Path):
    """Root, Python, prefix of commands and which jobs are local; beside rules of the workflow that imports them."""
    config = skeleton.build(TIMESERIES, tmp_path)["config"]
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"bhx": {**config, "trackers": ["mlflow"]}}))
    (tmp_path / "Snakefile").write_text(IMPORTING.format(snakefile=str(root / "workflow/Snakefile")))
    planned = snakemake_server.run(tmp_path, ["-n", "-p", "bhx_all"])
    assert planned.returncode == 0, planned.stdout + planned.stderr
    jobs = {name.removeprefix("bhx_"): n for name, n in skeleton.job_counts(planned.stdout).items()}
    assert jobs == yaml.safe_load(TIMESERIES.read_text())["jobs"]
    assert planned.stdout.count(" --track mlflow ") == 3  # each stage
    local = re.search(r"^local: (.*)$", planned.stderr, flags=re.MULTILINE)
    assert local is not None
    named = set(local[1].split())
    assert {"bhx_publish_index", "bhx_fetch_templates"} <= named
    assert all(name.startswith("bhx_") for name in named)
    ran = snakemake_server.run(tmp_path, ["--cores", "1", "-p", "mine.txt"])
    assert (tmp_path / "results/a/index.parquet").is_file()
    assert not (tmp_path / "mine.txt").exists()  # its own prefix is still that of its own rules
    assert "exit 3" not in ran.stderr.partition("rule mine:")[0]


@pytest.mark.parametrize(
    ("imported", "sentence"),
    [
        ("from bhx_prep import of_a_later_release", "is not of the release of these rules: install that one"),
        ("import pydicom.absent", "the package pydicom is not installed: pip install 'bhx[dicom]'"),
    ],
)
def test_rules_that_the_installed_package_does_not_fit_say_so(
    root: Path, tmp_path: Path, imported: str, sentence: str
):
    """As where they are deployed from a hosting service beside a package of another release."""
    text = (root / "workflow/Snakefile").read_text()
    first = "from bhx_prep import installation"
    skeleton.write_file(tmp_path / "workflow/Snakefile", text.replace(first, f"{imported}; {first}"))
    planned = snakemake_server.run(tmp_path, ["-n"])
    assert planned.returncode == 1
    assert sentence in planned.stdout + planned.stderr


@pytest.mark.parametrize("methods", [["conda"], ["apptainer"]], ids=" ".join)
def test_environments_and_images_plan_the_same(root: Path, tmp_path: Path, methods: list[str]):
    described = skeleton.build(TIMESERIES, tmp_path)
    for name, text in (("conda", STAND_IN_CONDA), ("apptainer", STAND_IN_APPTAINER)):
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    words = [
        "--snakefile",
        str(root / "workflow/Snakefile"),
        "-n",
        "--sdm",
        *methods,
        "--",
        described["target"],
    ]
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    planned = snakemake_server.run(tmp_path, words, environment)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert skeleton.job_counts(planned.stdout) == described["jobs"]


def test_a_command_submits_the_jobs(root: Path, tmp_path: Path):
    """The profile for any scheduler, with a stand-in for its command."""
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    for name, text in (("submit", STAND_IN_SUBMIT), ("ants", STAND_IN_ANTS)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    config = {"cohorts": {"a": {"input": "bids", "root": "raw"}}}
    skeleton.write_file(tmp_path / "config.yaml", json.dumps(config))
    skeleton.write_file(tmp_path / "raw/dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    skeleton.write_file(tmp_path / "raw/sub-01/anat/sub-01_T1w.nii.gz", None)
    skeleton.write_file(tmp_path / "raw/sub-01/func/sub-01_task-rest_bold.nii.gz", None)
    skeleton.write_file(tmp_path / "raw/sub-01/func/sub-01_task-rest_bold.json", {"RepetitionTime": 2.0})
    for name in ("head_T1w", "head_mask"):  # as if the templates had been fetched
        skeleton.write_file(tmp_path / f"results/templates/{name}.nii.gz", None)
    profile = yaml.safe_load((root / "profiles/cluster-generic/config.v8+.yaml").read_text())
    submit = profile["cluster-generic-submit-cmd"].replace("qsub", str(tmp_path / "submit"))
    ran = snakemake_server.run(
        tmp_path,
        [
            *("--snakefile", str(root / "workflow/Snakefile")),
            *("--profile", str(root / "profiles/cluster-generic")),
            *("--cluster-generic-submit-cmd", submit),
            *("--latency-wait", "5", "--retries", "0", "--seconds-between-status-checks", "1"),
            *("--", "results/a/preproc/sub-01_status.json", "results/a/index.parquet"),
        ],
        {**os.environ, "BHX_ANTS_PYTHON": str(tmp_path / "ants")},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (submitted,) = (tmp_path / "submitted").read_text().splitlines()  # the index is a job of this machine
    assert "-N run_embedded" in submitted
    assert "select=1:ncpus=1:mem=6000mb:ngpus=0 -l walltime=7200 " in submitted
