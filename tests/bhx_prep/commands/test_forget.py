"""`bhx forget` on a folder made by hand; with real results and Snakemake it is tested in tests/slurm."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import inside_files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endpoint_labels import prediction_row
from small_bids import write_subject

from bhx_model.evaluation import prediction_file
from bhx_prep import cli
from bhx_prep.commands import forget
from bhx_prep.config import config
from bhx_prep.evaluation import people
from bhx_prep.ingest import batches
from bhx_prep.preproc.work_folder import open_work_folder

STUDY = {
    "batch_size": 1,
    "cohorts": {
        "town": {"input": "timeseries", "root": "data/town"},
        "ward": {"input": "timeseries", "root": "data/ward"},
    },
    "experiments": {"demo": {"cohorts": ["town"], "preset": "tiny"}},
    "endpoints": {
        "age": {"cohort": "town", "column": "age", "kind": "regression", "seeds": 1},
        "external": {
            "cohort": "ward",
            "column": "age",
            "kind": "regression",
            "seeds": 1,
            "test_on": ["town"],
        },
    },
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Two subjects, t1 and t10, whose labels begin alike, and a namesake in another cohort."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(json.dumps(STUDY))
    for name in ("town/sub-t10", "ward/sub-t1"):
        table = tmp_path / f"data/{name}/func/{name[5:]}_task-rest_timeseries.csv"
        table.parent.mkdir(parents=True)
        table.write_text("a,b\n" + "1,2\n" * 20)
    results = config.load(tmp_path / "config.yaml").results
    n = batches.n_batches(results, "town", 40, 1)
    batch = f"{batches.batch_of('town', 't1', n):05d}"
    other = f"{(batches.batch_of('town', 't1', n) + 1) % n:05d}"
    split = json.dumps({"train": ["town/t1"], "holdout": ["town/t10"]})
    texts = {
        "results/town/preproc/sub-t1_status.json": "{}",
        "results/town/preproc/sub-t10_status.json": "{}",
        f"results/town/features/batch-{batch}/qc.parquet": "x",
        f"results/town/features/batch-{other}/qc.parquet": "x",
        f"results/town/shards/bold-{batch}.tar": "x",
        f"results/town/shards/bold-{other}.tar": "x",
        f"results/logs/extract_features/town/batch-{batch}.log": "x",
        "results/logs/run_embedded/town/sub-t1.log": "x",
        "results/logs/run_embedded/ward/sub-t1.log": "x",
        f"results/encoders/town-0a0a0a0a/tokens-0a0a0a0a/town/function-{batch}.tar": "x",
        "results/encoders/town-0a0a0a0a/function-tiny-0a0a0a0a/function_tokens/town.npz": "x",
        "results/encoders/town-0a0a0a0a/function-tiny-0a0a0a0a/function_tokens/.part.town.npz": "x",
        "results/encoders/town-0a0a0a0a/function-tiny-0a0a0a0a/function_tokens/.arrays.town.npz/mean.npy": "x",
        "results/encoders/town-0a0a0a0a/function-tiny-0a0a0a0a/function_tokens/.part.smalltown.npz": "x",
        "results/encoders/town-0a0a0a0a/pretrain.json": split,
        "results/endpoints/age/seed-0.json": '{"subject": "t1"}',
        "results/endpoints/external/seed-0.json": '{"rows": [{"subject": "t1", "cohort": "town"}], "excluded": []}',
        "results/endpoints/external/seed-1.json": '{"rows": [{"subject": "t1"}], "excluded": []}',
        "results/endpoints/age/fc_seed-0/metrics.json": "{}",
        "results/reports/index.html": "<p>sub-t10</p>",
        "results/config.resolved.json": '{"cohorts": {"town": {"subjects": ["t1", "t10"]}}}',
        "results/settings/config-1.json": '{"cohorts": {"town": {"subjects": ["t1"]}}}',
        "results/settings/config-2.json": '{"cohorts": {"town": {"subjects": null}, "ward": {"subjects": ["t1"]}}}',
        "results/settings/town/batch-00000-1.json": '["t1", "t10"]',
        "results/settings/town/batch-00000-2.json": '["t10"]',
        "results/settings/ward/batch-00000-3.json": '["t1"]',
        f"results/town/qc/batch-{batch}.js": "x",
        "results/town/qc/index.html": "x",
        "results/settings/qc_decisions.json": '[{"cohort": "town", "subject": "t1"}]',
        "results/settings/town/decisions-00000-1.json": '[{"key": "town_sub-t1_task-rest"}]',
        "results/settings/town/decisions-00000-2.json": '[{"key": "town_sub-t10_task-rest"}]',
        ".bhx/index/town.parquet": "x",
        ".bhx/index/.town-q1w2/table": "x",
        ".snakemake/log/1.log": "--subjects t10,t1 --index",
        ".snakemake/log/2.log": "--subjects t10 --index",
        ".snakemake/iocache/latest.pkl": "\x80results/town/preproc/sub-t1_status.json",
        f".snakemake/incomplete/{base64.b64encode(b'results/town/preproc/sub-t1_status.json').decode()}": "",
        f".snakemake/incomplete/{base64.b64encode(b'results/town/preproc/sub-t10_status.json').decode()}": "",
        ".snakemake/incomplete/not base64": "",
        ".snakemake/metadata/abc": '{"params": ["\'t1,t5\'"]}',
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for row, cohort in {"fc_seed-0": "town", "fc_seed-1": "ward"}.items():
        prediction_file.write(
            tmp_path / f"results/endpoints/age/{row}/predictions.parquet", [prediction_row("t1", cohort)]
        )
    for endpoint, cohort in {"age": "town", "external": "ward"}.items():
        inside_files.write_endpoint(
            tmp_path / f"results/experiments/demo/inspection/{endpoint}.npz",
            ["a"],
            None,
            cohort=cohort,
            first="t1",
        )
    for stage, sha in {"structure": hashlib.sha256(split.encode()).hexdigest(), "function": "gone"}.items():
        made_of = tmp_path / f"results/runs/{stage}-1/made_of.json"
        made_of.parent.mkdir(parents=True)
        metadata = {"config": {"stage": stage}, "inputs": {"shards": [["town", "1"]], "split": sha}}
        made_of.write_text(json.dumps(metadata))
    return tmp_path


STAYS = {
    "results/town/preproc/sub-t10_status.json", "results/logs/run_embedded/ward/sub-t1.log", "results/reports/index.html",
    "results/encoders/town-0a0a0a0a/function-tiny-0a0a0a0a/function_tokens/.part.smalltown.npz",
    "results/endpoints/age/fc_seed-1/predictions.parquet", "results/endpoints/external/seed-1.json",
    "results/experiments/demo/inspection/external.npz",
    "results/settings/town/decisions-00000-2.json",
    ".snakemake/log/2.log", ".snakemake/incomplete/not base64", "results/settings/config-2.json",
    "results/settings/town/batch-00000-2.json", "results/settings/ward/batch-00000-3.json",
    f".snakemake/incomplete/{base64.b64encode(b'results/town/preproc/sub-t10_status.json').decode()}",
}  # fmt: skip


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_page_that_may_show_a_scan_of_the_subject_is_removed(study, capsys):
    """Scans of measured subjects, which have no label in the page."""
    (study / "config.yaml").write_text(json.dumps(STUDY | {"report_scans": "all"}))
    assert cli.main(["forget", "town", "sub-t1"]) == 0
    assert "results/reports/index.html" not in files(study)


def test_lists_removes_and_names_the_weights(study, capsys):
    before = files(study)
    assert cli.main(["forget", "town", "t1", "--dry-run"]) == 0
    assert files(study) == before
    capsys.readouterr()
    assert cli.main(["forget", "town", "sub-t1"]) == 0
    out = capsys.readouterr().out
    left = {name for name in files(study) if name.startswith((".", "results"))}
    kept = {name for name in left if "/runs/" not in name and "plan.json" not in name}
    assert kept >= STAYS
    assert {name for name in kept - STAYS} == {
        name for name in before if "bold-" in name or "features" in name
    } & kept
    assert len(kept - STAYS) == 2  # the other batch's
    assert "results/runs/structure-1  (structure): trained on the subject" in out
    assert "results/runs/function-1  (function): may have seen the subject: its split is gone" in out
    assert cli.main(["forget", "town", "t1"]) == 1
    assert "town has no sub-t1" in capsys.readouterr().err


def _write_subjects(table, *labels):
    pq.write_table(pa.table({"subject": pa.array(labels, pa.string())}), table)


@pytest.fixture
def forgotten(study):
    """The study after `bhx forget town t1`, with tables of the subjects who stay."""
    assert cli.main(["forget", "town", "t1"]) == 0
    for table in (study / "results").glob("town/features/*/qc.parquet"):
        _write_subjects(table, "t10")
    return study


def test_a_label_that_nothing_names_is_doubted(forgotten, capsys):
    """The cache of the index, which holds all subjects of the cohort, is none of theirs."""
    _write_subjects(forgotten / ".bhx/index/town.parquet", "t10")
    before = files(forgotten)
    capsys.readouterr()
    assert cli.main(["forget", "town", "t11"]) == 1
    said = capsys.readouterr()
    assert "town has no sub-t11" in said.err
    assert "check the label" in said.err
    assert not said.out
    assert files(forgotten) == before


@pytest.mark.parametrize("left", ["index", "damaged index", "hash", "decision"])
def test_whatever_still_names_a_subject_is_enough(forgotten, capsys, left):
    """They are no longer in the data, and no file is theirs."""
    cached = forgotten / ".bhx/index/town.parquet"
    if left == "index":
        _write_subjects(cached, "t10", "t1")
    elif left == "damaged index":
        cached.write_text("x")
    elif left == "hash":
        card = forgotten / "results/exports/demo/config.json"
        card.parent.mkdir(parents=True)
        card.write_text(json.dumps({"people": {"subject": [people.hashed("subject", "town/t1")]}}))
    else:
        columns = "cohort\tsubject\tsession\ttask\trun\tmodality\tdecision\twho\twhen\twhy"
        (forgotten / "qc_decisions.tsv").write_text(f"{columns}\ntown\tt1\t\trest\t\tbold\tkeep\tab\t\tx\n")
    assert cli.main(["forget", "town", "t1", "--dry-run"]) == 0


def test_the_subject_s_lines_are_taken_out_of_the_decisions(study, capsys):
    columns = "cohort\tsubject\tsession\ttask\trun\tmodality\tdecision\twho\twhen\twhy"
    lines = [f"{who}\t\trest\t\tbold\tkeep\tab\t\tx" for who in ("town\tt1", "town\tt10", "ward\tt1")]
    table = study / "qc_decisions.tsv"
    table.write_text("\n".join([columns, *lines]) + "\n")
    assert cli.main(["forget", "town", "t1", "--dry-run"]) == 0
    assert table.read_text().splitlines()[1:] == lines
    assert cli.main(["forget", "town", "t1"]) == 0
    assert table.read_text().splitlines()[1:] == lines[1:]
    assert "1 lines of qc_decisions.tsv" in capsys.readouterr().out


@pytest.mark.parametrize("code", [0, 1])
def test_the_batch_is_made_again_from_any_folder(study, capsys, monkeypatch, code):
    (study / "results/town/shards/index.json").write_text("{}")
    ran = []
    snakemake = SimpleNamespace(run=lambda words, **_: ran.append(words) or SimpleNamespace(returncode=code))
    monkeypatch.setattr(forget, "subprocess", snakemake)
    assert cli.main(["forget", "town", "t1"]) == code
    (words,) = ran
    assert Path(words[words.index("--snakefile") + 1]).is_file()
    assert words[-1] == "results/town/shards/index.json"  # nobody else is in the batch
    assert ("run `snakemake cohort_town`" in capsys.readouterr().err) == bool(code)


def test_work_folders_of_failed_preprocessing_go_here_and_are_named_for_the_nodes(study, capsys, monkeypatch):
    raw = {"input": "bids", "root": "data/raw"}
    (study / "config.yaml").write_text(json.dumps(STUDY | {"cohorts": STUDY["cohorts"] | {"raw": raw}}))
    write_subject(study / "data/raw", "02")
    scratch = study / "scratch"
    monkeypatch.setenv("TMPDIR", str(scratch))
    mine, other = (
        open_work_folder(scratch, "raw", label, Path("results/raw/preproc")) for label in ("01", "02")
    )
    (mine / "head.nii.gz").touch()
    assert cli.main(["forget", "raw", "01"]) == 0
    assert not mine.exists()
    assert other.exists()
    out = capsys.readouterr().out
    assert f"removed {mine}/" in out
    assert f"scratch disks of nodes may hold {mine.name}" in out


def test_a_subject_whose_data_are_still_there_is_refused(study, capsys):
    assert cli.main(["forget", "town", "t10"]) == 1
    assert "sub-t10 is still in data/town" in capsys.readouterr().err
    assert cli.main(["forget", "nowhere", "t10"]) == 1
    assert cli.main(["forget", "town", "../t10"]) == 1
    assert "is not a BIDS label" in capsys.readouterr().err


def test_nothing_is_removed_while_snakemake_works(study, capsys):
    (study / ".snakemake/locks").mkdir()
    (study / ".snakemake/locks/0.input.lock").touch()
    before = files(study)
    assert cli.main(["forget", "town", "t1"]) == 1
    assert "Snakemake works in this folder" in capsys.readouterr().err
    assert files(study) == before


def test_traces_are_named_once(study):
    named = list(forget.traces(config.load(study / "config.yaml"), "town", "t1"))
    assert len(named) == len(set(named))
    assert not any(parent in named for path in named for parent in path.parents)
