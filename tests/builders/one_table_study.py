"""A study of one table, and what Snakemake makes of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import snakemake_server


def snakemake(
    root: Path,
    folder: Path,
    atlas: dict,
    target: str,
    environment: dict[str, str] | None = None,
    input: str = "timeseries",
) -> subprocess.CompletedProcess[str]:
    """Ask for a target of a study of one table with this atlas."""
    table = folder / "a/sub-01/func/sub-01_task-rest_timeseries.tsv"
    table.parent.mkdir(parents=True)
    table.write_text("r1\tr2\n0\t1\n1\t0\n")
    cohort = {"input": input, "root": "a", "tr_s": 2}
    (folder / "config.yaml").write_text(json.dumps({"cohorts": {"a": cohort}, "atlas": atlas}))
    words = ["--snakefile", str(root / "workflow/Snakefile"), "--cores", "1", target]
    return snakemake_server.run(folder, words, environment)
