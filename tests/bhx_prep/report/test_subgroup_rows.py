"""Scores within sites and of subjects who moved alike stand in the table where sites and motion are known."""

from __future__ import annotations

import pytest
from fake_results import CONFIG, PEOPLE, score

from bhx_model.evaluation import intervals, subgroups
from bhx_prep.report.tables.build import build
from bhx_prep.report.tables.endpoint_sheet import endpoint_sheet
from bhx_prep.report.tables.markdown import to_markdown
from bhx_prep.report.tables.table import RowKey

#: Person -> site and motion, those of one subject not known.
COVARIATES = {
    f"patients/{one}": {"site": "ab"[i % 3 > 0] if i else None, "mean_fd_mm": 0.1 + i / 500 if i else None}
    for i, one in enumerate(PEOPLE)
}


def table(name="diagnosis", covariates=COVARIATES):
    scores = [score(method, seed, name) for method in ("fc", "probe") for seed in range(3)]
    return build(name, CONFIG.endpoints[name], scores, covariates=covariates), scores[3:]


def test_every_row_is_scored_within_sites():
    made, probe = table()
    found = made.entry(RowKey("within sites", "demo", "probe"), "balanced_accuracy")
    sites = {person: row["site"] for person, row in COVARIATES.items() if row["site"]}
    expected = subgroups.within([intervals.run_of(s.predictions) for s in probe], sites, "balanced_accuracy")
    assert (found.mean, found.ci_low) == (
        pytest.approx(100 * expected.point),
        pytest.approx(100 * expected.low),
    )
    assert found.n_test == "2 sites"
    text = to_markdown(endpoint_sheet(made))
    assert "**This run, within sites: mean over sites" in text
    assert "what differs between sites alone cannot score" in text


def test_every_row_is_scored_among_subjects_who_moved_alike():
    made, probe = table()
    found = made.entry(RowKey("alike motion", "demo", "probe"), "balanced_accuracy")
    motion = {person: row["mean_fd_mm"] for person, row in COVARIATES.items() if row["mean_fd_mm"]}
    label = dict(
        zip(
            probe[0].predictions.people.tolist(), probe[0].predictions.truth.astype(int).tolist(), strict=True
        )
    )
    matched = subgroups.motion_matched({person: label[person] for person in motion}, motion)
    expected = subgroups.of_subset(
        [intervals.run_of(s.predictions) for s in probe], matched, "balanced_accuracy"
    )
    assert found.mean == pytest.approx(100 * expected.point)
    assert found.n_test == f"among {len(matched)} matched"
    of_regression, _ = table("cognition")
    assert of_regression.entry(RowKey("alike motion", "demo", "probe"), "mae").n_test == "in thirds"


def test_without_sites_and_motion_there_are_no_such_rows():
    for known in ({}, {person: {"site": "a", "mean_fd_mm": None} for person in COVARIATES}):
        made, _ = table(covariates=known)
        assert not made.rows("within sites")
        assert not made.rows("alike motion")


def test_where_nobody_moved_alike_the_rows_say_so():
    apart = {
        f"patients/{one}": {"site": None, "mean_fd_mm": (0.1, 9.0)[i % 2] + i / 1e4}
        for i, one in enumerate(PEOPLE)
    }
    made, _ = table(covariates=apart)
    found = made.entry(RowKey("alike motion", "demo", "probe"), "auroc")
    assert (found.mean, found.note, found.n_test) == (None, "undefined", "among 0 matched")


def test_an_overlap_of_a_later_split_marks_the_rows_of_subgroups():
    overlap = {"known": True, "n_overlap": 2, "n_tested": 10}
    scores = [
        score("fc", 0),
        score("fc", 1),
        score("probe", 0),
        score("probe", 1, pretraining_overlap=overlap),
    ]
    made = build("diagnosis", CONFIG.endpoints["diagnosis"], scores, covariates=COVARIATES)
    for origin in ("this run", "difference", "within sites", "alike motion"):
        assert made.overlap(RowKey(origin, "demo", "probe")) == "2 of 10"
        assert made.overlap(RowKey(origin, "", "fc")) == ""
