"""What the studies of real people compare with, on made predictions; they themselves take minutes and are not run here."""

from __future__ import annotations

import functools
from pathlib import Path

import abide_study
import numpy as np
import pytest
import real_study
import stages_study
import yaml

from bhx_model.errors import DataError
from bhx_model.evaluation.intervals import Run
from bhx_prep.config import config

HERE = Path(__file__).parent
TWICE = [["0050279", "0050286"]]


def read(name):
    return yaml.safe_load((HERE / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["abide.yaml", "stages.yaml"])
def test_the_configurations_are_of_this_version(name):
    found = config.check(read(name))
    assert found.experiments == {}
    assert {section.cohort for section in found.endpoints.values()} == set(found.cohorts)


def accuracy_of(shares):
    """Made runs of rows whose predictions are right as often as `shares` says."""

    @functools.cache
    def runs_of(folder, endpoint, method):
        truth = np.arange(160) % 2
        predicted = np.where(np.arange(160) < round(160 * shares[method]), truth, 1 - truth)
        people = np.array([f"abide/{i}" for i in range(160)])
        scores = np.stack([1 - predicted, predicted], axis=1).astype(float)
        return [Run(people, truth, predicted, scores, np.array(["abide/other"]))]

    return runs_of


KNOWN = {"fc": 0.69, "permuted": 0.51, "motion": 0.57, "site": 0.54}


@pytest.mark.parametrize(
    ("changes", "twice", "fails"),
    [
        ({}, TWICE, []),
        ({"fc": 0.8}, TWICE, ["accuracy of fc between 64% and 74%"]),
        (
            {"fc": 0.5},
            TWICE,
            ["accuracy of fc between 64% and 74%", "fc above the majority where a site is left out"],
        ),
        ({"permuted": 0.7}, TWICE, ["interval of permuted holds 50 %"]),
        ({"motion": 0.7}, TWICE, ["interval of motion holds 57.0%"]),
        ({"site": 0.7}, TWICE, ["interval of site holds 54.2%"]),
        ({}, [["0050279", "0050280"]], ["both ids of the duplicate are named"]),
        ({}, [], ["both ids of the duplicate are named"]),
    ],
)
def test_what_is_not_as_known_of_these_people_fails(monkeypatch, changes, twice, fails):
    monkeypatch.setattr(real_study, "runs_of", accuracy_of(KNOWN | changes))
    checks = abide_study.checks(Path(), twice)
    assert [check.expected for check in checks if not check.holds] == fails


def test_a_row_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match="dx has no row fc"):
        real_study.runs_of(tmp_path, "dx", "fc")


def test_outcomes_that_are_predicted_fail(monkeypatch):
    truth = np.random.default_rng(0).standard_normal(55)

    def runs_of(folder, endpoint, method):
        value = {
            "fc": truth,
            "permuted": np.random.default_rng(1).standard_normal(55),
            "fc_tangent": truth * 0,
        }[method]
        people = np.array([f"stages/{i}" for i in range(55)])
        return [Run(people, truth, value, value[:, None], people[:0])]

    monkeypatch.setattr(real_study, "runs_of", runs_of)
    checks = stages_study.checks(Path(), {"bprs6": ["fc", "permuted", "fc_tangent"]})
    assert [check.holds for check in checks] == [False, True, True]


def test_seeds_and_methods_are_added_to_the_random_splits_alone():
    shipped = read("abide.yaml")["endpoints"]
    found = abide_study.of_endpoints(shipped, 7, ("brainnetcnn",))
    assert found["dx"]["seeds"] == 7
    assert found["dx"]["methods"] == [*shipped["dx"]["methods"], "brainnetcnn"]
    assert found["dxsites"] == shipped["dxsites"]
    assert "brainnetcnn" not in shipped["dx"]["methods"]
