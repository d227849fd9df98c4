"""``bhx explain`` traces a row back to files, says what changed since, completes names and lists what there is."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import yaml
from fake_results import CONFIG, score, write_score

from bhx_model.errors import ConfigError, DataError
from bhx_model.evaluation.prediction_file import people_sha256
from bhx_prep import cli
from bhx_prep.report.table_addresses import Addresses, complete
from bhx_prep.report.tables import __main__ as of_endpoint
from bhx_prep.report.tables import of_study

WEIGHTS = "w" * 64


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with the table of an endpoint and Table 1, and where its configuration is."""
    folder = tmp_path_factory.mktemp("study")
    values = CONFIG.model_dump(mode="json", exclude_defaults=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**values, "results": "results"}))
    results = folder / "results"
    files = [
        write_score(results, dataclasses.replace(one, values={**one.values, "weights": {"fusion": WEIGHTS}}))
        for method in ("fc", "probe", "finetune")
        for one in (score(method, 0), score(method, 1))
    ]
    section = folder / "diagnosis.json"
    section.write_text(json.dumps(CONFIG.endpoints["diagnosis"].model_dump(mode="json")))
    (results / "tables").mkdir()
    before = Path.cwd()
    os.chdir(folder)  # the paths of runs are relative to where Snakemake runs
    try:
        metrics = [str(file.relative_to(folder)) for file in files]
        words = ["--endpoint-name", "diagnosis", "--endpoint", str(section), "--metrics", *metrics]
        assert of_endpoint.main([*words, "--out-stem", "results/tables/diagnosis"]) == 0
    finally:
        os.chdir(before)
    words = ["--tables", str(results / "tables/diagnosis.csv"), "--out-stem", str(results / "tables/table1")]
    assert of_study.main(words) == 0
    (results / "config.resolved.json").write_text("{}")
    return folder


@pytest.fixture
def explain(study, monkeypatch, capsys):
    """Ask for an address; returns the exit code and what was printed."""
    monkeypatch.chdir(study)

    def ask(*words):
        code = cli.main(["explain", *words])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return ask


def test_a_row_is_traced_back_to_people_splits_runs_versions_and_a_command(explain):
    code, text = explain("table1:diagnosis:fusion")
    assert code == 0
    assert text.startswith("table1:diagnosis:demo/fusion\n")
    people = people_sha256(score().predictions.people)
    for word in (
        "50 subjects (25 control, 25 patient)", people, "seeds 0, 1", "30 train, 10 val, 10 test",
        "results/endpoints/diagnosis/seed-0.json", "chosen on      validation subjects",
        "results/experiments/demo/endpoints/diagnosis/finetune_seed-1/metrics.json", "predictions.parquet",
        f"sha256 {WEIGHTS}, is gone", "c" * 40, "python 3.11.7, numpy 2.0.0", "results/config.resolved.json",
        "endpoint diagnosis: as the table was made", "SYNTHETIC", "63.13 [note-A; accuracy also note-D]",
        "Hub tokens, fine-tuned, of experiment demo", "Accuracy (%) ",
    ):  # fmt: skip
        assert word in text
    assert (
        "snakemake --force -- results/experiments/demo/endpoints/diagnosis/finetune_seed-0/metrics.json"
        " results/experiments/demo/endpoints/diagnosis/finetune_seed-1/metrics.json results/tables/diagnosis.md"
    ) in text
    assert "HAS CHANGED" not in text


@pytest.mark.parametrize(
    ("address", "row"),
    [
        ("diagnosis:fc", "diagnosis:fc"),
        ("diagnosis:diagnosis:demo/probe", "diagnosis:demo/probe"),
        ("diag:fine", "diagnosis:demo/finetune"),
        ("Diagnosis:PROBE", "diagnosis:demo/probe"),
        ("table1:diag:fus", "table1:diagnosis:demo/fusion"),
        ("diagnosis:constant", "diagnosis:constant"),
        ("diagnosis:BrainMass", "diagnosis:BrainMass"),
        ("table1:diagnosis:brainmass", "table1:diagnosis:brainmass"),
    ],
)
def test_names_are_completed(explain, address, row):
    code, text = explain(address)
    assert (code, text.splitlines()[0]) == (0, row)


def test_a_number_of_the_papers_or_of_others_is_traced_to_its_source(explain):
    _, text = explain("table1:diagnosis:brainmass")
    assert "paper          BrainMass: Accuracy (%) 65.64 [note-A; accuracy also note-D]" in text
    assert "others         BrainMass [bdo]" not in text
    assert "BrainMass: F1 (%) 66.66 [bdo]" in text
    assert "Trust: fair, second-hand" in text
    assert "make again" not in text


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        ((), ["diagnosis", "table1"]),
        (("table1",), ["table1:diagnosis"]),
        (
            ("diagnosis",),
            ["diagnosis:fc", "diagnosis:demo/probe", "diagnosis:demo/finetune", "diagnosis:all_positive"],
        ),
    ],
)
def test_parts_that_are_left_out_are_listed(explain, address, listed):
    code, text = explain(*address)
    assert code == 0
    assert text.splitlines()[: len(listed)] == listed


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("table9:diagnosis:fc", "no table 'table9' (did you mean 'table1'?)"),
        ("nothing", "there are diagnosis, table1"),
        ("table1:abide1:fc", "no endpoint 'abide1'; there are diagnosis"),
        ("diagnosis:forest", "no row 'forest'"),
        ("diagnosis:brain", "means several rows"),
        ("table1:diagnosis:fc:more", "three parts"),
        ("diagnosis:cognition:fc", "no endpoint 'cognition'"),
    ],
)
def test_what_is_not_there_is_one_sentence_with_what_is(explain, address, word):
    code, text = explain(address)
    assert code == 1
    assert word in text
    assert "Traceback" not in text
    assert len(text.strip()) <= 220


def test_a_file_that_changed_since_is_named(explain, study):
    file = study / "results/endpoints/diagnosis/fc_seed-0/metrics.json"
    before = file.read_bytes()
    file.write_bytes(before + b"\n")
    try:
        _, text = explain("diagnosis:fc")
    finally:
        file.write_bytes(before)
    (line,) = [line for line in text.splitlines() if "HAS CHANGED" in line]
    assert "fc_seed-0/metrics.json" in line


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"list": "late"}, ", split 'late' of the file; "),
        ({"sites": ["NYU", "PITT"]}, ", tested NYU, PITT; "),
        ({}, " test; "),
        ([], " test; "),
    ],
)
def test_it_says_what_the_file_calls_a_split_and_which_sites_are_tested(explain, study, about, said):
    split = study / "results/endpoints/diagnosis/seed-0.json"
    split.parent.mkdir(parents=True, exist_ok=True)
    split.write_text(json.dumps(about))
    try:
        _, text = explain("diagnosis:fc")
    finally:
        split.unlink()
    (line,) = [line for line in text.splitlines() if line.strip().startswith("seed 0")]
    assert f"{said}results/endpoints/diagnosis/seed-0.json" in line


def test_without_tables_it_says_how_to_make_them(tmp_path):
    assert Addresses(tmp_path).find("table1") == []


def test_a_table_of_another_version_is_refused(tmp_path):
    (tmp_path / "diagnosis.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="snakemake tables"):
        Addresses(tmp_path).find("diagnosis:fc")


def test_an_ambiguous_name_lists_what_it_may_mean():
    assert complete("row", "fc", ["fc", "fc_svm"]) == "fc"
    with pytest.raises(ConfigError, match="'fc_' means several rows: fc_svm, fc_partial"):
        complete("row", "fc_", ["fc", "fc_svm", "fc_partial"])
