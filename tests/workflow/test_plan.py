"""What would run, on datasets without data: job counts per rule, profiles, bad configurations."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import skeleton
import yaml

from bhx_model.evaluation.methods import METHODS
from bhx_prep.config.config import check
from bhx_prep.step_versions import STEPS
from bhx_prep.trainings import Trainings

SKELETONS = sorted((Path(__file__).parents[1] / "skeletons").glob("*.yml"))


@pytest.mark.parametrize("described", SKELETONS, ids=lambda p: p.stem)
def test_job_counts(root: Path, tmp_path: Path, described: Path):
    expected = skeleton.build(described, tmp_path)
    planned = skeleton.snakemake(root, tmp_path, "-n", expected["target"])
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert skeleton.job_counts(planned.stdout) == expected["jobs"]


@pytest.mark.parametrize(
    "targets",
    [
        ["ingest"],
        ["cohort_b"],
        ["preproc", "features", "shards", "pretrain", "evaluate", "tables", "report", "all", "cohort_a"],
    ],
    ids=" ".join,
)
def test_every_target_is_planned_where_nothing_has_been_made(root: Path, tmp_path: Path, targets: list[str]):
    skeleton.build(SKELETONS[0].with_name("timeseries-two-tr.yml"), tmp_path)
    planned = skeleton.snakemake(root, tmp_path, "-n", *targets)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert skeleton.job_counts(planned.stdout).keys() > set(targets) - {"preproc"}


def test_slurm_profile_plans_the_same(root: Path, tmp_path: Path):
    expected = skeleton.build(SKELETONS[0].with_name("timeseries-two-tr.yml"), tmp_path)
    (tmp_path / "slurm").symlink_to(root / "slurm")
    planned = skeleton.snakemake(root, tmp_path, "-n", "--profile", "slurm", expected["target"])
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert skeleton.job_counts(planned.stdout) == expected["jobs"]


def test_slurm_profile_sends_an_evaluation_to_the_gpus_if_it_asks_for_one(root: Path, tmp_path: Path):
    expected = skeleton.build(SKELETONS[0].with_name("timeseries-two-tr.yml"), tmp_path)
    config = expected["config"]
    config["experiments"]["e"]["gpus"] = 1
    models = [m.name for m in METHODS.values() if m.needs_experiment]
    config["endpoints"]["x"] |= {"methods": models, "seeds": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "slurm").symlink_to(root / "slurm")
    planned = skeleton.snakemake(root, tmp_path, "-n", "--profile", "slurm", "evaluate")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    job = r"^rule evaluate_model:\n.*?method=(\w+),.*?slurm_partition=(\w+),.*?gpu=(\d)"
    found = re.findall(job, planned.stdout, flags=re.MULTILINE | re.DOTALL)
    asked = {method: (partition, gpu) for method, partition, gpu in found}
    assert asked.keys() == set(models)
    assert set(asked.values()) == {("gpu", "1"), ("cpu", "0")}


def test_mistakes_are_said_before_anything_runs(root: Path, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"cohorts": {"a": {"input": "bids", "rot": "raw"}}}))
    planned = skeleton.snakemake(root, tmp_path, "-n")
    said = planned.stdout + planned.stderr
    assert planned.returncode != 0
    assert "cohorts.a.rot: no such key; did you mean 'root'?" in said
    assert "cohorts.a.root: is missing" in said
    assert "Traceback" not in said


def test_a_missing_cohort_folder_is_a_sentence(root: Path, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"cohorts": {"a": {"input": "bids", "root": "nowhere"}}})
    )
    planned = skeleton.snakemake(root, tmp_path, "-n")
    said = planned.stdout + planned.stderr
    assert planned.returncode != 0
    assert "nowhere" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("asked", ["--lint", "--list"])
def test_rules_are_read_where_no_data_is(root: Path, tmp_path: Path, asked: str):
    config = root / "config.yaml"
    (tmp_path / "config.yaml").write_bytes(config.read_bytes())
    read = skeleton.snakemake(root, tmp_path, asked)
    assert read.returncode == 0, read.stdout + read.stderr


def test_fmriprep_backend_plans_containers(root: Path, tmp_path: Path):
    expected = skeleton.build(SKELETONS[0].with_name("raw-without-sessions.yml"), tmp_path)
    config = {**expected["config"], "preproc": {"backend": "fmriprep-apptainer"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    planned = skeleton.snakemake(root, tmp_path, "-n", "preproc")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert skeleton.job_counts(planned.stdout) == {"run_fmriprep": 2, "preproc": 1, "total": 3}


def test_preprocessing_is_given_what_the_index_decided(root: Path, tmp_path: Path):
    expected = skeleton.build(SKELETONS[0].with_name("raw-without-sessions.yml"), tmp_path)
    (tmp_path / "raw/task-rest_bold.json").write_text('{"RepetitionTime": 3.0, "TaskName": "rest"}')
    for cohort in expected["config"]["cohorts"].values():
        cohort |= {"tr_s": 2.5, "exclude": ["*_run-2_*"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(expected["config"]))
    planned = skeleton.snakemake(root, tmp_path, "-n", "-p", "preproc")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    index = json.loads(
        (tmp_path / ".bhx/index" / f"{next(iter(expected['config']['cohorts']))}.json").read_text()
    )
    runs = [scan for scans in index["scans"].values() for scan in scans if scan[0].endswith("_bold.nii.gz")]
    assert [tr_s for _, tr_s, _ in runs] == [2.5, 2.5]
    assert planned.stdout.count("--scans .bhx/index/") == 2


def rules_text(root: Path) -> str:
    """All rules as text."""
    return "\n".join(path.read_text() for path in sorted((root / "rules").glob("*.smk")))


def test_rules_only_declare(root: Path):
    assert re.findall(r"^\s+(run|script|notebook|retries):", rules_text(root), flags=re.MULTILINE) == []


def test_settings_are_parameters_that_snakemake_compares(root: Path):
    """It skips a `Path` without a word, and a change of the configuration would run nothing again."""
    given = re.findall(r"^        (\w+)=(.*study\.[^\n]*_file\(.*),$", rules_text(root), flags=re.MULTILINE)
    assert len(given) > 15
    skipped = {name for name, value in given if not re.match(r"(lambda wildcards: )?str\(", value)}
    assert skipped == {"preproc"}  # it is compared by what of it alters results
    assert rules_text(root).count("study.preproc_alters(") == 2


def test_rules_that_work_say_what_they_need(root: Path):
    for rule in re.split(r"^rule ", rules_text(root), flags=re.MULTILINE)[1:]:
        name = rule.split(":")[0]
        if "shell:" not in rule or name == "publish_index":
            continue
        for part in ("log:", "conda:", "mem_mb=", "runtime=", "step=STEPS"):
            assert part in rule, f"rule {name} lacks {part}"
    asked = [int(m) for m in re.findall(r"mem_mb=growing\((\d+)\)", rules_text(root))]
    assert len(asked) > 10
    assert min(asked) >= 1000


def test_a_step_is_called_as_its_rule_and_a_rule_that_works_as_verb_and_object(root: Path):
    text = rules_text(root)
    rules = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^rule |^for |\Z)", text, flags=re.MULTILINE | re.DOTALL))
    steps = {name: re.findall(r'STEPS\["(\w+)"\]', body) for name, body in rules.items()}
    assert {name: step for name, step in steps.items() if step not in ([], [name])} == {}
    assert {name for name, step in steps.items() if step} == set(STEPS)
    verbs = {
        *("publish", "fetch", "run", "extract", "compute", "fit", "pack", "index", "split", "collect"),
        *("train", "embed", "evaluate", "draw", "export", "report", "check", "read", "describe", "inspect"),
    }
    assert {
        name for name, body in rules.items() if "shell:" in body and name.split("_")[0] not in verbs
    } == set()
    assert all("_" in name for name, body in rules.items() if "shell:" in body)


@pytest.mark.parametrize("profile", ["default"])
def test_behaviour_profile_holds_no_resources(root: Path, profile: str):
    keys = yaml.safe_load((root / f"profiles/{profile}/config.v8+.yaml").read_text())
    assert not {"default-resources", "set-resources", "set-threads", "cores", "jobs", "executor"} & set(keys)


@pytest.mark.parametrize(
    "how", [{"preset": "reference"}, {"overrides": {"fusion": {"model.inputs": "online"}}}]
)
def test_an_online_fusion_reads_the_encoders_and_no_cache(root: Path, tmp_path: Path, how: dict):
    config = skeleton.build(SKELETONS[0].with_name("timeseries-two-tr.yml"), tmp_path)["config"]
    config["experiments"] = {"first": {"cohorts": list(config["cohorts"]), **how}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    planned = skeleton.snakemake(
        root, tmp_path, "-n", "-p", "results/experiments/first/fusion/model.safetensors"
    )
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "embed_tokens" not in skeleton.job_counts(planned.stdout)
    command = next(line for line in planned.stdout.splitlines() if "--stage fusion" in line)
    made = Trainings(check(config))
    structure, function = (made.stage_folder("first", stage) for stage in ("structure", "function"))
    assert f"--structure {structure} --function {function}" in command
    assert "--tokens" not in command


def test_experiments_that_differ_in_the_fusion_train_each_encoder_once(root: Path, tmp_path: Path):
    """Four sizes of hub, and what is shared is asked for by all: no job of it is planned twice."""
    config = skeleton.build(SKELETONS[0].with_name("timeseries-two-tr.yml"), tmp_path)["config"]
    config["experiments"] = {
        f"hub{n}": {"cohorts": ["a"], "preset": "tiny", "overrides": {"fusion": {"model.hub_tokens": n}}}
        for n in (32, 64, 128, 256)
    }
    config["endpoints"]["x"] |= {"methods": ["probe", "function_regions"], "seeds": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    planned = skeleton.snakemake(root, tmp_path, "-n")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    jobs = skeleton.job_counts(planned.stdout)
    once = (
        "split_pretraining",
        "compute_gradients",
        "fit_normaliser",
        "collect_rois",
        "read_function_tokens",
    )
    assert {name: jobs[name] for name in once} == dict.fromkeys(once, 1)
    assert (jobs["train_encoder"], jobs["embed_tokens"]) == (2, 2)  # stages, and cohorts
    assert (jobs["train_fusion"], jobs["export_weights"], jobs["evaluate_model"]) == (4, 4, 8)


def test_given_weights_are_scored_without_any_training(root: Path, tmp_path: Path):
    config = skeleton.build(SKELETONS[0].with_name("timeseries-two-tr.yml"), tmp_path)["config"]
    for stage in ("structure", "function", "fusion"):
        for name in ("run.json", "model.safetensors"):
            skeleton.write_file(tmp_path / "released" / stage / name, {})
    skeleton.write_file(tmp_path / "released/rois.npz", "")
    config["experiments"] = {"released": {"weights": "released"}}
    config["endpoints"]["x"] |= {"methods": ["probe", "function_regions"], "seeds": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    planned = skeleton.snakemake(root, tmp_path, "-n")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    jobs = skeleton.job_counts(planned.stdout)
    assert (
        jobs["fetch_weights"],
        jobs["fetch_rois"],
        jobs["embed_tokens"],
        jobs["read_function_tokens"],
    ) == (3, 1, 1, 1)
    assert jobs["evaluate_model"] == 2
    assert (
        not {"train_encoder", "train_fusion", "split_pretraining", "collect_rois", "export_weights"}
        & jobs.keys()
    )
    config["experiments"]["released"]["weights"] = "elsewhere"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    planned = skeleton.snakemake(root, tmp_path, "-n")
    assert planned.returncode != 0
    said = planned.stdout + planned.stderr
    assert "experiments.released.weights: no folder elsewhere: name an export" in said
    assert "Traceback" not in said


def test_volumes_alone_train_and_score_the_structure_stage(root: Path, tmp_path: Path):
    """No metadata of ROIs is made, and no connectivity: nobody has series."""
    derivatives = tmp_path / "mri"
    about = {
        "Name": "mri",
        "BIDSVersion": "1.8.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "fMRIPrep"}],
    }
    skeleton.write_file(derivatives / "dataset_description.json", about)
    rows = ["participant_id\tdx"]
    for i in range(12):
        stem = f"sub-{i:02d}/anat/sub-{i:02d}_space-MNI152NLin2009cAsym_desc-"
        skeleton.write_file(derivatives / f"{stem}preproc_T1w.nii.gz", {})
        skeleton.write_file(derivatives / f"{stem}brain_mask.nii.gz", {})
        rows.append(f"sub-{i:02d}\t{('control', 'patient')[i % 2]}")
    skeleton.write_file(derivatives / "participants.tsv", "\n".join(rows) + "\n")
    endpoint = {"cohort": "t1", "column": "dx", "kind": "binary", "classes": ["control", "patient"]}
    config = {
        "cohorts": {"t1": {"input": "fmriprep", "root": "mri"}},
        "experiments": {"s": {"cohorts": ["t1"], "preset": "tiny", "stages": ["structure"]}},
        "endpoints": {"dx": endpoint | {"seeds": 1, "methods": ["structure"], "pretraining_overlap": "mark"}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    planned = skeleton.snakemake(root, tmp_path, "-n", "tables")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    jobs = skeleton.job_counts(planned.stdout)
    assert [
        jobs[n] for n in ("train_encoder", "read_structure_tokens", "evaluate_model", "collect_table")
    ] == [1] * 4
    assert not {"collect_rois", "compute_gradients", "fit_normaliser", "compute_connectivity"} & jobs.keys()


def test_the_export_is_given_the_terms_of_the_data(root: Path, tmp_path: Path):
    """The configuration's before those the data set states, and none where neither does."""
    config = skeleton.build(SKELETONS[0].with_name("timeseries-two-tr.yml"), tmp_path)["config"]
    first, second, *others = config["cohorts"]
    config["cohorts"][first]["terms"] = "data use agreement of 2024"
    for name in (first, second):
        folder = tmp_path / config["cohorts"][name]["root"]
        (folder / "dataset_description.json").write_text('{"Name": "x", "License": "CC0"}')
    config["experiments"] = {"first": {"cohorts": list(config["cohorts"])}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    planned = skeleton.snakemake(root, tmp_path, "-n", "-p", "results/experiments/first/export")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    (file,) = re.findall(r"--terms (\S+) ", planned.stdout)
    assert json.loads((tmp_path / file).read_text()) == {
        first: "data use agreement of 2024",
        second: "CC0",
        **dict.fromkeys(others),
    }
