"""A checkout and results at paths with spaces, and a checkout that moves: it works, and nothing runs again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import skeleton

#: Stands in for the preprocessing: writes the status file, which is all that Snakemake looks at.
STAND_IN = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --status ] && echo '{}' > "$2"; shift; done
"""


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A copy of the checkout's workflow at a path with spaces, with an interpreter of its own for ANTs."""
    copy = tmp_path / "my check out"
    for name in ("workflow", "rules", "bhx_model", "profiles", "envs"):
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    python = copy / ".venv-ants/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return copy


def snakemake(checkout: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the copy's workflow as it stands, not installed: no package is on the path of Python."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(checkout / "workflow/Snakefile")]
    words += ["--workflow-profile", str(checkout / "profiles/default"), "--cores", "1", *arguments]
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "BHX_ANTS_PYTHON")}
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, env=env)


def test_a_checkout_with_spaces_runs_and_moves(checkout: Path, tmp_path: Path):
    study = tmp_path / "my study"
    config = {"cohorts": {"a": {"input": "bids", "root": "raw data"}}, "results": "my results"}
    skeleton.write_file(study / "config.yaml", json.dumps(config))
    skeleton.write_file(study / "raw data/dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    skeleton.write_file(study / "raw data/sub-01/anat/sub-01_T1w.nii.gz", None)
    skeleton.write_file(study / "raw data/sub-01/func/sub-01_task-rest_bold.nii.gz", None)
    skeleton.write_file(study / "raw data/sub-01/func/sub-01_task-rest_bold.json", {"RepetitionTime": 2.0})
    for name in ("head_T1w", "head_mask"):  # as if the templates had been fetched
        skeleton.write_file(study / f"my results/templates/{name}.nii.gz", None)
    targets = ["my results/a/index.parquet", "my results/a/preproc/sub-01_status.json"]
    done = snakemake(checkout, study, *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all((study / target).is_file() for target in targets)
    moved = checkout.rename(tmp_path / "elsewhere")
    again = snakemake(moved, study, *targets)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Nothing to be done" in again.stdout + again.stderr
