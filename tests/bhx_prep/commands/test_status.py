"""``bhx status``: from an empty folder to a finished study, and who failed on the way."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bhx_prep import cli
from bhx_prep.commands import status
from bhx_prep.config import config
from bhx_prep.ingest import batches, index
from bhx_prep.trainings import Trainings

STUDY = {
    "batch_size": 2,
    "cohorts": {
        "ward": {"input": "bids", "root": "data"},
        "town": {"input": "timeseries", "root": "data"},
    },
    "experiments": {"demo": {"cohorts": ["town"], "preset": "tiny"}},
    "endpoints": {"age": {"cohort": "ward", "column": "age", "kind": "regression", "seeds": 2}},
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(json.dumps(STUDY))
    return config.load(tmp_path / "config.yaml")


def row(subject, *, state="ok", reason=None, modality="bold", notes=()):
    key = f"ward_sub-{subject}" + ("_task-rest" if modality == "bold" else "")
    return {
        "cohort": "ward", "input": "bids", "subject": subject, "modality": modality, "key": key,
        "status": state, "reason": reason, "notes": list(notes),
    }  # fmt: skip


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=index.SCHEMA), path)


def write_text(path, text="{}"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def counts(stages):
    return {(s.name, s.unit): (s.done, len(s.failed), s.waiting, len(s.excluded)) for s in stages}


def test_nothing_yet(study, capsys):
    assert cli.main(["status"]) == 0
    out = capsys.readouterr().out
    assert "cohort ward (input bids)" in out
    assert "experiment demo" in out
    assert counts(status.cohort_stages(study, "ward"))["index", "scans"] == (0, 0, 1, 0)
    assert counts(status.experiment_stages(study, "demo")) == {
        ("structure", "training"): (0, 0, 1, 0), ("function", "training"): (0, 0, 1, 0),
        ("tokens", "cohorts"): (0, 0, 2, 0), ("fusion", "training"): (0, 0, 1, 0),
        ("readouts", "cohorts"): (0, 0, 1, 0), ("evaluate", "scores"): (0, 0, 14, 0),
    }  # fmt: skip
    assert cli.main(["status", "--failed"]) == 0
    assert capsys.readouterr().out == "nothing failed, and nothing was excluded\n"


@pytest.fixture
def halfway(study):
    """Four subjects: one excluded at the input, one whose preprocessing failed, one at work, one done."""
    results = study.results
    subjects = [row("1"), row("2"), row("3"), row("4", state="excluded", reason="file is empty")]
    write_rows(results / "ward/index.parquet", subjects)
    n = batches.n_batches(results, "ward", 4, 2)
    failed = {"subject": "2", "status": "failed", "reason": "no brain was found", "log": "results/logs/x.log"}
    write_text(results / "ward/preproc/sub-2_status.json", json.dumps(failed))
    dropped = [{"file": "sub-1_task-rest_run-2_bold.nii.gz", "reason": "one frame only"}]
    done = {"subject": "1", "status": "ok", "reason": None, "excluded": dropped}
    write_text(results / "ward/preproc/sub-1_status.json", json.dumps(done))
    write_text(results / "logs/run_embedded/ward/sub-3.log", "start\nMemoryError: 6 GB\n\n")
    batch = batches.batch_of("ward", "1", n)
    quality = [row("1", state="excluded", reason="mean displacement 0.9 mm"), subjects[3]]
    write_rows(results / f"ward/features/batch-{batch:05d}/qc.parquet", quality)
    write_text(results / f"ward/shards/t1w-{batch:05d}.json")
    return study


def test_who_failed_why_and_which_log(halfway, capsys):
    found = counts(status.cohort_stages(halfway, "ward"))
    n_batches = len(batches.batches("ward", "1234", batches.n_batches(halfway.results, "ward", 4, 2)))
    assert found == {
        ("index", "scans"): (3, 0, 0, 1),
        ("preproc", "subjects"): (1, 2, 0, 1),
        ("features", "batches"): (1, 0, n_batches - 1, 1),  # who was out before is not counted again
        ("check", "cohort"): (0, 0, 1, 0),
        ("shards", "batches"): (1, 0, n_batches - 1, 0),
        ("shards", "index"): (0, 0, 1, 0),
        ("qc", "jobs"): (0, 0, n_batches + 1, 0),
    }
    assert cli.main(["status", "ward", "--failed"]) == 0
    out = capsys.readouterr().out
    assert "failed (preproc): sub-2: no brain was found  [results/logs/x.log]" in out
    assert (
        "failed (preproc): sub-3: failed; last line: MemoryError: 6 GB  [results/logs/run_embedded/ward/sub-3.log]"
        in out
    )
    assert "excluded (index): sub-4 bold ward_sub-4_task-rest: file is empty" in out
    assert "excluded (features): sub-1 bold ward_sub-1_task-rest: mean displacement 0.9 mm  [" in out
    assert "excluded (preproc): sub-1 sub-1_task-rest_run-2_bold.nii.gz: one frame only" in out


def test_a_job_that_failed_before_the_index_was_written_is_listed(study, capsys):
    write_text(study.results / "logs/run_embedded/ward/sub-3.log", "start\nERROR the disk is full\n")
    cli.main(["status", "ward"])
    assert "failed (preproc): sub-3: failed; last line: ERROR the disk is full" in capsys.readouterr().out


def test_while_snakemake_runs_a_begun_job_may_be_at_work(halfway, tmp_path, capsys):
    write_text(tmp_path / ".snakemake/locks/0.input.lock", "")
    cli.main(["status", "ward"])
    assert "sub-3: running or failed; last line" in capsys.readouterr().out


def test_a_cohort_that_is_refused_says_why_and_one_that_passes_what_is_open(study, capsys):
    sentence = "cohort ward: the series are in 7-network order: set atlas.networks: 7"
    write_text(
        study.results / "logs/check_cohort/ward.log", f"started\n2026-01-01 10:00:00 ERROR {sentence}\n"
    )
    cli.main(["status", "ward"])
    assert (
        f"failed (check): check of ward: failed; last line: 2026-01-01 10:00:00 ERROR {sentence}"
        in capsys.readouterr().out
    )
    note = "runs of one scan: 1 pair, such as ward_sub-1 and ward_sub-2"
    write_text(study.results / "ward/check.json", json.dumps({"notes": [note]}))
    cli.main(["status", "ward"])
    assert "notes (check): 1 x runs of one scan" in capsys.readouterr().out
    cli.main(["status", "ward", "--notes"])
    assert f"  ward: {note}" in capsys.readouterr().out


def test_reasons_are_summed_up_unless_asked_for(study, capsys):
    reasons = [row(str(n), state="excluded", reason=f"reason {n % 12}") for n in range(30)]
    write_rows(study.results / "ward/index.parquet", reasons)
    cli.main(["status", "ward"])
    out = capsys.readouterr().out
    assert "excluded (index): 3 x reason 0" in out
    assert "excluded (index): and 2 more, see bhx status --failed" in out
    cli.main(["status", "ward", "--failed"])
    assert capsys.readouterr().out.count("excluded (index): sub-") == 30


def test_notes_are_counted_by_kind_where_they_first_stand(study, capsys):
    chosen = "repetition time chosen: 2 s of the sidecar"
    rows = [row("1", notes=[chosen]), row("2", notes=[chosen]), row("3", notes=[chosen], state="excluded")]
    write_rows(study.results / "ward/index.parquet", rows)
    quality = [row("1", notes=[chosen, "confounds missing: csf"]), row("2", notes=[chosen])]
    write_rows(study.results / "ward/features/batch-00000/qc.parquet", quality)
    cli.main(["status", "ward"])
    out = capsys.readouterr().out
    assert "notes (index): 2 x repetition time chosen" in out
    assert "notes (features): 1 x confounds missing" in out
    cli.main(["status", "ward", "--notes"])
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "  sub-1 bold ward_sub-1_task-rest: repetition time chosen: 2 s of the sidecar",
        "  sub-2 bold ward_sub-2_task-rest: repetition time chosen: 2 s of the sidecar",
        "  sub-1 bold ward_sub-1_task-rest: confounds missing: csf",
    ]


def test_notes_of_labels_are_counted_once_for_all_seeds(study, capsys):
    said = "table read with an assumption: age: kept, though far from all others, is 999 (2 x)"
    write_text(study.results / "endpoints/age/seed-0.json", json.dumps({"notes": [said]}))
    write_text(study.results / "endpoints/age/seed-1.json", json.dumps({"notes": [said]}))
    cli.main(["status"])
    out = capsys.readouterr().out
    assert "notes (age): 1 x table read with an assumption" in out
    assert "splits" in out
    cli.main(["status", "--notes"])
    assert f"endpoints\n  age: {said}\n" in capsys.readouterr().out
    assert status.endpoint_stage(study, "age").done == 2


def test_results_of_a_version_without_notes_are_shown(study, capsys):
    schema = pa.schema([field for field in index.SCHEMA if field.name != "notes"])
    path = study.results / "ward/index.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row("1")], schema=schema), path)
    assert cli.main(["status", "ward"]) == 0
    assert "index            1" in capsys.readouterr().out


def test_files_that_are_torn_are_reported_or_waited_for(study):
    write_rows(study.results / "ward/index.parquet", [row("1")])
    write_text(study.results / "ward/preproc/sub-1_status.json", "{")
    (study.results / "ward/features/batch-00000").mkdir(parents=True)
    (study.results / "ward/features/batch-00000/qc.parquet").write_bytes(b"torn")
    stages = {stage.name: stage for stage in status.cohort_stages(study, "ward")}
    assert stages["preproc"].failed[0].startswith("sub-1: sub-1_status.json cannot be read")
    assert stages["features"].waiting == 1


def test_a_finished_experiment(study):
    folder, made = study.results / "experiments/demo", Trainings(study)
    for stage in ("structure", "function", "fusion"):
        write_text(made.stage_folder("demo", stage) / "model.safetensors")
    for cohort in ("town", "ward"):
        write_text(made.tokens("demo", cohort))
    write_text(made.function_tokens("demo", study.endpoints["age"].cohort))
    for seed in (0, 1):
        for method in study.endpoints["age"].baselines:
            write_text(study.results / f"endpoints/age/{method}_seed-{seed}/metrics.json")
        for method in study.endpoints["age"].methods:
            write_text(folder / f"endpoints/age/{method}_seed-{seed}/metrics.json")
    assert all(stage.waiting == 0 and not stage.failed for stage in status.experiment_stages(study, "demo"))
    (folder / "endpoints/age/probe_seed-1/metrics.json").unlink()
    write_text(
        study.results / "logs/evaluate_model/demo_age_probe_seed-1.log", "three subjects are too few\n"
    )
    (failed,) = status.experiment_stages(study, "demo")[-1].failed
    assert failed.startswith("age, probe, seed 1: failed; last line: three subjects are too few")


def test_an_experiment_without_fusion_has_the_jobs_of_function_tokens(study):
    alone = study.experiments["demo"].model_copy(update={"stages": ("function",)})
    study = study.model_copy(update={"experiments": {"demo": alone}})
    stages = {stage.name: stage for stage in status.experiment_stages(study, "demo")}
    assert list(stages) == ["function", "readouts", "evaluate"]
    assert stages["readouts"].waiting == 1
    assert stages["evaluate"].waiting == 2 * (2 + 2)  # seeds, of the two baselines and the two methods
    nothing = study.model_copy(update={"endpoints": {}})
    assert [stage.name for stage in status.experiment_stages(nothing, "demo")] == ["function"]


def test_an_unknown_cohort_is_a_sentence(study, capsys):
    assert cli.main(["status", "wrad"]) == 1
    assert "no cohort 'wrad' in config.yaml; there are: ward, town" in capsys.readouterr().err


def test_a_subject_whose_preprocessing_failed_is_reported_once(halfway):
    write_rows(
        halfway.results / "ward/features/batch-00000/qc.parquet",
        [row("2", state="excluded", reason="preprocessing failed: no brain was found")],
    )
    stages = status.cohort_stages(halfway, "ward")
    lines = [line for stage in stages for line in (*stage.failed, *stage.excluded) if "no brain" in line]
    assert len(lines) == 1
