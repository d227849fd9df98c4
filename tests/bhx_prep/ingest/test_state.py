"""State of the files of subjects: what makes Snakemake run a batch again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import small_bids

from bhx_prep.cohort_plan import CohortPlan
from bhx_prep.config import config

SERIES = "r1\tr2\n0\t1\n1\t0\n2\t2\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for label in ("01", "02"):
        table = tmp_path / f"data/sub-{label}/func/sub-{label}_task-rest_timeseries.tsv"
        table.parent.mkdir(parents=True)
        table.write_text(SERIES)
        os.utime(table, (1e9, 1e9))
    return tmp_path


def states(root: Path, **change) -> dict[str, str]:
    """State of each subject, by a plan made anew."""
    settings = config.check(
        {"cohorts": {"a": {"input": "timeseries", "root": str(root / "data"), "tr_s": 2.0, **change}}}
    )
    plan = CohortPlan("a", settings.cohorts["a"], settings, root / ".bhx/index", build=True)
    return {label: plan.state([label]) + plan.metadata([label]) for label in plan.subjects()}


def table_of(root: Path, label: str) -> Path:
    return root / f"data/sub-{label}/func/sub-{label}_task-rest_timeseries.tsv"


def test_it_stays_where_nothing_changes(root: Path) -> None:
    before = states(root)
    assert before["01"] != before["02"]
    assert states(root) == before
    root.joinpath("data").rename(root / "moved")
    (root / "data").symlink_to(root / "moved")
    assert states(root) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda table: os.utime(table, (2e9, 2e9)),
        lambda table: (table.write_text(SERIES + "3\t3\n"), os.utime(table, (1e9, 1e9))),
        lambda table: table.unlink(),
        lambda table: table.with_suffix(".json").write_text("{}"),
    ],
    ids=["touched", "longer, but as old", "gone", "a sidecar more"],
)
def test_a_change_of_one_subject_is_seen_and_no_other(root: Path, change) -> None:
    before = states(root)
    change(table_of(root, "01"))
    after = states(root)
    assert after.get("01") != before["01"]
    assert after["02"] == before["02"]


@pytest.mark.parametrize("change", [{"tr_s": 2.5}, {"synthetic": True}])
def test_what_the_configuration_says_of_scans_reruns_them(root: Path, change) -> None:
    before = states(root)
    assert {s != before[label] for label, s in states(root, **change).items()} == {True}


@pytest.mark.parametrize("plan", ["no plan", None])
def test_a_plan_that_cannot_be_read_or_written_is_a_sentence(root: Path, monkeypatch, plan) -> None:
    monkeypatch.chdir(root)
    settings = config.check({"cohorts": {"a": {"input": "timeseries", "root": "data", "tr_s": 2.0}}})
    cohort = CohortPlan("a", settings.cohorts["a"], settings, root / ".bhx/index", build=True)
    if plan is None:
        (root / "results").write_text("a file where the folder should be")
    else:
        (root / "results/a").mkdir(parents=True)
        (root / "results/a/plan.json").write_text(plan)
    with pytest.raises(SystemExit, match="cohort a: its plan cannot be read or written"):
        cohort.batches()


def test_preprocessing_depends_on_files_alone(root: Path) -> None:
    def of_files(**change) -> str:
        section = {"input": "timeseries", "root": str(root / "data"), "tr_s": 2.0, **change}
        settings = config.check({"cohorts": {"a": section}})
        return CohortPlan("a", settings.cohorts["a"], settings, root / ".bhx/index", build=True).state(["01"])

    assert of_files() == of_files(synthetic=True)


def test_field_maps_of_a_subject_count_for_its_preprocessing(tmp_path: Path) -> None:
    for label in ("01", "02"):
        small_bids.write_subject(tmp_path, label)
    settings = config.check({"cohorts": {"a": {"input": "bids", "root": str(tmp_path), "tasks": ["rest"]}}})
    plan = CohortPlan("a", settings.cohorts["a"], settings, tmp_path / ".bhx/index", build=True)
    assert [plan.field_map_state(label) for label in ("01", "02")] == ["", ""]
    sidecar = small_bids.write_json(tmp_path / "sub-01/fmap/sub-01_phasediff.json", EchoTime1=0.005)
    before = plan.field_map_state("01")
    small_bids.write_json(sidecar, EchoTime1=0.005, IntendedFor="func/sub-01_task-rest_bold.nii.gz")
    assert len({"", before, plan.field_map_state("01")}) == 3
    assert plan.field_map_state("02") == ""
