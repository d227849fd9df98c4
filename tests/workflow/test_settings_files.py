"""A cohort of any size is planned and run: no command grows with it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import skeleton
from small_templates import write_templates

from bhx_prep.commands import simulate

LISTED = 50_000


def test_a_batch_of_ten_thousand_listed_subjects_runs(root: Path, tmp_path: Path):
    simulate.simulate(tmp_path / "big", "fmriprep", simulate.Size(2, 2, 2, 0.8, 383))
    subjects = [f"sim{i:07d}" for i in range(2)] + [f"listedbutabsent{i:07d}" for i in range(LISTED - 2)]
    cohort = {"input": "fmriprep", "root": "big", "synthetic": True, "subjects": subjects}
    config = {"cohorts": {"big": cohort}, "batch_size": 10_000}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    write_templates(tmp_path / "results/templates")
    planned = skeleton.snakemake(root, tmp_path, "-n", "-p", "cohort_big")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert skeleton.job_counts(planned.stdout)["extract_features"] == 5
    assert max(map(len, planned.stdout.splitlines())) < 1000
    batch = "results/big/features/batch-00000/qc.parquet"
    done = skeleton.snakemake(root, tmp_path, "--cores", "1", "--quiet", "all", "--", batch)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pq.read_table(tmp_path / batch, columns=["subject", "reason"]).to_pylist()
    assert 9_000 < len(rows) < 11_000
    assert any("there is no folder sub-listedbutabsent" in row["reason"] for row in rows)
