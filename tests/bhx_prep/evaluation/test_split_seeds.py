"""How many splits there are, and on which a method is scored: from the configuration and its tables alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhx_model.errors import ConfigError, DataError
from bhx_prep.config import config
from bhx_prep.evaluation import split_seeds

DX = {
    "cohort": "clinic",
    "column": "dx",
    "kind": "binary",
    "classes": ["control", "patient"],
    "stratify": ["site"],
}


def study(root: Path, **endpoint) -> config.Config:
    return config.check(
        {
            "cohorts": {"clinic": {"input": "timeseries", "root": str(root)}},
            "experiments": {"own": {"cohorts": ["clinic"], "exclude_test_of": {"dx": [1, 4]}}},
            "endpoints": {"dx": DX | endpoint},
        }
    )


def with_people(root: Path, sites: dict[str, int]) -> None:
    """A table and a folder per subject; the classes alternate."""
    rows, number = ["participant_id\tdx\tsite"], 0
    for site, n in sites.items():
        for _ in range(n):
            (root / f"sub-{number:03d}").mkdir(parents=True)
            rows.append(f"sub-{number:03d}\t{('control', 'patient')[number % 2]}\t{site}")
            number += 1
    rows.append("sub-gone\tcontrol\tnowhere")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")


def test_linear_rows_have_twenty_splits_and_trained_ones_the_first_three(tmp_path: Path):
    plain = study(tmp_path)
    assert [split_seeds.seeds(plain, "dx", method) for method in (None, "fc", "finetune")] == [
        list(range(20)), list(range(20)), [0, 1, 2],
    ]  # fmt: skip
    assert len(split_seeds.seeds(study(tmp_path, splits={"protocol": "brainmarks"}), "dx")) == 100
    few = study(tmp_path, seeds=2)
    assert split_seeds.seeds(few, "dx", "probe") == split_seeds.seeds(few, "dx", "finetune") == [0, 1]
    assert len(split_seeds.seeds(study(tmp_path, splits={"finetune_seeds": 7}), "dx", "attentive")) == 7


def test_weights_that_leave_out_test_subjects_of_some_splits_are_scored_on_these(tmp_path: Path):
    assert split_seeds.experiment_seeds(study(tmp_path), "own", "dx", "probe") == [1, 4]
    assert split_seeds.experiment_seeds(study(tmp_path), "own", "dx", "finetune") == [1]


def test_every_site_is_a_split_and_small_ones_are_one(tmp_path: Path):
    with_people(tmp_path, {"north": 12, "south": 10, "east": 3, "west": 4})
    given = study(tmp_path, splits={"scheme": "leave-one-site-out"})
    assert split_seeds.site_folds(given, "dx") == [["north"], ["south"], ["east", "west"]]
    assert split_seeds.seeds(given, "dx", "finetune") == [0, 1, 2]


def test_a_site_of_one_subject_is_tested_with_the_smallest_other_site(tmp_path: Path):
    with_people(tmp_path, {"north": 12, "south": 10, "east": 1})
    given = study(tmp_path, splits={"scheme": "leave-one-site-out"})
    assert split_seeds.site_folds(given, "dx") == [["north"], ["south", "east"]]


def test_a_site_and_one_subject_of_another_are_refused(tmp_path: Path):
    with_people(tmp_path, {"north": 12, "east": 1})
    with pytest.raises(DataError, match=r"needs two: use `scheme: random`"):
        split_seeds.seeds(study(tmp_path, splits={"scheme": "leave-one-site-out"}), "dx")


def test_sites_are_those_of_the_table_as_it_is_now(tmp_path, monkeypatch):
    asked = {"splits": {"scheme": "leave-one-site-out"}}
    found = []
    for name, sites in (("one", {"a": 10, "b": 12}), ("two", {"c": 10, "d": 12})):
        with_people(tmp_path / name / "clinic", sites)
        monkeypatch.chdir(tmp_path / name)
        found.append(split_seeds.site_folds(study(Path("clinic"), **asked), "dx"))
    assert found == [[["a"], ["b"]], [["c"], ["d"]]]


def test_one_site_is_refused(tmp_path: Path):
    with_people(tmp_path, {"north": 12})
    with pytest.raises(DataError, match="needs two"):
        split_seeds.seeds(study(tmp_path, splits={"scheme": "leave-one-site-out"}), "dx")


def test_a_file_has_as_many_splits_as_columns(tmp_path: Path):
    (tmp_path / "lists.csv").write_text(
        "sub,age,first,second\n001,3,train,test\n002,4,Validation,train\n003,5,test,\n"
    )
    given = study(tmp_path, splits={"scheme": "file", "file": str(tmp_path / "lists.csv")})
    assert split_seeds.seeds(given, "dx") == [0, 1]
    (tmp_path / "lists.csv").write_text("sub,first\n001,train\n002,tset\n")
    with pytest.raises(DataError, match="holds 'tset' beside train"):
        split_seeds.seeds(given, "dx")
    (tmp_path / "lists.csv").write_text("sub,first\n001,3\n002,4\n")
    with pytest.raises(DataError, match="no column of train"):
        split_seeds.seeds(given, "dx")


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({"splits": {"scheme": "file"}}, "belong together"),
        ({"splits": {"file": "x.csv"}}, "belong together"),
        ({"splits": {"site": "site"}}, "leave-one-site-out"),
        ({"splits": {"scheme": "leave-one-site-out"}, "stratify": []}, "name it as `site`"),
        ({"test_on": ["clinic"]}, "occurs twice"),
        ({"test_on": ["clinik"]}, "no cohort 'clinik'; did you mean 'clinic'"),
        ({"kind": "regression", "classes": [], "splits": {"protocol": "brainmarks"}}, "of classes"),
    ],
)
def test_keys_that_do_not_fit_are_mistakes(tmp_path: Path, endpoint: dict, said: str):
    with pytest.raises(ConfigError, match=said):
        study(tmp_path, **endpoint)
