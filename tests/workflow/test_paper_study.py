"""The paper's study (docs/paper.yaml): it plans as a whole, and its labels are those of the published tables."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import skeleton
import yaml
from endpoint_splits import split_endpoint

from bhx_prep.commands import simulate
from bhx_prep.config import config
from bhx_prep.evaluation import split_seeds
from bhx_prep.ingest import participants
from bhx_prep.report import published

SUBJECTS = [f"sim{i:07d}" for i in range(2)]


@pytest.fixture
def study(root: Path) -> dict:
    return yaml.safe_load((root / "docs/paper.yaml").read_text())


def test_it_holds_every_endpoint_of_the_paper_at_the_papers_sizes(root: Path):
    study = config.load(root / "docs/paper.yaml")
    assert sorted(e.paper or "" for e in study.endpoints.values()) == sorted(published.names())
    assert study.features.t1w_shape == (160, 192, 160)
    (experiment,) = study.experiments.values()
    assert (experiment.cohorts, experiment.preset) == (("ukb", "abcd"), "base")
    runs = published.endpoint("ABIDE-I").runs
    assert {len(split_seeds.seeds(study, name, "finetune")) for name in study.endpoints} == {runs}


def lay_out(folder: Path, study: dict) -> None:
    """Folders of the study's cohorts, with two subjects each, and its configuration."""
    for name, cohort in study["cohorts"].items():
        cohort["root"] = name
        columns = [e["column"] for e in study["endpoints"].values() if e["cohort"] == name]
        if "participants" in cohort:
            cohort["participants"] = f"{name}.tsv"
            (folder / f"{name}.tsv").write_text("\t".join(["participant_id", *columns]) + "\n")
        if cohort["input"] == "fmriprep":
            simulate.simulate(folder / name, "fmriprep", simulate.Size(2, 2, 2, 0.8, 383))
    for subject in SUBJECTS if "ukb" in study["cohorts"] else ():
        stem = f"ukb/sub-{subject}/func/sub-{subject}_task-rest_Schaefer17n400p.csv.gz"
        (folder / stem).parent.mkdir(parents=True)
        pd.DataFrame([[0.0] * 4], columns=["label_name", "0", "1", "2"]).to_csv(folder / stem, index=False)
    (folder / "paper.yaml").write_text(yaml.safe_dump(study, sort_keys=False))


def n_scores(study: config.Config, experiment: str | None) -> int:
    """Scores of the rows of an experiment, or of those that need none, over all endpoints and their splits."""
    rows = [
        (name, method)
        for name, one in study.endpoints.items()
        for method in (one.baselines if experiment is None else study.experiments[experiment].methods(one))
    ]
    return sum(len(split_seeds.seeds(study, *row)) for row in rows)


def test_it_plans_alone_and_as_a_whole(root: Path, tmp_path: Path, study: dict):
    lay_out(tmp_path, study)
    shutil.copyfile(root / "config.yaml", tmp_path / "config.yaml")  # the demo's, of which nothing may run
    planned = skeleton.snakemake(root, tmp_path, "-n", "--configfile", "paper.yaml")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    jobs, checked = skeleton.job_counts(planned.stdout), config.load(root / "docs/paper.yaml")
    endpoints, cohorts = len(study["endpoints"]), len(study["cohorts"])
    assert (jobs["collect_table"], jobs["collect_study_table"]) == (endpoints, 2)
    assert jobs["evaluate_model"] == n_scores(checked, "brainharmonix")
    assert jobs["evaluate_baseline"] == n_scores(checked, None)
    assert jobs["read_function_tokens"] == len({e["cohort"] for e in study["endpoints"].values()})
    assert jobs["read_structure_tokens"] == jobs["collect_covariates"] == 2  # both of ABIDE
    assert (jobs["train_encoder"], jobs["train_fusion"]) == (2, 1)
    assert jobs["extract_features"] == cohorts
    assert "run_embedded" not in jobs
    for name in ("adhd200", "table1", "table2"):
        assert f"results-paper/tables/{name}.md" in planned.stdout


def test_without_the_cohorts_of_the_pretraining_the_rows_that_need_no_model_are_left(
    root: Path, tmp_path: Path, study: dict
):
    for name in ("ukb", "abcd"):
        del study["cohorts"][name]
    del study["experiments"]
    lay_out(tmp_path, study)
    planned = skeleton.snakemake(root, tmp_path, "-n", "tables", "--configfile", "paper.yaml")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    jobs, checked = skeleton.job_counts(planned.stdout), config.load(tmp_path / "paper.yaml")
    assert jobs["collect_table"] == len(study["endpoints"])
    assert jobs["evaluate_baseline"] == n_scores(checked, None)
    assert not jobs.keys() & {"evaluate_model", "train_encoder", "train_fusion"}


@pytest.mark.parametrize(
    ("endpoint", "table", "expected"),
    [
        ("abide1", "Phenotypic_V1_0b_preprocessed1.csv.gz", {0: 573, 1: 539}),
        ("abide2", "ABIDEII_Composite_Phenotypic.csv.gz", {0: 593, 1: 521}),
    ],
)
def test_labels_of_the_published_tables(root: Path, shared, endpoint: str, table: str, expected: dict):
    file = shared(f"data/phenotype/{table}")
    spec = config.load(root / "docs/paper.yaml").endpoints[endpoint]
    demographics = participants.read(file)
    folders = {f"{int(label):07d}" for label in demographics.rows}  # as the images are named: sub-0050002
    split = split_endpoint(endpoint, spec, 0, demographics, None, folders, folders)
    assert Counter(row["label"] for row in split["rows"]) == expected
    assert split["excluded"] == []
    parts = Counter(row["split"] for row in split["rows"])
    assert parts["train"] / sum(expected.values()) == pytest.approx(0.6, abs=0.01)


def test_types_of_adhd_are_one_class(root: Path, tmp_path: Path):
    spec = config.load(root / "docs/paper.yaml").endpoints["adhd200"]
    table = tmp_path / "adhd200.csv"
    codes = ["0", "1", "2", "3", "pending"] * 8
    rows = [f"{1000 + i},{i % 2},{code}" for i, code in enumerate(codes)]
    table.write_text("\n".join(["ScanDir ID,Site,DX", *rows]) + "\n")
    demographics = participants.read(table)
    everyone = set(demographics.rows)
    split = split_endpoint("adhd200", spec, 0, demographics, None, everyone, everyone)
    assert Counter(row["label"] for row in split["rows"]) == {0: 8, 1: 24}
    assert split["classes"] == ["control", "adhd"]
    assert {row["reason"] for row in split["excluded"]} == {
        "DX is 'pending', none of the classes' values 0, 1, 2, 3"
    }
