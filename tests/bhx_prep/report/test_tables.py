"""The table of an endpoint: published values are the paper's, ours are computed correctly, rows that differ are refused."""

from __future__ import annotations

import csv
import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
from fake_results import CONFIG, score, write_score
from settings_files import settings_file

from bhx_model.errors import DataError
from bhx_model.evaluation import intervals
from bhx_model.evaluation.methods import BASELINES
from bhx_model.evaluation.metrics import METRICS
from bhx_prep.config.splits import SplitsSection
from bhx_prep.report.tables import __main__ as command
from bhx_prep.report.tables import build as table_building
from bhx_prep.report.tables import markdown as markdown_text
from bhx_prep.report.tables import people
from bhx_prep.report.tables import scores as table_scores
from bhx_prep.report.tables.endpoint_sheet import endpoint_sheet
from bhx_prep.report.tables.latex import to_latex
from bhx_prep.report.tables.markdown import to_markdown
from bhx_prep.report.tables.sheet import Group, Sheet
from bhx_prep.report.tables.table import RowKey, number
from bhx_prep.report.tables.tidy_csv import from_csv, to_csv

DIAGNOSIS = CONFIG.endpoints["diagnosis"]


def build(scores, name="diagnosis", endpoint=None):
    return table_building.build(name, endpoint or CONFIG.endpoints[name], scores)


def markdown(table):
    return to_markdown(endpoint_sheet(table))


def latex(table):
    return to_latex(endpoint_sheet(table))


def entry(table, method, metric, experiment="demo", origin="this run"):
    """An entry of this run; baselines need no experiment."""
    alone = method in (*BASELINES, "constant", "all_positive")
    return table.entry(RowKey(origin, "" if alone else experiment, method), metric)


def accuracies(*values, method="probe", **more):
    return [score(method, seed, accuracy=value, **more) for seed, value in enumerate(values)]


def rows_of(text):
    """First cells of a Markdown table's rows."""
    return [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]


def test_this_run_is_given_in_percent_with_spread_and_counts():
    table = build([*accuracies(0.5, 0.6, 0.7), *(score("fc", s) for s in range(3))])
    found = entry(table, "probe", "accuracy")
    assert (found.mean, found.n_seeds, found.n_test, found.unit) == (pytest.approx(60), 3, "10", "percent")
    assert found.sd == pytest.approx(10)
    assert f"60.0 \u00b1 10.0 ({found.ci_low:.1f} to {found.ci_high:.1f})" in markdown(table)


def test_intervals_are_those_of_people_and_splits():
    scores = accuracies(0.5, 0.6, 0.7)
    found = entry(build(scores), "probe", "accuracy")
    expected = intervals.interval([intervals.run_of(s.predictions) for s in scores], "accuracy")
    assert (found.ci_low, found.ci_high) == (
        pytest.approx(100 * expected.low),
        pytest.approx(100 * expected.high),
    )
    assert found.ci_low < 60 < found.ci_high


def test_differences_to_connectivity_are_paired_and_corrected():
    ours, fc = accuracies(0.9, 0.8, 0.9), [score("fc", s, accuracy=0.5) for s in range(3)]
    table = build([*ours, *fc, *(score("function_mean", s, accuracy=0.5) for s in range(3))])
    found = entry(table, "probe", "accuracy", origin="difference")
    assert found.mean == pytest.approx(100 * (2.6 / 3 - 0.5))
    pairs = [[intervals.run_of(s.predictions) for s in of] for of in (ours, fc)]
    raw = intervals.difference(*pairs, "accuracy")
    assert raw.p < found.p <= 1
    assert [row.method for row in table.rows("difference")] == [
        "function_mean",
        "probe",
    ]  # neither fc nor constants
    assert f"{found.mean:+.1f} (" in markdown(table)
    assert "Differences are to functional connectivity" in markdown(table)
    assert not build(accuracies(0.5)).rows("difference")


def test_differences_are_no_larger_than_the_range_of_a_metric():
    table = build([score("fc", 0, accuracy=0.0), score("probe", 0, accuracy=1.0)])
    found = entry(table, "probe", "accuracy", origin="difference")
    assert -100 <= found.ci_low <= found.mean == 100 == found.ci_high


def test_a_row_with_fewer_splits_is_compared_on_those():
    fc = [score("fc", s, accuracy=0.5 if s < 2 else 0.9) for s in range(4)]
    table = build([*fc, *accuracies(0.6, 0.6)])
    assert entry(table, "probe", "accuracy", origin="difference").mean == pytest.approx(10)
    assert entry(table, "fc", "accuracy").n_seeds == 4


def test_averages_of_batches_stand_as_they_were_scored():
    changed = {"accuracy": 0.25, "balanced_accuracy": 0.2, "f1": 0.2, "auroc": 0.2}
    scores = [score("probe", s, metrics=changed, scores_over="batches", choose_on="test") for s in range(3)]
    assert entry(build(scores), "probe", "accuracy").mean == pytest.approx(25)


def test_every_metric_of_a_regression_has_its_column():
    table = build([score("fc", s, "cognition") for s in range(2)], "cognition")
    text = markdown(table)
    assert " | ".join(METRICS[m].heading for m in table.metrics) in text
    assert "Lower is better for MAE, higher for all else." in text
    constant = entry(table, "constant", "pearson_r")
    assert (constant.mean, constant.note) == (None, "undefined")
    assert entry(table, "constant", "mae").mean > 0
    assert "This endpoint is not in the paper." in text


def test_constant_comes_once_per_seed_and_from_the_training_subjects():
    scores = [*accuracies(0.5, 0.6), *(score("fc", s) for s in range(3))]
    found = entry(build(scores), "constant", "accuracy")
    assert found.n_seeds == 3
    assert found.mean == pytest.approx(100 * np.mean([s["constant"]["accuracy"] for s in scores[2:]]))


def test_everybody_positive_is_the_f1_that_needs_no_data():
    scores = accuracies(0.5, 0.6)
    shares = [np.mean(s.predictions.truth[s.predictions.of("test")]) for s in scores]
    found = entry(build(scores), "all_positive", "f1")
    assert found.mean == pytest.approx(100 * np.mean([2 * p / (1 + p) for p in shares]))
    assert entry(build([score("fc", 0, "cognition")], "cognition"), "all_positive", "f1") is None


def test_numbers_of_any_size_can_be_read():
    assert [number(value, 2) for value in (-0.0, 12.345, 9_999_999, 1.5e7)] == [
        "-0.00",
        "12.35",
        "9999999.00",
        "1.5e+07",
    ]
    assert [number(value, 6) for value in (0.0, 1e-4, 3.21e-20)] == ["0.000000", "0.000100", "3.21e-20"]
    assert (number(2e9, 1, "+"), number(-4.0, 1, "+")) == ("+2e+09", "-4.0")


def test_one_seed_has_no_spread_but_an_interval():
    found = entry(build(accuracies(0.5)), "probe", "accuracy")
    assert found.sd is None
    assert found.ci_low < 50 < found.ci_high
    assert "50.0 \u00b1 n/a (" in markdown(build(accuracies(0.5)))


def test_undefined_metrics_are_marked_not_dropped():
    scores = [score("fc", s, "cognition") for s in range(3)]
    flat = dataclasses.replace(
        scores[0].predictions, prediction=np.full(50, 2.0), scores=np.full((50, 1), 2.0)
    )
    scores[0] = dataclasses.replace(
        scores[0], predictions=flat, values={**scores[0].values, "metrics": {"mae": 1, "pearson_r": None}}
    )
    table = build(scores, "cognition")
    assert entry(table, "fc", "pearson_r").note == "undefined in 1 of 3 seeds"


def test_published_rows_carry_value_source_and_trust():
    text = markdown(build(accuracies(0.5, 0.6)))
    paper = next(line for line in text.splitlines() if line.startswith("| BrainHarmonix |"))
    cells = [c.strip() for c in paper.strip("|").split("|")]
    assert cells[:4] == ["BrainHarmonix", "[note-A; accuracy also note-D]", "63.13", "72.63"]
    assert "| BrainNetCNN | [note-D] | 60.5 | not recovered |" in text
    assert text.index("| BrainHarmonix |") < text.index("| Hub tokens, linear probe |")
    assert "Trust: good" in text


def test_what_others_measured_is_a_kind_of_rows_of_its_own():
    table = build(accuracies(0.5, 0.6))
    found = table.entry(RowKey("independent", "", "BrainHarmonix-F"), "accuracy")
    assert (found.mean, found.sd, found.printed, found.n_seeds) == (54.1, 2.4, "54.1 (2.4)", 100)
    assert found.trust.startswith("high as a run of January 2026")
    text = markdown(table)
    assert "| BrainHarmonix-F | [brainmarks] | 54.1 (2.4) |" in text
    assert (
        text.index("| BrainHarmonix | [note-A")
        < text.index("[brainmarks] | 54.1")
        < text.index("| Hub tokens,")
    )


@pytest.mark.parametrize("shown", [True, False])
def test_no_published_value_stands_beside_synthetic_subjects_unless_asked_for(shown):
    endpoint = DIAGNOSIS.model_copy(update={"paper_beside_synthetic": shown})
    text = markdown(build(accuracies(0.5, 0.6), endpoint=endpoint))
    assert ("63.13" in text) == shown
    assert ("54.1" in text) == shown
    measured = markdown(build(accuracies(0.5, 0.6, synthetic=False), endpoint=endpoint))
    assert "63.13" in measured


def test_the_table_says_who_its_subjects_are_and_how_they_are_split():
    table = build(accuracies(0.5, 0.6))
    for text in (markdown(table), latex(table)):
        assert (
            "50 subjects (25 control, 25 patient), 10 of them tested on in each split; 2 splits at random"
            in text
        )
    assert f"Hash of the subjects: {score()['people_sha256'][:12]}" in markdown(table)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "at random, by subject, 60:20:20 for training, validation and test, balanced over label"),
        ({"splits": {"protocol": "brainmarks"}}, "70:15:15 for training, validation and test"),
        (
            {"test_on": ["abide2"]},
            "75:25 for training and validation, balanced over label; all subjects of abide2 are tested",
        ),
    ],
)
def test_the_table_says_which_shares_were_drawn(changes, said):
    endpoint = type(DIAGNOSIS).model_validate({**DIAGNOSIS.model_dump(), **changes})
    assert said in people.splits(endpoint, [score("fc")])


def test_untrained_weights_stand_beside_trained_ones_and_are_explained():
    methods = ("probe", "function_regions_untrained", "function_regions", "fc", "permuted")
    text = markdown(build([s for m in methods for s in accuracies(0.5, 0.6, method=m)]))
    rows = rows_of(text)
    first = rows.index("Functional connectivity + linear model")
    assert rows[first : first + 8] == [
        "Functional connectivity + linear model", "Function tokens, regions",
        "Function tokens, regions, untrained weights", "Hub tokens, linear probe",
        "**Floors: what needs no brain, or no labels**", "Functional connectivity, labels permuted",
        "Everybody of the positive class", "Majority-class baseline",
    ]  # fmt: skip
    assert "The difference from them is what training adds" in text
    assert "what training adds" not in markdown(build(accuracies(0.5, 0.6)))


def test_every_experiment_has_rows_in_the_one_table():
    later = accuracies(0.7, 0.9, experiment="later")
    table = build([*accuracies(0.5, 0.6), *later, score("fc", 0), score("fc", 1)])
    assert [(r.experiment, r.method) for r in table.rows("this run")] == [
        ("", "fc"), ("demo", "probe"), ("later", "probe"), ("", "all_positive"), ("", "constant"),
    ]  # fmt: skip
    assert entry(table, "probe", "accuracy", "later").mean == pytest.approx(80)
    assert "| Hub tokens, linear probe | this run (later) | 80.0" in markdown(table)
    assert table.short(RowKey("this run", "later", "probe")) == "hub, linear probe (later)"


def test_rows_chosen_on_test_have_a_table_and_a_caption_of_their_own():
    table = build(accuracies(0.5, 0.6, choose_on="test"))
    assert table.name == "diagnosis_reference"
    for text in (markdown(table), latex(table)):
        assert "CHOSEN ON TEST SUBJECTS" in text
        assert "chosen on test and scored on validation" in text
    assert "CHOSEN ON TEST" not in markdown(build(accuracies(0.5, 0.6)))


def test_rows_of_weights_whose_pretraining_knows_test_subjects_are_marked():
    marks = [{"known": True, "n_tested": 10, "n_overlap": n, "shared": {}} for n in (0, 2)]
    seen = [score("probe", s, pretraining_overlap=mark) for s, mark in enumerate(marks)]
    unknown = {"known": False, "n_tested": 10, "n_overlap": 0, "shared": {}}
    none = [score("finetune", s, pretraining_overlap=marks[0]) for s in range(2)]
    table = build([*seen, *none, *(score("function_mean", s, pretraining_overlap=unknown) for s in range(2))])
    for text in (markdown(table), markdown(from_csv(to_csv(table)))):
        assert (
            "**\u2020 TEST SUBJECTS IN THE PRETRAINING of the scored weights: demo/function_mean unknown, "
            "demo/probe 2 of 10.**"
        ) in text
        assert "| Hub tokens, linear probe \u2020 |" in text
        assert "| Hub tokens, fine-tuned |" in text
    assert r"$\dagger$ TEST SUBJECTS" in latex(table)
    assert "IN THE PRETRAINING" not in markdown(build(none))


def test_synthetic_data_are_labelled():
    synthetic, real = build(accuracies(0.5, 0.6)), build([score("probe", 0, synthetic=False)])
    for render in (markdown, latex):
        assert "SYNTHETIC DATA" in render(synthetic)
        assert "SYNTHETIC" not in render(real)
    assert ",true," in to_csv(synthetic)
    assert ",true," not in to_csv(real)


def test_what_is_planted_stands_over_the_table():
    table = table_building.build("diagnosis", DIAGNOSIS, accuracies(0.5), "structure of 3 parcels")
    for text in (markdown(table), latex(table)):
        assert "Planted in them, so that the right answer is known: structure of 3 parcels." in text
    assert "Planted" not in markdown(build(accuracies(0.5)))
    assert from_csv(to_csv(table)) == dataclasses.replace(table, entries=from_csv(to_csv(table)).entries)


def test_csv_is_tidy_and_comes_back():
    table = build([*accuracies(0.5, 0.6, 0.7), *(score("fc", s) for s in range(3))])
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len({(r["origin"], r["method"], r["metric"]) for r in rows}) == len(rows)
    again = from_csv(to_csv(table))
    assert markdown(again) == markdown(table)
    assert again.synthetic is True
    with pytest.raises(DataError, match="snakemake tables"):
        from_csv("a,b\n1,2\n")


def test_latex_has_booktabs_and_escapes():
    text = latex(build(accuracies(0.5, 0.6)))
    for word in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\shortstack[r]{Accuracy\\(\%)}",
        r"\shortstack[r]{55.0 $\pm$ 7.1\\(",
        r"\shortstack[r]{not testable:\\needs one fixed TR}",
        r"\label{tab:diagnosis}",
        r"\multicolumn{",
    ):
        assert word in text
    body = [line for line in text.splitlines() if line.endswith(r"\\[3pt]") and "multicolumn" not in line]
    assert len({line.count(" & ") for line in body}) == 1


def named(first, second="b_%"):
    """The table of an endpoint whose classes have these names."""
    classes = [{"name": first, "values": ["1"]}, {"name": second, "values": ["2"]}]
    endpoint = type(DIAGNOSIS).model_validate({**DIAGNOSIS.model_dump(), "classes": classes})
    return build(accuracies(0.5, classes=[first, second]), endpoint=endpoint)


def test_text_of_the_configuration_cannot_break_out_of_a_table():
    table = named("a|<script>")
    assert "<script" not in markdown(table)
    assert r"b\_\%" in latex(table)
    assert (
        markdown_text.escape("a\\|$b$") == r"a\\\|\$b\$"
    )  # a backslash would take the escape of the pipe away
    cells = ("x: [1cm]", "Zürich, 東京 \\ $")
    text = to_latex(Sheet("t", "t", (), ("a", "b"), 1, (Group("g", (cells,)),), ()))
    assert r"\shortstack[l]{x:\\{}[1cm]}" in text  # no distance
    assert r"Zürich, 東京 \textbackslash{} \$" in text


@pytest.mark.parametrize("name", ['=HYPERLINK("http://a.b";"c")', "+1 group", "-x", "@SUM(A1)", "'=quoted"])
def test_a_spreadsheet_computes_nothing_of_a_csv(name):
    table = named(name)
    text = to_csv(table)
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "@", "-"))] == []
    assert from_csv(text).task == table.task


def permuted(shift, seed):
    """The score of permuted labels, whose predictions go so far with the truth."""
    of = score("permuted", seed)
    table = of.predictions
    moved = table.scores + shift * np.stack([-(table.truth - 0.5), table.truth - 0.5], axis=1)
    return dataclasses.replace(of, predictions=dataclasses.replace(table, scores=moved))


def test_permuted_labels_above_chance_are_a_warning_of_the_table():
    fc = [score("fc", seed) for seed in range(3)]
    leaking = markdown(build([*fc, *(permuted(9.0, seed) for seed in range(3))]))
    assert "**PERMUTED LABELS ARE ABOVE CHANCE: AUROC 100.0 (" in leaking
    assert "PERMUTED LABELS" not in markdown(build([*fc, *(permuted(-9.0, seed) for seed in range(3))]))
    assert "PERMUTED LABELS" not in markdown(build(fc))


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        ([], "no metrics"),
        ([score("fc", 0, "cognition")], "cognition"),
        ([score("fc"), score("fc")], "twice"),
        ([score("fc"), score("probe", split_sha256="b")], "fc, seed 0 and probe .* differ in their splits"),
        ([score("fc"), score("probe", people_sha256="b")], "differ in their people"),
        ([score("fc"), score("probe", n_test=9)], "differ in their test subjects"),
        (
            [score("fc", classes=["patient", "control"])],
            "coded as patient, control, the endpoint's as control, patient",
        ),
        (
            [score("fc"), score("probe", choose_on="test")],
            "chosen on test subjects and cannot stand beside fc",
        ),
        ([score("forest")], "no method"),
    ],
)
def test_scores_that_do_not_belong_together_are_refused(scores, word):
    with pytest.raises(DataError, match=word) as raised:
        build(scores)
    assert len(str(raised.value)) <= 200


def test_rows_with_other_labels_of_the_same_subjects_are_refused():
    other = score("probe")
    other = dataclasses.replace(
        other, predictions=dataclasses.replace(other.predictions, truth=1 - other.predictions.truth)
    )
    with pytest.raises(DataError, match=r"fc, seed 0 and probe .* differ in their subjects' labels or parts"):
        build([score("fc"), other])


@pytest.mark.parametrize(
    ("changes", "predicted", "word"),
    [
        ({}, {}, ""),
        ({"seed": "0"}, {}, "seed is '0', no whole number"),
        ({"metrics": [1]}, {}, "its metrics are no names and numbers"),
        ({"metrics": {"accuracy": "0.5"}}, {}, "its metrics are no names and numbers"),
        ({"metrics": {"accuracy": 0.97}}, {}, "its accuracy is 0.97, that of its predictions 0."),
        ({"metrics": {"accuracy": 0.97}, "scores_over": "batches"}, {}, ""),
        ({"metrics": {}}, {}, "its accuracy is None"),
        ({"n_test": 9}, {}, "of 9 test subjects, its predictions of 10"),
        ({"people_sha256": "b" * 64}, {}, "are of different people"),
        ({}, {"prediction": np.full(50, np.nan)}, "some of its predictions are not finite"),
        ({}, {"prediction": np.full(50, 7.0)}, "some of its predictions are of no class"),
        ({}, {"truth": (np.arange(50.0) + 1) % 2}, "its accuracy is"),
        ({}, {"split": np.array(["train"] * 50)}, "of 30 train subjects, its predictions of 50"),
    ],
)
def test_metrics_and_predictions_that_do_not_belong_together_are_refused(tmp_path, changes, predicted, word):
    of = score("fc", accuracy=0.7)
    of = dataclasses.replace(
        of, values=of.values | changes, predictions=dataclasses.replace(of.predictions, **predicted)
    )
    path = write_score(tmp_path, of)
    if not word:
        assert table_scores.read(path).values == of.values
        return
    with pytest.raises(DataError, match=word):
        table_scores.read(path)


def test_order_of_the_files_does_not_matter():
    scores = [*accuracies(0.1, 0.2, 0.4), *(score("fc", s) for s in range(3))]
    assert to_csv(build(scores)) == to_csv(build(scores[::-1]))


def test_command_writes_the_files(tmp_path, capsys):
    files = [write_score(tmp_path, s) for s in accuracies(0.5, 0.6)]
    section = settings_file(DIAGNOSIS.model_dump(mode="json"))
    arguments = ["--endpoint-name", "diagnosis", "--endpoint", section]
    stem = tmp_path / "out" / "diagnosis"
    assert command.main([*arguments, "--metrics", *map(str, files), "--out-stem", str(stem)]) == 0
    assert {f"diagnosis.{x}" for x in ("csv", "md", "tex")} <= {p.name for p in stem.parent.iterdir()}
    assert command.main([*arguments, "--metrics", str(tmp_path / "none.json"), "--out-stem", str(stem)]) == 1
    assert "none.json" in capsys.readouterr().err


def test_help_has_an_example():
    text = subprocess.run(
        [sys.executable, "-m", "bhx_prep.report.tables", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "example:" in text


def test_a_protocol_has_its_metrics_first():
    endpoint = DIAGNOSIS.model_copy(update={"splits": SplitsSection(protocol="brainmarks")})
    table = build([score("fc", seed) for seed in range(3)], endpoint=endpoint)
    assert table.metrics[:2] == ("balanced_accuracy", "macro_f1")
    assert from_csv(to_csv(table)).metrics == table.metrics
    assert build([score("fc", seed) for seed in range(3)]).metrics[0] == "accuracy"
