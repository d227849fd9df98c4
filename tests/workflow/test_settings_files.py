"""A cohort of any size is planned and run: no command grows with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import skeleton
from small_templates import write_templates

from bhx_prep.commands import simulate

LISTED = 20_000


def test_a_batch_of_ten_thousand_listed_subjects_runs(root: Path, tmp_path: Path):
    simulate.simulate(tmp_path / "big", "fmriprep", simulate.Size(2, 2, 2, 0.8, 383))
    subjects = [f"sim{i:07d}" for i in range(2)] + [f"listedbutabsent{i:07d}" for i in range(LISTED - 2)]
    cohort = {"input": "fmriprep", "root": "big", "synthetic": True, "subjects": subjects}
    config = {"cohorts": {"big": cohort}, "batch_size": 10_000}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    write_templates(tmp_path / "results/templates")
    planned = skeleton.snakemake(root, tmp_path, "-n", "-p", "cohort_big")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert skeleton.job_counts(planned.stdout)["extract_features"] == 2
    assert max(map(len, planned.stdout.splitlines())) < 1000
    batch = "results/big/features/batch-00000/qc.parquet"
    done = skeleton.snakemake(root, tmp_path, "--cores", "1", "--quiet", "all", "--", batch)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pq.read_table(tmp_path / batch, columns=["subject", "reason"]).to_pylist()
    assert 9_000 < len(rows) < 11_000
    assert any("there is no folder sub-listedbutabsent" in row["reason"] for row in rows)


def snakemake(root: Path, folder: Path, *words: str) -> str:
    """What a run prints that has to end well."""
    done = skeleton.snakemake(root, folder, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_decision_and_a_change_of_the_settings_run_what_they_change_again(root: Path, tmp_path: Path):
    rng = np.random.default_rng(0)
    for label in ("01", "02"):
        table = tmp_path / f"a/sub-{label}/func/sub-{label}_task-rest_timeseries.csv"
        table.parent.mkdir(parents=True)
        np.savetxt(table, rng.standard_normal((80, 400)), delimiter=",", fmt="%.4f")
    cohort = {"input": "timeseries", "root": "a", "tr_s": 2.0, "orientation": "frame,roi"}
    config = {"cohorts": {"a": cohort}, "batch_size": 1}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    run = ("--cores", "1", "--quiet", "all", "--", "qc")
    snakemake(root, tmp_path, *run)
    batches = sorted(tmp_path.glob("results/a/features/batch-*/qc.parquet"))
    assert len(batches) == 2
    before = [file.stat().st_mtime_ns for file in batches]
    columns = "cohort\tsubject\tsession\ttask\trun\tmodality\tdecision\twho\twhen\twhy"
    decisions = tmp_path / "qc_decisions.tsv"
    decisions.write_text(f"{columns}\na\t01\t\trest\t\tbold\texclude\tab\t2026-01-31\tghost\n")
    snakemake(root, tmp_path, *run)
    again = [file.stat().st_mtime_ns != then for file, then in zip(batches, before, strict=True)]
    assert sorted(again) == [False, True]
    table = pq.read_table(tmp_path / "results/a/qc.parquet", columns=["subject", "state"]).to_pylist()
    states = {row["subject"]: row["state"] for row in table if row["subject"] in ("01", "02")}
    assert (states["01"], "decision" in states["02"]) == ("excluded by decision", False)
    # who decided, and when, is on the page alone
    decisions.write_text(decisions.read_text().replace("ab\t2026-01-31", "cd\t2026-02-01"))
    assert skeleton.job_counts(snakemake(root, tmp_path, "-n", "qc")) == {
        "collect_quality": 1, "qc": 1, "total": 2
    }  # fmt: skip
    config["features"] = {"min_seconds": 120}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    assert skeleton.job_counts(snakemake(root, tmp_path, "-n", "qc"))["extract_features"] == 2
