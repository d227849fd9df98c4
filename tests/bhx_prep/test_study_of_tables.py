"""Which tables a study has: one per endpoint, one of rows chosen on test, the paper's, and experiments side by side."""

from __future__ import annotations

import pytest

from bhx_model.errors import ConfigError
from bhx_prep.config import config
from bhx_prep.study import Study


def study(**experiments: dict) -> Study:
    raw = {
        "cohorts": {"a": {"input": "timeseries", "root": "a", "tr_s": 2.0}},
        "experiments": {name: {"cohorts": ["a"], "stages": ["function"], **of} for name, of in experiments.items()},
        "endpoints": {
            "autism": {
                "cohort": "a", "column": "dx", "kind": "binary", "classes": ["1", "2"], "paper": "ABIDE-I",
                "methods": ["fc", "function_mean", "function_attentive"],
            },
            "age": {"cohort": "a", "column": "age", "kind": "regression", "methods": ["fc", "function_mean"]},
        },
    }  # fmt: skip
    return Study(raw, build=True)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "a/sub-01/func/sub-01_task-rest_timeseries.tsv"
    table.parent.mkdir(parents=True)
    table.write_text("r1\tr2\n0\t1\n1\t0\n")


def test_without_experiments_every_endpoint_has_a_table():
    assert study().table_names() == ["autism", "age"]
    assert study().study_tables() == {"table1": ["autism"]}


def test_rows_chosen_on_test_have_tables_of_their_own_in_a_study_with_both_presets():
    both = study(ours={"preset": "tiny"}, theirs={"preset": "reference"})
    assert both.table_names() == ["autism", "autism_reference", "age", "age_reference"]
    assert both.rows_of_table("autism") == {"ours": ["function_mean", "function_attentive"]}
    assert both.rows_of_table("autism_reference") == {"theirs": ["function_mean", "function_attentive"]}
    assert both.study_tables() == {"table1": ["autism"], "table1_reference": ["autism_reference"]}


def test_experiments_with_one_method_stand_side_by_side():
    two = study(one={"preset": "tiny"}, other={"preset": "tiny", "seed": 1})
    assert two.study_tables() == {"table1": ["autism"], "ablations": ["autism", "age"]}


@pytest.mark.parametrize("name", ["table1", "table2", "ablations"])
def test_an_endpoint_cannot_have_the_name_of_a_table_of_the_study(name):
    endpoint = {"cohort": "a", "column": "age", "kind": "regression"}
    with pytest.raises(ConfigError, match=f"{name} is the name of a table of the whole study"):
        config.check({"cohorts": {"a": {"input": "timeseries", "root": "a"}}, "endpoints": {name: endpoint}})
