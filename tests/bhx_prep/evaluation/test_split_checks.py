"""What `bhx config check` says of splits: test subjects in a pretraining, files of splits, labels that are no phenotype."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from bhx_model.errors import ConfigError
from bhx_prep import startup
from bhx_prep.cli import main
from bhx_prep.config import config
from bhx_prep.evaluation import draw, people, split_checks

DX = {"cohort": "clinic", "column": "dx", "kind": "binary", "classes": ["control", "patient"]}


@pytest.fixture
def study(tmp_path: Path, monkeypatch) -> dict:
    """40 subjects at four sites in pairs of a family, a copy of them under another name, and 40 strangers."""
    monkeypatch.chdir(tmp_path)
    rows = ["participant_id\tdx\tsite\tfamily"]
    for i in range(40):
        (tmp_path / f"clinic/sub-{i:03d}").mkdir(parents=True)
        (tmp_path / f"town/sub-{i:03d}").mkdir(parents=True)
        rows.append(f"sub-{i:03d}\t{('control', 'patient')[i // 2 % 2]}\ts{i // 4 % 4}\tf{i // 2}")
    (tmp_path / "clinic/participants.tsv").write_text("\n".join(rows) + "\n")
    return {
        "cohorts": {
            "clinic": {"input": "timeseries", "root": "clinic"},
            "again": {"input": "timeseries", "root": "clinic"},
            "town": {"input": "timeseries", "root": "town"},
        },
        "experiments": {"own": {"cohorts": ["clinic"]}, "new": {"cohorts": ["town"]}},
        "endpoints": {"dx": DX},
    }


def overlaps(study: dict, **changes) -> list[str]:
    raw = copy.deepcopy(study)
    raw["experiments"]["own"] |= changes
    return list(split_checks.overlaps(config.check(raw)))


def test_a_pretraining_that_holds_test_subjects_ends_the_check_and_says_how_many(study, capsys):
    study["endpoints"]["dx"] = DX | {"seeds": 1}
    Path("config.yaml").write_text(json.dumps(study))
    assert main(["config", "check"]) == 1
    said = capsys.readouterr().err
    found = re.search(r"experiments.own.cohorts: (\d+) of 8 test subjects of dx are in the pretraining", said)
    assert found is not None
    assert 5 <= int(found[1]) <= 8  # some are in the holdout
    assert "experiments.new" not in said


def test_the_same_folder_under_another_name_is_found(study):
    (said,) = overlaps(study, cohorts=["again"])
    assert "(the same subject's folder)" in said


@pytest.mark.parametrize("seeds", ["all", [0], [0, 5]])
def test_excluding_test_subjects_is_no_overlap(study, seeds):
    assert overlaps(study, exclude_test_of={"dx": seeds}) == []
    assert overlaps(study, cohorts=["again"], exclude_test_of={"dx": seeds}) == []


def test_validation_subjects_are_compared_where_they_are_scored(study):
    (said,) = overlaps(study, preset="reference")
    assert "validation subjects of dx are in the pretraining" in said
    assert overlaps(study, preset="reference", exclude_test_of={"dx": [0]}) == []
    study["endpoints"]["dx"] = DX | {"finetune": {"choose_on": "test"}}
    tested, validated = overlaps(study)
    assert "test subjects of dx" in tested
    assert "validation subjects of dx" in validated


def test_untrained_weights_have_no_training_subjects(study):
    study["endpoints"]["dx"] = DX | {"methods": ["fc", "function_regions_untrained"]}
    assert overlaps(study) == []
    assert with_weights(study, {}) == []


@pytest.mark.parametrize(
    "changes", [{"splits": {"scheme": "leave-one-site-out", "site": "site"}}, {"test_on": ["town"]}]
)
def test_the_excluded_subjects_are_the_scored_ones(study, changes: dict):
    study["endpoints"]["dx"] = DX | changes
    config.check(study)
    study["experiments"]["own"]["preset"] = "reference"
    with pytest.raises(
        ConfigError, match="of experiment own is chosen on test subjects and scored on validation"
    ):
        config.check(study)


def test_leaving_out_those_of_one_endpoint_leaves_others(study):
    study["endpoints"]["same"] = DX
    assert "test subjects of same" in overlaps(study, exclude_test_of={"dx": [0]})[0]


def test_an_overlap_that_is_allowed_is_no_mistake(study):
    study["endpoints"]["dx"] = DX | {"pretraining_overlap": "mark"}
    assert overlaps(study) == []


def test_other_cohorts_are_what_is_tested(study):
    rows = ["participant_id\tdx", *(f"sub-{i:03d}\tcontrol" for i in range(40))]
    Path("town/participants.tsv").write_text("\n".join(rows) + "\n")
    study["endpoints"]["dx"] = DX | {"test_on": ["town"]}
    (said,) = overlaps(study)  # the endpoint's own subjects train and validate
    assert said.startswith("experiments.new.cohorts: ")


def test_a_split_that_cannot_be_made_is_a_mistake(study, capsys):
    study["endpoints"] = {"dx": DX | {"splits": {"scheme": "file", "file": "lists.csv"}}}
    study["experiments"] = {}
    parts = ["train" if i < 30 else "val" if i < 39 else "test" for i in range(40)]
    Path("lists.csv").write_text(
        "\n".join(["sub,split", *(f"{i:03d},{part}" for i, part in enumerate(parts))]) + "\n"
    )
    Path("config.yaml").write_text(json.dumps(study))
    assert main(["config", "check"]) == 1
    assert (
        "endpoints.dx: 'split' of lists.csv leaves 1 usable subjects in test, 2 are needed"
        in capsys.readouterr().err
    )
    with Path("clinic/participants.tsv").open("a") as file:
        file.write("sub-777\tcontrol\ts0\tf99\n")  # without data
    with Path("lists.csv").open("a") as file:
        file.write("777,test\n888,test\n")
    assert main(["config", "check"]) == 1
    assert (
        "lists.csv names 1 people that participants.tsv does not have, e.g. '888'" in capsys.readouterr().err
    )


def check_config(study: dict, capsys) -> str:
    """What `bhx config check` says when it refuses."""
    Path("config.yaml").write_text(json.dumps(study))
    assert main(["config", "check"]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({"classes": ["control", "patient"]}, "4 subjects of class 'patient' with the scans, 5 are needed"),
        ({"column": "score", "kind": "regression", "classes": []}, "9 subjects with a label and the scans, 10 are needed"),
    ],
)  # fmt: skip
def test_random_splits_that_cannot_be_made_are_refused_before_anything_runs(
    study, capsys, endpoint: dict, said: str
):
    rows = ["participant_id\tdx\tscore"]
    rows += [f"sub-{i:03d}\t{'patient' if i < 4 else 'control'}\t{i if i < 9 else 'n/a'}" for i in range(40)]
    Path("clinic/participants.tsv").write_text("\n".join(rows) + "\n")
    study |= {"experiments": {}, "endpoints": {"dx": DX | endpoint}}
    assert f"endpoints.dx: {said}" in check_config(study, capsys)
    with pytest.raises(ConfigError, match=re.escape(said)):
        startup.check_start(config.check(study), Path(), submits=False, endpoints=["dx"])


def test_families_that_may_leave_a_part_without_a_class_are_a_warning(study, monkeypatch, caplog):
    """Whose scans turn out to be unusable may change it."""

    def divide(*_):
        raise draw.PartWithoutClass("families leave nobody of class 'patient' in val")

    monkeypatch.setattr(draw, "divide", divide)
    study["experiments"] = {}
    Path("config.yaml").write_text(json.dumps(study))
    assert main(["config", "check"]) == 0
    assert "endpoints.dx: families leave nobody of class 'patient' in val" in caplog.text


def test_more_splits_than_there_are_is_refused(study, capsys):
    study["endpoints"]["dx"] = DX | {"splits": {"scheme": "leave-one-site-out", "site": "site"}, "seeds": 5}
    study["experiments"]["own"]["exclude_test_of"] = {"dx": [0, 3]}
    said = check_config(study, capsys)
    assert "endpoints.dx.seeds: 5 splits are asked for, there are 3: lower it" in said
    assert "experiments.own.exclude_test_of: dx is split 3 times, seeds 0 to 2, none is 3" in said
    study["endpoints"]["dx"] = DX | {"seeds": 3}
    assert "dx is split 3 times, seeds 0 to 2, none is 3" in check_config(study, capsys)


@pytest.mark.parametrize("changes", [{"seed": -1}, {"seed": 2**32}, {"exclude_test_of": {"dx": [-1]}}])
def test_an_invalid_seed_is_a_mistake(study, changes: dict):
    study["experiments"]["own"] |= changes
    with pytest.raises(ConfigError, match=rf"experiments\.own\.{next(iter(changes))}"):
        config.check(study)


def test_too_few_sites_to_leave_one_out_end_the_check_as_they_end_the_plan(study, capsys):
    study["endpoints"] = {"dx": DX | {"splits": {"scheme": "leave-one-site-out", "site": "family"}}}
    study["experiments"] = {}
    Path("config.yaml").write_text(json.dumps(study))
    assert main(["config", "check"]) == 1
    assert (
        "endpoints.dx.splits: participants.tsv, column family: 1 site of 10 or more labelled subjects"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({"column": "site", "classes": ["s0", "s1"]}, "'site' is where subjects were scanned"),
        ({"column": "SITE_ID"}, "'SITE_ID' is where subjects were scanned"),
        ({"column": "wave"}, "'wave' is where subjects were scanned"),
        ({"stratify": ["dx"]}, "'dx' is the endpoint's own column"),
        (
            {"splits": {"scheme": "leave-one-site-out", "site": "dx"}},
            "splits.site: 'dx' is the endpoint's own column",
        ),
        (
            {"column": "sex", "methods": ["fc", "age_sex"]},
            "'age_sex' reads 'sex', which is what is predicted",
        ),
    ],
)
def test_labels_that_another_variable_determines_are_mistakes(study, endpoint: dict, said: str):
    study["cohorts"]["clinic"]["columns"] = {"site": "wave", "sex": "sex", "age": "years"}
    study["endpoints"]["dx"] = DX | endpoint
    with pytest.raises(ConfigError, match=said):
        config.check(study)


def with_weights(study: dict, card: dict) -> list[str]:
    """Mistakes of an experiment whose weights have this card."""
    Path("released").mkdir(exist_ok=True)
    about = {"terms": {}, "synthetic": False, "stages": {"function": {}}}
    Path("released/config.json").write_text(json.dumps(about | card))
    Path("released/function.safetensors").touch()
    study["experiments"] = {"given": {"weights": "released"}}
    return list(split_checks.overlaps(config.check(study)))


def test_weights_whose_card_lists_no_people_are_a_mistake_unless_rows_may_be_marked(study):
    (said,) = with_weights(study, {})
    assert "experiments.given.weights: the card of released lists no people" in said
    study["endpoints"]["dx"] = DX | {"pretraining_overlap": "mark"}
    assert with_weights(study, {}) == []


@pytest.mark.parametrize("card", ["{", "[]", '{"stages": []}', '{"stages": {"structure": {}}}'])
def test_a_card_of_weights_that_cannot_be_read_is_a_mistake(study, card: str):
    with_weights(study, {})
    Path("released/config.json").write_text(card)
    (said,) = split_checks.overlaps(config.check(study))
    assert said.startswith("experiments.given.weights: ")
    assert "config.json" in said


def test_the_card_of_weights_says_who_was_trained_on(study):
    known = people.listed({"x": people.keys(people.CohortPeople("clinic"), "007")})
    study["endpoints"]["dx"] = DX | {"seeds": 20}
    (said,) = with_weights(study, {"people": known})
    assert re.search(
        r"1 of \d+ test subjects of dx are in the pretraining of released, e.g. clinic/007", said
    )
    strangers = people.listed({"x": people.keys(people.CohortPeople("elsewhere"), "007")})
    assert with_weights(study, {"people": strangers}) == []


def test_splits_that_test_one_class_are_a_warning(study):
    table = Path("clinic/participants.tsv")
    lines = table.read_text().splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    rows = [[s, "control" if site == "s0" else dx, site, f"f{s}"] for s, dx, site, _ in rows]
    table.write_text("\n".join(["\t".join(row) for row in [lines[0].split("\t"), *rows]]) + "\n")
    study["endpoints"]["dx"] = DX | {"splits": {"scheme": "leave-one-site-out", "site": "site"}}
    assert list(split_checks.doubtful(config.check(study))) == [
        "endpoints.dx.splits: 1 of 3 test one class only, e.g. 's0' 'control': their AUROC cannot be told"
    ]
    study["endpoints"]["dx"] = DX
    assert list(split_checks.doubtful(config.check(study))) == []
