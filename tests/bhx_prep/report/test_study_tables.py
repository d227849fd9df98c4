"""Tables 1 and 2 of the paper and the ablations: paper, others, this run and the difference, and what is not shown."""

from __future__ import annotations

import csv
import io
import json

import pytest
from fake_results import CONFIG, score

from bhx_prep.config.paper_tables import PAPER_TABLES
from bhx_prep.report.tables import ablations, of_study
from bhx_prep.report.tables.build import build
from bhx_prep.report.tables.endpoint_sheet import endpoint_sheet
from bhx_prep.report.tables.markdown import to_markdown
from bhx_prep.report.tables.study_sheet import study_sheet
from bhx_prep.report.tables.study_table import MODELS, study_lines, to_csv
from bhx_prep.report.tables.write import write

DIAGNOSIS = CONFIG.endpoints["diagnosis"]
METHODS = ("fc", "probe", "finetune", "function_regions", "function_regions_untrained", "permuted")


def table(synthetic=False, shown=False, experiments=("demo",), **more):
    scores = [
        score(method, seed, accuracy=0.7, synthetic=synthetic, experiment=experiment, **more)
        for seed in range(2)
        for experiment in experiments
        for method in METHODS
        if experiment == experiments[0] or method not in ("fc", "permuted")
    ]
    return build("diagnosis", DIAGNOSIS.model_copy(update={"paper_beside_synthetic": shown}), scores)


def lines_of(*tables):
    return {(line.row, line.metric): line for line in study_lines(PAPER_TABLES["table1"], tables)}


def test_paper_others_this_run_and_difference_stand_side_by_side():
    lines = lines_of(table())
    fusion, function = lines["demo/fusion", "accuracy"], lines["demo/function", "accuracy"]
    assert (fusion.method, fusion.published, fusion.published_source) == (
        "demo/finetune", "63.13", "note-A; accuracy also note-D",
    )  # fmt: skip
    assert fusion.this_run == pytest.approx(70)
    assert fusion.difference == pytest.approx(70 - 63.13)
    assert fusion.difference_low == pytest.approx(fusion.ci_low - 63.13)
    assert (function.method, function.independent, function.independent_source) == (
        "demo/function_regions", "54.1 (2.4)", "brainmarks",
    )  # fmt: skip
    assert (lines["fc", "accuracy"].independent, lines["fc", "accuracy"].published) == ("60.3 (2.9)", "")
    assert lines["brainlm", "accuracy"].published_note == "not testable: needs one fixed TR"
    assert lines["structure", "f1"].published_note == "not recovered"
    assert ("brainlm", "macro_f1") not in lines  # nothing to show
    text = to_markdown(study_sheet("table1", list(lines.values())))
    assert "| BrainHarmonix-S |  | Accuracy (%) | not recovered | - | - | - |  |" in text
    assert lines["permuted", "accuracy"].this_run == pytest.approx(70)


def test_what_follows_of_the_positive_class_stands_beside_the_papers_cells():
    line = lines_of(table())["demo/function", "f1"]
    assert line.true_positives == pytest.approx(52.8, abs=0.05)
    assert line.reading == "control (45.7 %): too few; autism (54.3 %): possible"
    text = to_markdown(study_sheet("table1", study_lines(PAPER_TABLES["table1"], [table()])))
    assert "52.8 %; 52.8 to 95.4 %; control (45.7 %): too few; autism (54.3 %): possible" in text
    assert "counts of [note-E] are swapped" in text


def test_nothing_published_stands_beside_synthetic_subjects_unless_asked_for():
    hidden, shown = (list(lines_of(table(synthetic=True, shown=s)).values()) for s in (False, True))
    assert not any(line.published or line.independent or line.true_positives for line in hidden)
    assert all(line.difference is None for line in hidden)
    assert any(line.published for line in shown)
    text = to_markdown(study_sheet("table1", hidden))
    assert "**SYNTHETIC DATA: the subjects of diagnosis are simulated" in text
    assert "no published value stands beside synthetic subjects" in text
    assert "63.13" not in text


def test_rows_of_weights_that_know_test_subjects_are_marked():
    overlap = {"known": True, "n_tested": 10, "n_overlap": 3, "shared": {}}
    marked = table(pretraining_overlap=overlap, experiments=("demo", "later"))
    text = to_markdown(study_sheet("table1", study_lines(PAPER_TABLES["table1"], [marked])))
    assert "diagnosis:demo/fusion 3 of 10" in text
    assert "| demo/finetune \u2020 |" in text
    text = to_markdown(ablations.ablation_sheet("ablations", [marked], {}))
    assert "diagnosis:demo/finetune 3 of 10" in text
    assert "| later | - | 70.0 \u2020 (" in text


def test_every_experiment_has_its_row_and_the_first_method_stands_for_it():
    lines = lines_of(table(experiments=("demo", "later")))
    assert {row for row, _ in lines if row.endswith("fusion")} == {"demo/fusion", "later/fusion"}
    fusion = next(model for model in MODELS if model.key == "fusion")
    assert fusion.candidates()[0] == "finetune"
    assert not any(name.endswith("_untrained") for model in MODELS for name in model.candidates())


def test_csv_has_a_line_per_row_endpoint_and_metric():
    lines = study_lines(PAPER_TABLES["table1"], [table()])
    rows = list(csv.DictReader(io.StringIO(to_csv(lines))))
    assert len({(row["endpoint"], row["row"], row["metric"]) for row in rows}) == len(rows) == len(lines)


def test_ablations_put_experiments_side_by_side_and_say_what_differs():
    sections = {
        "demo": {"preset": "tiny", "overrides": {}, "cohorts": ["a"]},
        "later": {"preset": "tiny", "overrides": {"fusion": {"model.hub": 64}}, "cohorts": ["a"]},
    }
    assert ablations.what_differs(sections) == {"demo": "-", "later": "overrides.fusion.model.hub 64"}
    of = table(experiments=("demo", "later"))
    sheet = ablations.ablation_sheet("ablations", [of], sections)
    assert [group.heading for group in sheet.groups] == [
        "Function tokens, regions", "Function tokens, regions, untrained weights", "Hub tokens, linear probe",
        "Hub tokens, fine-tuned",
    ]  # fmt: skip
    assert [row[0] for row in sheet.groups[-1].rows] == ["demo", "later"]
    assert sheet.groups[-1].rows[0][2].startswith("70.0 (")
    assert sheet.groups[-1].rows[0][3] == "-"
    assert sheet.groups[-1].rows[1][3].startswith("+0.0 (")
    rows = list(csv.DictReader(io.StringIO(ablations.to_csv([of], sections))))
    assert {row["experiment"] for row in rows} == {"demo", "later"}
    assert not ablations.ablation_sheet("ablations", [table()], sections).groups


def test_ablations_are_compared_with_the_first_experiment_split_by_split():
    """In the order of the configuration, which is that of the scores, whatever the names; and on shared splits alone."""

    def scores(experiment: str, accuracy: float, seeds: int) -> list:
        return [score("probe", s, accuracy=accuracy, experiment=experiment) for s in range(seeds)]

    of = build(
        "diagnosis", DIAGNOSIS, [*scores("whole", 0.6, 3), *scores("half", 0.8, 2), *scores("all", 0.6, 3)]
    )
    found = {e.experiment: e for e in of.entries if e.origin == "ablation" and e.metric == "accuracy"}
    assert found.keys() == {"half", "all"}
    assert {e.source for e in found.values()} == {"whole"}
    assert (found["half"].n_seeds, found["half"].mean) == (2, pytest.approx(20))
    assert found["half"].ci_low < 20 < found["half"].ci_high
    assert found["half"].p < found["all"].p == 1
    sheet = ablations.ablation_sheet("ablations", [of], {})
    assert [row[0] for row in sheet.groups[0].rows] == ["whole", "all", "half"]
    assert ", p " in sheet.groups[0].rows[2][3]
    rows = {
        r["experiment"]: r
        for r in csv.DictReader(io.StringIO(ablations.to_csv([of], {})))
        if r["metric"] == "accuracy"
    }
    assert (rows["whole"]["base"], rows["half"]["base"], float(rows["half"]["difference"])) == (
        "",
        "whole",
        20,
    )
    assert "ablation" not in to_markdown(endpoint_sheet(of))


def test_command_writes_tables_of_the_study(tmp_path, capsys):
    write(table(experiments=("demo", "later")), tmp_path / "diagnosis")
    write(table(choose_on="test", experiments=("demo",)), tmp_path / "diagnosis_reference")
    sections = tmp_path / "experiments.json"
    sections.write_text(json.dumps({"demo": {"seed": 0}, "later": {"seed": 1}}))
    for name, source in (
        ("table1", "diagnosis"), ("ablations", "diagnosis"), ("table1_reference", "diagnosis_reference"),
    ):  # fmt: skip
        words = ["--tables", str(tmp_path / f"{source}.csv"), "--experiments", str(sections)]
        assert of_study.main([*words, "--out-stem", str(tmp_path / name)]) == 0
        assert {tmp_path / f"{name}.{x}" for x in ("md", "csv", "tex")} <= set(tmp_path.iterdir())
    assert "CHOSEN ON TEST SUBJECTS" in (tmp_path / "table1_reference.tex").read_text()
    with pytest.raises(SystemExit):
        of_study.main(["--tables", "a.csv", "--out-stem", "table3"])
    assert "there are table1, table2, ablations" in capsys.readouterr().err
