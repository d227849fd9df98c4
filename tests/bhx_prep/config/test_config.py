"""The configuration says every mistake at once, and what is generated from it is up to date."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bhx_model.errors import ConfigError
from bhx_prep.cli import main
from bhx_prep.config import config, pages
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.experiments import ExperimentSection
from bhx_prep.config.features import FeaturesSection
from bhx_prep.config.preproc import PreprocSection
from bhx_prep.config.section import to_json

GOOD = {"cohorts": {"abide1": {"input": "bids", "root": "/data/abide1"}}}


def of_classes(name: str, value: str = "1") -> dict:
    """An endpoint whose first class has this name and value."""
    classes = [{"name": name, "values": [value]}, "2"]
    return {"endpoints": {"e": {"cohort": "abide1", "column": "x", "kind": "binary", "classes": classes}}}


def test_five_mistakes_give_five_messages():
    bad = {
        "cohorts": {"a": {"input": "bid", "root": "x", "taks": ["rest"]}},
        "batch_size": 0,
        "fetures": {},
        "endpoints": {"e": {"cohort": "a", "column": "x", "kind": "binary"}},
    }
    with pytest.raises(ConfigError) as error:
        config.check(bad)
    lines = str(error.value).splitlines()
    assert lines[0] == "5 mistakes in the configuration:"
    assert {line.strip().split(":")[0] for line in lines[1:]} == {
        "cohorts.a.input",
        "cohorts.a.taks",
        "batch_size",
        "fetures",
        "endpoints.e",
    }
    assert "did you mean 'tasks'?" in str(error.value)
    assert "did you mean 'features'?" in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"experiments": {"e": {"cohorts": ["abid1"]}}}, "did you mean 'abide1'?"),
        (
            {"endpoints": {"e": {"cohort": "abide2", "column": "x", "kind": "regression"}}},
            "did you mean 'abide1'?",
        ),
        ({"cohorts": {"Abide-1": {"input": "bids", "root": "x"}}}, "lower-case"),
        ({"cohorts": {"a": {"input": "bids", "root": "x", "subjects": ["../etc"]}}}, "letters and digits"),
        (
            {"cohorts": {"a": {"input": "bids", "root": "x", "subjects": [50002]}}},
            "a.subjects.0: put it in quotes",
        ),
        ({"cohorts": {"a": {"input": "bids", "root": "x", "tasks": [True]}}}, "a.tasks.0: put it in quotes"),
        (
            {"cohorts": {1: {"input": "bids", "root": "x"}}},
            "cohorts: YAML reads a name there as 1, which is no text: put",
        ),
        (
            {"cohorts": {False: {"input": "bids", "root": "x"}}},
            "YAML reads a name there as False, which is no text: put",
        ),
        ({"cohorts": {}}, "cohorts"),
        ({"atlas": {"source": "files"}}, "needs `names`"),
        ({"atlas": {"names": "x.txt"}}, "set `source` to `files`"),
        ({"cohorts": {"a": {"input": "timeseries", "root": "x", "tr_s": 735}}}, "cohorts.a.tr_s"),
        (
            {"features": {"strategy": "papr"}},
            "features.strategy: no denoising strategy 'papr'; did you mean 'paper'?",
        ),
        ({"features": {"strategy": "mine.yaml"}}, "is its path right?"),
        (
            {"experiments": {"e": {"cohorts": ["abide1", "abide1"]}}},
            "e.cohorts: 'abide1' occurs twice: name it once",
        ),
        (
            {"experiments": {"e": {"cohorts": ["abide1"], "stages": ["function", "function"]}}},
            "e.stages: 'function' occurs twice",
        ),
        (
            {
                "endpoints": {
                    "e": {
                        "cohort": "abide1",
                        "column": "x",
                        "kind": "regression",
                        "methods": ["probe", "finetune", "probe"],
                    }
                }
            },
            "e.methods: 'probe' occurs twice",
        ),
        (of_classes("a\nb"), "e.classes.0.name: a class needs a name of 1 to 80 characters on one line"),
        (of_classes(" "), "a class needs a name"),
        *(
            (
                {
                    "endpoints": {
                        "e": {"cohort": "abide1", "column": "x", "kind": "binary", "classes": [value, "2"]}
                    }
                },
                "e.classes.0: write a value as the table has it, a date in quotes, or {name: .., values: [..]}",
            )
            for value in (["1"], datetime.date(2019, 1, 31))
        ),
        (of_classes("c" * 900), "a class needs a name"),
        (of_classes("a", "2.0"), "'2.0' and '2' of two `classes` are the same number"),
        (
            {
                "endpoints": {
                    "e": {
                        "cohort": "abide1",
                        "column": "x",
                        "kind": "regression",
                        "scoring": {"threshold": True},
                    }
                }
            },
            "threshold is of two classes",
        ),
        (
            {
                "endpoints": {
                    "e": {
                        "cohort": "abide1",
                        "column": "x",
                        "kind": "binary",
                        "classes": ["1", "2"],
                        "splits": {"protocol": "brainmarks"},
                        "scoring": {"threshold": True},
                    }
                }
            },
            "the protocol trains on validation subjects",
        ),
    ],
)
def test_a_mistake_is_named(change, expected):
    with pytest.raises(ConfigError, match=None) as error:
        config.check({**GOOD, **change})
    assert expected in str(error.value)


def test_contradictions_between_sections_are_reported_beside_all_else():
    bad = {
        "cohorts": {
            "pretraining": {"input": "timeseries", "root": "x"},
            "patients": {"input": "bid", "root": "y"},
        },
        "experiments": {
            "e": {
                "cohorts": ["pretrainin", "pretraining"],
                "overrides": {"structure": {"train.stepz": 3, "model.depth": 2}, "fusoin": {}},
            },
            "f": {"cohorts": ["pretraining"], "overrides": {"function": {"train.lr": "fast"}}},
        },
        "endpoints": {
            "sex": {"cohort": "patientz", "column": "sex", "kind": "regression", "finetune": {"epcohs": 3}},
            "age": {
                "cohort": "patients",
                "column": "age",
                "kind": "regression",
                "finetune": {"epochs": "ten"},
            },
        },
    }
    with pytest.raises(ConfigError) as error:
        config.check(bad)
    assert str(error.value).splitlines() == [
        "8 mistakes in the configuration:",
        "  cohorts.patients.input: Input should be 'bids', 'fmriprep' or 'timeseries' (is 'bid'); did you mean 'bids'?",
        "  experiments.e.overrides.fusoin: Input should be 'structure', 'function' or 'fusion' (is 'fusoin');"
        " did you mean 'fusion'?",
        "  experiments.e.cohorts: no cohort 'pretrainin'; did you mean 'pretraining'?",
        "  experiments.e.overrides.structure.train.stepz: no such key; did you mean 'train.steps'?",
        "  experiments.f.overrides.function.train.lr: expected float, got 'fast'"
        " (YAML reads 1e-4 as text: write 1.0e-4)",
        "  endpoints.sex.cohort: no cohort 'patientz'; did you mean 'patients'?",
        "  endpoints.sex.finetune.epcohs: no such key; did you mean 'epochs'?",
        "  endpoints.age.finetune.epochs: expected int, got 'ten'",
    ]


def test_a_patch_longer_than_the_counted_one_is_named():
    raw = {
        "cohorts": {"a": {"input": "timeseries", "root": "x"}},
        "experiments": {"e": {"cohorts": ["a"], "overrides": {"function": {"model.base_patch": 96}}}},
    }
    with pytest.raises(
        ConfigError, match=r"patches of 70.56 s are longer than features\.patch_seconds, 35.28: raise"
    ):
        config.check(raw)
    config.check(raw | {"features": {"patch_seconds": 70.56}})


@pytest.mark.parametrize(
    "broken", [3, "a", [], [3], {"e": 3}, {"e": {"cohorts": 3, "cohort": [], "overrides": 3}}]
)
def test_no_shape_of_a_section_is_a_traceback(broken):
    with pytest.raises(ConfigError):
        config.check({**GOOD, "experiments": broken, "endpoints": broken})


@pytest.mark.parametrize("text", ["", "cohorts: [", "- a", "cohorts: 3"])
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        config.load(file)


def test_a_method_that_is_not_known_is_a_short_sentence():
    endpoint = {"cohort": "abide1", "column": "age", "kind": "regression", "methods": ["fc", "finetun"]}
    with pytest.raises(ConfigError) as error:
        config.check({**GOOD, "endpoints": {"e": endpoint}})
    line = str(error.value).splitlines()[1]
    assert line.endswith("(is 'finetun'); did you mean 'finetune'?")
    assert len(line) <= 200


def test_a_missing_file_is_a_sentence(tmp_path: Path, capsys):
    assert main(["config", "check", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml here: name the configuration" in capsys.readouterr().err


def test_paths_of_users_name_the_home_folder_and_no_variable(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cohort = {"input": "timeseries", "root": "~/data", "participants": "~/table.tsv"}
    checked = config.check(
        {
            "results": "~/out",
            "cohorts": {"a": cohort},
            "atlas": {"source": "files", "name": "X", "names": "~/n"},
        }
    )
    found = (checked.results, checked.cohorts["a"].root, checked.cohorts["a"].phenotypes, checked.atlas.names)
    assert found == tuple(tmp_path / name for name in ("out", "data", "table.tsv", "n"))
    with pytest.raises(ConfigError, match=r"cohorts\.a\.root: variables such as \$\{DATA\} are not replaced"):
        config.check({"cohorts": {"a": {"input": "bids", "root": "/x/${DATA}/raw"}}})
    for nothing in ("", " "):
        with pytest.raises(ConfigError, match=r"cohorts\.a\.root: no path is given"):
            config.check({"cohorts": {"a": {"input": "bids", "root": nothing}}})
    with pytest.raises(
        ConfigError, match=r"results: the quotation marks are part of the path: leave them out"
    ):
        config.check({**GOOD, "results": "'/x y/out'"})
    with pytest.raises(ConfigError, match=r"results: there is no home folder for ~nobodyatall"):
        config.check({**GOOD, "results": "~nobodyatall/out"})
    with pytest.raises(ConfigError, match=r"preproc\.image: there is no home folder for ~nobodyatall"):
        config.check({**GOOD, "preproc": {"image": "~nobodyatall/fmriprep.sif"}})
    with pytest.raises(ConfigError) as raised:
        config.check(
            {"cohorts": {"a": {"input": "bids", "root": "s3://b/c"}}, "results": "https://example.org/"}
        )
    assert len(raised.value.mistakes) == 2
    for line in raised.value.mistakes:
        assert "it is a URL, and a path of this machine is expected: download it" in line
        assert len(line) <= 200


@pytest.mark.parametrize("path", pages.GENERATED, ids=str)
def test_generated_files_are_current(root: Path, path: Path):
    assert (root / path).read_text(encoding="utf-8") == pages.GENERATED[path](), (
        f"{path} is not what the models say: run `bhx config write --force`"
    )


def test_writing_generated_files_never_replaces_a_users(tmp_path: Path, capsys):
    mine = tmp_path / "config.yaml"
    mine.write_text("cohorts: {a: {input: bids, root: raw}}\n")
    assert main(["config", "write", str(tmp_path)]) == 1
    assert f"{mine}: the content is not the generated one" in capsys.readouterr().err
    assert [(p, p.read_text()) for p in tmp_path.iterdir()] == [
        (mine, "cohorts: {a: {input: bids, root: raw}}\n")
    ]
    assert main(["config", "write", str(tmp_path), "--force"]) == 0
    assert mine.read_text() == pages.default_yaml()
    (tmp_path / "docs/reference/configuration.md").unlink()
    assert main(["config", "write", str(tmp_path)]) == 0  # all that is there is as generated
    assert {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()} == set(pages.GENERATED)


def test_shipped_configuration_is_the_demo(root: Path):
    shipped = config.load(root / "config.yaml")
    assert shipped == config.check(pages.DEMO)


def test_every_field_has_a_description():
    def fields(model):
        for name, field in model.model_fields.items():
            yield f"{model.__name__}.{name}", field
        for inner in (
            CohortSection,
            ExperimentSection,
            EndpointSection,
            AtlasSection,
            FeaturesSection,
            PreprocSection,
        ):
            if model is config.Config:
                yield from fields(inner)

    bare = [name for name, field in fields(config.Config) if not field.description]
    assert bare == []


def test_sections_survive_the_command_line():
    atlas = AtlasSection(parcels=200, networks=7)
    assert AtlasSection.model_validate_json(to_json(atlas)) == atlas
    assert atlas.label == "Schaefer7n200p"


@pytest.mark.parametrize("action", ["defaults", "schema", "reference", "presets"])
def test_pages_are_printed(action: str, capsys):
    assert main(["config", action]) == 0
    assert len(capsys.readouterr().out) > 1000


@pytest.mark.parametrize(("env", "pins"), [("prep", ""), ("model", ""), ("ants", "-ants")])
def test_conda_pins_are_those_of_the_constraints(root: Path, env: str, pins: str):
    allowed = {line.split(" ")[0] for line in (root / f"envs/constraints{pins}.txt").read_text().splitlines()}
    listed = yaml.safe_load((root / f"envs/{env}.yaml").read_text())["dependencies"][-1]["pip"]
    assert set(listed) <= allowed


def test_a_preset_is_added_as_one_file(root: Path, tmp_path: Path):
    """The configuration, its schema and its page know it by its being there."""
    for package in (root / "bhx_model", root / "workflow" / "bhx_prep"):
        shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    presets = tmp_path / "bhx_model" / "presets"
    shutil.copy(presets / "tiny.yaml", presets / "huge.yaml")
    code = """
from bhx_prep.config import config, pages
study = {"cohorts": {"a": {"input": "bids", "root": "a"}}}
experiment = {"cohorts": ["a"], "preset": "huge", "overrides": {"structure": {"train.steps": 100}}}
config.check({**study, "experiments": {"e": experiment}})
assert '"huge"' in pages.json_schema()
assert "`huge`" in pages.reference_page()
"""
    here = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=here, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
