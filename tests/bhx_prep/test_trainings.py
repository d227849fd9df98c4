"""Where encoders live: one folder for what is equal, another for what is not, and a person can find them."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from bhx_model.errors import ConfigError
from bhx_prep.config.config import check
from bhx_prep.config.experiments import ExperimentSection
from bhx_prep.config.section import read_section
from bhx_prep.step_versions import STEPS
from bhx_prep.trainings import GIVEN as WEIGHTS
from bhx_prep.trainings import TRAINED, TRAINSET, Trainings, overrides

EXPERIMENT = {"cohorts": ["a", "b"], "preset": "tiny"}
#: What of it an experiment with weights has not.
GIVEN = {"cohorts": []}


def trainings(results: Path = Path("results"), **experiments: dict[str, Any]) -> Trainings:
    """Of experiments that are `EXPERIMENT` with some changes."""
    cohorts = {name: {"input": "timeseries", "root": name, "tr_s": 2.0} for name in ("a", "b")}
    made = {name: EXPERIMENT | changes for name, changes in experiments.items()}
    endpoints = {"x": {"cohort": "a", "column": "age", "kind": "regression"}}
    raw = {"results": str(results), "cohorts": cohorts, "experiments": made, "endpoints": endpoints}
    return Trainings(check(raw))


def shared(change: dict[str, Any]) -> dict[str, bool]:
    """Which folders an experiment with a change has in common with one without."""
    made = trainings(plain={}, changed=change)
    return {
        "subjects": made.subjects_folder("plain") == made.subjects_folder("changed"),
        "structure": made.stage_folder("plain", "structure") == made.stage_folder("changed", "structure"),
        "function": made.stage_folder("plain", "function") == made.stage_folder("changed", "function"),
        "tokens": made.tokens("plain", "a") == made.tokens("changed", "a"),
        "function_tokens": made.function_tokens("plain", "a") == made.function_tokens("changed", "a"),
        "fusion": made.stage_folder("plain", "fusion") == made.stage_folder("changed", "fusion"),
    }


ALL_BUT_FUSION = {"subjects", "structure", "function", "tokens", "function_tokens"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"overrides": {"fusion": {"model.hub_tokens": 32}}}, ALL_BUT_FUSION),
        ({"gpus": 8}, ALL_BUT_FUSION),
        ({"cohorts": ["b", "a"]}, ALL_BUT_FUSION),
        ({"overrides": {"structure": {"train.accumulate": 2}}}, ALL_BUT_FUSION),
        ({"overrides": {"function": {"model.harmonics": "standardised"}}}, ALL_BUT_FUSION),  # as the preset
        ({"overrides": {"function": {"model.harmonics": "none"}}}, {"subjects", "structure"}),
        ({"overrides": {"structure": {"train.steps": 300}}}, {"subjects", "function", "function_tokens"}),
        ({"preset": "small"}, {"subjects"}),
        ({"seed": 1}, set()),
        ({"holdout": 0.2}, set()),
        ({"share": 0.1}, set()),
        ({"init_from": {"fusion": "old"}}, set()),  # who was trained on there counts as trained on here
        ({"exclude_test_of": {"x": "all"}}, set()),
        ({"cohorts": ["a"]}, set()),
    ],
    ids=lambda given: str(given) if isinstance(given, dict) else None,
)
def test_what_decides_an_encoder_names_its_folder(change: dict[str, Any], expected: set[str]):
    assert {part for part, one in shared(change).items() if one} == expected


def write_stage(folder: Path, weights: bytes) -> Path:
    """A folder of one stage, as far as it is looked at."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"stage": "function"}')
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_given_weights_are_known_by_their_content_not_by_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    old = write_stage(tmp_path / "old", b"w" * 2**21)
    shutil.copytree(old, tmp_path / "elsewhere" / "old")
    write_stage(tmp_path / "longer" / "old", b"w" * 2**21 + b"x")
    write_stage(tmp_path / "first" / "old", b"x" + b"w" * (2**21 - 1))
    write_stage(tmp_path / "middle" / "old", b"w" * 2**20 + b"x" * 2**12 + b"w" * (2**20 - 2**12))
    for key in ("init_from", "weights"):
        only: dict[str, Any] = {"stages": ["function"]}

        def change(path: str, key: str = key, only: dict[str, Any] = only) -> dict[str, Any]:
            return (
                {**only, "init_from": {"function": path}}
                if key == "init_from"
                else {**only, **GIVEN, "weights": path}
            )

        paths = ("old", str(old), "./old/", "elsewhere/old", "longer/old", "first/old", "middle/old")
        made = trainings(**{f"e{n}": change(path) for n, path in enumerate(paths)})
        folders = [made.stage_folder(f"e{n}", "function") for n in range(len(paths))]
        assert len(set(folders[:4])) == 1
        assert len(set(folders[3:])) == 4
    fusion = {
        "init_from": {"fusion": "old"}
    }  # which it does not hold: named by its path, and refused elsewhere
    assert trainings(one=fusion).trainset("one") == trainings(one=fusion).trainset("one")


def test_what_is_stated_as_the_preset_has_it_is_no_change():
    given = {"function": {"model.harmonics": "standardised", "train.accumulate": 2, "train.ema": [0.98, 1.0]}}
    made = trainings(a={"overrides": given}, b={})._config
    assert overrides(made, "a", "function") == {"train.accumulate": 2}
    assert overrides(made, "a", "structure") == overrides(made, "b", "function") == {}


def test_splits_that_are_left_out_are_a_set():
    made = trainings(
        one={"exclude_test_of": {"x": [0, 2]}},
        same={"exclude_test_of": {"x": [2, 0, 2]}},
        other={"exclude_test_of": {"x": [0]}},
    )
    assert made.trainset("one") == made.trainset("same") != made.trainset("other")
    for none in ([], None, 0, "al", [-1], [True]):
        with pytest.raises(ConfigError, match=r"exclude_test_of.x: write the seeds of splits as a list"):
            trainings(one={"exclude_test_of": {"x": none}})


@pytest.mark.parametrize("change", [{"gpus": True}, {"share": True}, {"seed": False}])
def test_a_truth_value_is_no_number(change: dict[str, Any]):
    with pytest.raises(ConfigError, match=rf"{next(iter(change))}: write a number"):
        trainings(one=change)


def test_weights_of_an_older_version_of_the_step_are_not_taken_for_new_ones(monkeypatch):
    before = trainings(a={})
    parts = {
        "structure": before.stage_folder("a", "structure"),
        "function": before.stage_folder("a", "function"),
        "tokens": before.tokens("a", "a"),
    }
    monkeypatch.setitem(STEPS, "train_encoder", STEPS["train_encoder"] + 1)
    after = trainings(a={})
    assert after.subjects_folder("a") == before.subjects_folder("a")
    for stage in ("structure", "function"):
        assert after.stage_folder("a", stage) != parts[stage]
    assert after.tokens("a", "a") != parts["tokens"]


def test_tokens_of_an_older_version_of_the_step_are_not_taken_for_new_ones(monkeypatch):
    before = trainings(a={}).tokens("a", "a")
    monkeypatch.setitem(STEPS, "embed_tokens", STEPS["embed_tokens"] + 1)
    assert trainings(a={}).tokens("a", "a") != before


def test_the_name_of_a_folder_does_not_depend_on_other_experiments():
    alone, beside = trainings(b={}), trainings(a={"overrides": {"fusion": {"model.hub_tokens": 4}}}, b={})
    assert alone.stage_folder("b", "function") == beside.stage_folder("b", "function")
    name = alone.stage_folder("b", "function")
    assert name.parts[:2] == ("results", "encoders")
    assert name.parent.name.startswith("a-b-")
    assert name.name.startswith("function-tiny-")


def test_a_person_finds_what_is_shared_with_whom(tmp_path: Path):
    made = trainings(
        tmp_path,
        small={"overrides": {"fusion": {"model.hub_tokens": 4}}},
        large={},
        alone={"stages": ["function"]},
    )
    made.write_folders()
    folder = tmp_path / "experiments/small"
    assert {link.name for link in folder.iterdir() if link.is_symlink()} == {
        *("subjects", "structure", "function", "tokens", "structure_tokens", "function_tokens")
    }
    assert (folder / "function").resolve() == made.stage_folder("large", "function").resolve()
    assert not (folder / "fusion").exists()
    parts = json.loads((folder / "experiment.json").read_text())["parts"]
    assert parts["structure"]["shared_with"] == ["large"]
    assert parts["function"]["shared_with"] == ["large", "alone"]
    assert parts["fusion"] == {"folder": "experiments/small/fusion", "shared_with": []}
    used_by = json.loads((made.subjects_folder("small") / "used_by.json").read_text())
    assert used_by["cohorts"] == ["a", "b"]
    assert used_by["experiments"] == ["small", "large", "alone"]
    assert used_by["encoders"][made.stage_folder("small", "structure").name]["experiments"] == [
        "small",
        "large",
    ]


def test_links_follow_a_change_and_do_not_hide_what_an_earlier_version_made(tmp_path: Path, caplog):
    old = tmp_path / "experiments/e/function"
    old.mkdir(parents=True)
    (old / "model.safetensors").write_text("old")
    first = trainings(tmp_path, e={})
    first.write_folders()
    assert (old.with_name("function.earlier1") / "model.safetensors").read_text() == "old"
    assert "earlier version" in caplog.text
    assert list(old.iterdir()) == [old / "function_tokens"]
    second = trainings(tmp_path, e={"seed": 1})
    second.write_folders()
    assert old.resolve() == second.stage_folder("e", "function").resolve()
    assert old.resolve() != first.stage_folder("e", "function").resolve()


def test_what_is_equal_is_written_once(tmp_path: Path):
    trainings(tmp_path, e={}).write_folders()
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    trainings(tmp_path, e=copy.deepcopy(EXPERIMENT)).write_folders()
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def given(tmp_path: Path, *stages: str) -> Path:
    """A folder with stages as `bhx_model.compat load` writes them; nobody reads their content here."""
    folder = tmp_path / "Released v1.0"
    for stage in stages:
        (folder / stage).mkdir(parents=True)
        for name in ("run.json", "model.safetensors"):
            (folder / stage / name).write_text("{}")
    return folder


def test_given_weights_are_an_experiment_with_the_stages_they_have(tmp_path: Path):
    folder = given(tmp_path, "structure", "function", "fusion")
    made = trainings(
        tmp_path / "results",
        own={},
        one=GIVEN | {"weights": str(folder)},
        two=GIVEN | {"weights": str(folder)},
    )
    assert made.stage_folder("one", "fusion") == made.stage_folder("two", "fusion")
    assert made.stage_folder("one", "fusion").parent.name.startswith("weights_released-v1-0-")
    assert re.fullmatch(TRAINSET, made.trainset("one"))
    assert not re.fullmatch(TRAINED, made.trainset("one"))
    assert not re.fullmatch(WEIGHTS, made.trainset("own"))
    made.write_folders()
    assert (tmp_path / "results/experiments/one/fusion").resolve() == made.stage_folder(
        "one", "fusion"
    ).resolve()
    used_by = json.loads((made.subjects_folder("one") / "used_by.json").read_text())
    assert (used_by["weights"], used_by["experiments"]) == (str(folder), ["one", "two"])


@pytest.mark.parametrize(
    ("held", "settings", "expected"),
    [
        (("structure", "function"), {}, ("structure", "function")),
        (("function",), {}, ("function",)),
        (("structure", "function", "fusion"), {"stages": ["function"]}, ("function",)),
        (("function",), {"stages": ["structure"]}, r"`stages`: .* holds function, but no structure"),
        ((), {}, "holds no weights: name an export"),
        (
            ("function",),
            {"cohorts": ["a"]},
            "`cohorts` is about a training, and with `weights` there is none",
        ),
        (("function",), {"share": 0.5}, "`share` is about a training"),
    ],
    ids=str,
)
def test_stages_of_given_weights(tmp_path: Path, held: tuple, settings: dict, expected: tuple | str):
    folder = given(tmp_path, *held)
    folder.mkdir(exist_ok=True)
    raw = {"weights": str(folder)} | settings
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=expected):
            read_section(ExperimentSection, raw)
        return
    section = read_section(ExperimentSection, raw)
    assert section.stages == expected
    assert read_section(ExperimentSection, section.model_dump(mode="json")) == section


def test_only_what_is_trained_starts_from_weights():
    raw = {"cohorts": ["a"], "stages": ["function"], "init_from": {"fusion": "old"}}
    with pytest.raises(ConfigError, match="`init_from`: the stage fusion is not trained"):
        read_section(ExperimentSection, raw)


def test_an_experiment_is_trained_or_given():
    with pytest.raises(
        ConfigError, match="`cohorts`: name those to train on, or give `weights` that are trained"
    ):
        read_section(ExperimentSection, {"preset": "tiny"})
