"""Settings of jobs: a change is another file for the jobs that read it, and for no other."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from public_releases import write_site
from small_bids import write_subject

from bhx_prep.cohort_plan import CohortPlan
from bhx_prep.study import Study
from bhx_prep.study_gaps import untrainable

STUDY = {
    "cohorts": {
        "a": {"input": "timeseries", "root": "a", "tr_s": 2.0},
        "b": {"input": "timeseries", "root": "a", "tr_s": 2.0, "strategy": "none", "subjects": ["01", "02"]},
    },
    "experiments": {"e": {"cohorts": ["a"], "preset": "tiny"}},
    "endpoints": {"x": {"cohort": "b", "column": "age", "kind": "regression"}},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for label in ("01", "02", "03"):
        table = tmp_path / f"a/sub-{label}/func/sub-{label}_task-rest_timeseries.tsv"
        table.parent.mkdir(parents=True)
        table.write_text("r1\tr2\n0\t1\n1\t0\n")
    return tmp_path


def settings(raw: dict, *, build: bool = True) -> dict[str, Path]:
    """Every file that jobs are given."""
    study = Study(raw, build=build)
    files = {"config": study.config_file(), **{n: study.section_file(n) for n in ("atlas", "preproc")}}
    for name, cohort in study.cohorts.items():
        files |= {f"features {name}": study.features_file(name), f"batches {name}": cohort.batches_file()}
        files |= {f"subjects {name} {batch}": cohort.subjects_file(batch) for batch in cohort.batches()}
    return files | {
        "terms": study.terms_file("e"),
        "endpoint": study.endpoint_file("x"),
        "split": study.split_file("x"),
    }


def test_they_are_on_disk_once_the_study_is_planned(folder: Path):
    files = settings(STUDY)
    assert json.loads(files["subjects b 00000"].read_text()) == ["01", "02"]
    assert json.loads(files["batches a"].read_text()) == ["00000"]
    assert json.loads(files["features b"].read_text())["strategy"] == "none"
    assert "methods" not in json.loads(files["split"].read_text())
    resolved = json.loads((folder / "results/config.resolved.json").read_text())
    assert resolved == json.loads(files["config"].read_text())
    assert resolved["cohorts"]["b"]["subjects"] == ["01", "02"]


def test_what_has_not_changed_is_not_written_again(folder: Path):
    settings(STUDY)
    before = {path: path.stat().st_mtime_ns for path in folder.joinpath("results").rglob("*.json")}
    assert settings(STUDY, build=False) == settings(STUDY)
    assert {path: path.stat().st_mtime_ns for path in folder.joinpath("results").rglob("*.json")} == before


def test_a_job_writes_nothing(folder: Path):
    settings(STUDY)  # as the main process does
    changed = copy.deepcopy(STUDY)
    changed["atlas"] = {"parcels": 100}
    before = sorted(folder.joinpath("results").rglob("*"))
    assert not settings(changed, build=False)["atlas"].exists()
    assert sorted(folder.joinpath("results").rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"atlas": {"parcels": 100}}, {"atlas"}),
        ({"preproc": {"on_failure": "stop"}}, {"preproc"}),
        ({"features": {"min_seconds": 50}}, {"features a", "features b"}),
        ({"cohorts.a.strategy": "none"}, {"features a"}),
        ({"cohorts.b.subjects": ["01"]}, {"subjects b 00000"}),
        ({"cohorts.a.terms": "CC0"}, {"terms"}),
        ({"endpoints.x.methods": ["probe"]}, {"endpoint"}),
        ({"endpoints.x.stratify": ["site"]}, {"endpoint", "split"}),
        ({"experiments.e.seed": 1}, set()),
    ],
    ids=lambda given: str(given) if isinstance(given, dict) else None,
)
def test_a_change_is_seen_by_the_jobs_that_read_it(change: dict, expected: set[str]):
    before, raw = settings(STUDY), copy.deepcopy(STUDY)
    for dotted, value in change.items():
        *path, last = dotted.split(".")
        section = raw
        for part in path:
            section = section[part]
        section[last] = value
    after = settings(raw)
    assert {name for name in before if before[name] != after[name]} - {"config"} == expected


def test_a_folder_that_cannot_be_written_is_a_sentence(folder: Path):
    (folder / "results").write_text("a file")
    with pytest.raises(SystemExit, match="settings of jobs cannot be written"):
        settings(STUDY)


def test_a_subject_of_a_site_is_preprocessed_from_the_dataset_of_the_site(folder: Path):
    write_site(folder / "sites", "Pitt", ["0050003"])
    study = Study({"cohorts": {"s": {"input": "bids", "layout": "abide1", "root": "sites"}}}, build=True)
    assert study.cohorts["s"].to_preprocess() == ["0050003"]
    assert study.cohorts["s"].dataset("0050003") == folder / "sites" / "Pitt"


def test_how_tables_of_phenotypes_are_read(folder: Path):
    raw = copy.deepcopy(STUDY)
    raw["experiments"]["e"]["cohorts"] = ["b", "a"]
    raw["cohorts"]["b"] |= {"missing": [-9999, "n/a"], "family": "Family_ID"}
    study = Study(raw, build=True)
    given = json.loads(study.table_file("b").read_text())
    assert (given["missing"], given["family"]) == (["-9999", "n/a"], "Family_ID")
    assert json.loads(study.families_file("e").read_text()) == {
        "b": {"participants": "a/participants.tsv", "table": given}
    }
    assert study.family_tables("e") == [Path("a/participants.tsv")]
    assert json.loads(Study(STUDY, build=True).families_file("e").read_text()) == {}


def test_runs_that_may_be_shorter_than_a_patch_of_fixed_tr_are_named(folder: Path):
    for table in folder.rglob("*.tsv"):
        table.with_suffix(".json").write_text(json.dumps({"RepetitionTime": 2.5}))
    fixed = {"model.tr": "fixed", "model.tr_augment": False}
    experiment = {
        "cohorts": ["a"],
        "preset": "tiny",
        "stages": ["function"],
        "overrides": {"function": fixed},
    }
    raw = {"cohorts": {"a": {"input": "timeseries", "root": "a"}}, "experiments": {"e": experiment}}
    (line,) = untrainable(Study(raw, build=True))
    assert line.startswith("experiments.e: features.min_seconds, 100, lets in runs shorter than a patch")
    assert line.endswith("is 48 frames, 120 s at TR 2.5 s: raise it")
    assert untrainable(Study(raw | {"features": {"min_seconds": 120}}, build=True)) == []


@pytest.mark.parametrize(
    ("modalities", "stages", "said"),
    [
        ({"t1w"}, ["structure"], None),
        ({"bold"}, ["function"], None),
        ({"t1w"}, ["structure", "function"], "has no usable BOLD run, which function needs: set `stages: [structure]`"),
        ({"t1w"}, ["structure", "function", "fusion"], "which structure and fusion need: set `stages: [structure]`"),
        ({"bold"}, ["structure"], "has no usable T1 image, which structure needs: set `stages: [function]`"),
        ({"bold"}, ["structure", "function", "fusion"], "which structure and fusion need: set `stages: [function]`"),
    ],
)  # fmt: skip
def test_scans_that_a_stage_needs_and_no_cohort_has_are_named(
    folder: Path, monkeypatch, modalities: set[str], stages: list[str], said: str | None
):
    monkeypatch.setattr(CohortPlan, "modalities", frozenset(modalities))
    monkeypatch.setattr(CohortPlan, "has_t1w", lambda _: False)
    experiment = {"cohorts": ["a"], "preset": "tiny", "stages": stages}
    raw = {"cohorts": {"a": {"input": "timeseries", "root": "a"}}, "experiments": {"e": experiment}}
    lines = untrainable(Study(raw, build=True))
    assert [line.endswith(str(said)) for line in lines] == ([] if said is None else [True])


DECIDED = "cohort\tsubject\tsession\ttask\trun\tmodality\tdecision\twho\twhen\twhy\n"


def decided(raw: dict, *lines: str, build: bool = True) -> dict[str, Path]:
    """Files with the decisions of every batch."""
    if lines:
        Path("qc_decisions.tsv").write_text(DECIDED + "\n".join(lines) + "\n")
    study = Study(raw, build=build)
    return {
        f"{name} {batch}": cohort.decisions_file(batch)
        for name, cohort in study.cohorts.items()
        for batch in cohort.batches()
    }


def test_a_decision_is_another_file_for_its_batch_alone(folder: Path):
    raw = {**STUDY, "batch_size": 1}
    none = decided(raw)
    assert len(set(none.values())) == 1
    assert json.loads(next(iter(none.values())).read_text()) == []
    line = "a\t01\t\trest\t\tbold\texclude\tab\t2026-01-31\tghost"
    excluded = decided(raw, line)
    changed = [job for job, file in excluded.items() if file != none[job]]
    assert len(changed) == 1
    (row,) = json.loads(excluded[changed[0]].read_text())
    assert row == {
        "modality": "bold", "key": "a_sub-01_task-rest", "decision": "exclude", "why": "ghost"
    }  # fmt: skip
    # who decided, and when, changes no result
    assert decided(raw, line.replace("ab\t2026-01-31", "cd\t2026-02-01")) == excluded
    # a job that waits sees what was planned, whatever was written since
    assert decided(raw, line.replace("exclude", "keep"), build=False) == excluded
    Path("qc_decisions.tsv").unlink()
    assert decided(raw) == none


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a\t01\t\trest\t\tbold\tdrop\tab\t\tghost", "unknown decision 'drop'"),
        ("a\t09\t\trest\t\tbold\tkeep\tab\t\tghost", "there is no subject '09' in cohort a"),
    ],
)
def test_a_table_of_decisions_with_a_mistake_stops_the_plan(folder: Path, line: str, expected: str):
    with pytest.raises(SystemExit, match=expected):
        decided(STUDY, line)


def test_a_scan_that_preprocessing_excluded_is_preprocessed_again_when_it_is_kept(folder: Path):
    for label in ("01", "02"):
        write_subject(folder / "raw", label)
    raw = {"cohorts": {"r": {"input": "bids", "root": "raw"}}}
    t1w, bold = "sub-01_T1w.nii.gz", "sub-01_task-rest_bold.nii.gz"
    Path("qc_decisions.tsv").write_text(
        f"{DECIDED}r\t01\t\t\t\tt1w\tkeep\tab\t\tfine\nr\t01\t\trest\t\tbold\tkeep\tab\t\tfine\n"
    )
    plan = Study(raw, build=True).cohorts["r"]
    status = folder / "sub-01_status.json"
    assert plan.kept("01", status) == [t1w, bold]  # nothing has been preprocessed
    assert plan.kept("02", status) == []
    ended = {"status": "ok", "excluded": [], "kept": []}
    for change, expected in (
        ({}, []),  # it passed: a later limit is no reason to preprocess it again
        ({"excluded": [{"file": bold, "reason": "x"}]}, [bold]),
        ({"kept": [bold]}, [bold]),  # as it was preprocessed
        ({"status": "failed"}, [t1w, bold]),
    ):
        status.write_text(json.dumps(ended | change))
        assert plan.kept("01", status) == expected
    status.write_text("{")
    assert plan.kept("01", status) == [t1w, bold]
