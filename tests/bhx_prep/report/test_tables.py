"""Tables: published values are the paper's, ours are computed correctly, nothing is invented."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys

import pytest
from fake_results import CONFIG, score
from settings_files import settings_file

from bhx_model.errors import DataError
from bhx_model.evaluation.metrics import METRICS
from bhx_prep.report import published
from bhx_prep.report.tables import __main__ as command
from bhx_prep.report.tables.build import build as build_table
from bhx_prep.report.tables.interval import interval
from bhx_prep.report.tables.latex import to_latex
from bhx_prep.report.tables.markdown import to_markdown
from bhx_prep.report.tables.table import RowKey
from bhx_prep.report.tables.tidy_csv import from_csv, to_csv

DIAGNOSIS = CONFIG.endpoints["diagnosis"]
COGNITION = CONFIG.endpoints["cognition"]


def build(scores, name="diagnosis"):
    return build_table(name, CONFIG.endpoints[name], scores)


def entry(table, method, metric, experiment="demo"):
    """An entry of this run; baselines need no experiment."""
    return table.entry(RowKey("this run", "" if method in ("fc", "constant") else experiment, method), metric)


def accuracies(*values, method="probe"):
    return [score(method, seed, accuracy=value) for seed, value in enumerate(values)]


def test_interval_allows_for_splits_that_share_subjects():
    mean, sd, low, high = interval([1.0, 2.0, 3.0], test_share=0.25)
    half = 4.302652729911275 * math.sqrt(1 / 3 + 0.25)
    assert (mean, sd) == (2.0, 1.0)
    assert (low, high) == pytest.approx((2 - half, 2 + half))
    assert interval([0.7], test_share=0.25) == (0.7, None, None, None)


def test_this_run_is_given_in_percent_with_spread_and_counts():
    table = build(accuracies(0.5, 0.6, 0.7) + [score("fc", s) for s in range(3)])
    found = entry(table, "probe", "accuracy")
    assert (found.mean, found.n_seeds, found.n_test, found.unit) == (pytest.approx(60), 3, "8", "percent")
    assert found.sd == pytest.approx(10)
    assert "60.0 \u00b1 10.0 (27.1 to 92.9)" in to_markdown(table)


def test_an_interval_is_clipped_to_the_range_of_the_metric():
    table = build(accuracies(0.8, 1.0, 0.9))
    found = entry(table, "probe", "accuracy")
    assert (found.ci_low, found.ci_high) == (pytest.approx(57.14, abs=0.01), 100)
    assert "clipped to the range of the metric" in to_markdown(table)
    scores = [score("fc", s, "cognition", mae=v, pearson_r=r) for s, v, r in [(0, 0.1, -0.9), (1, 9, 0.9)]]
    table = build(scores, "cognition")
    assert [entry(table, "fc", m).ci_low for m in ("mae", "pearson_r")] == [0, -1]
    assert entry(table, "fc", "pearson_r").ci_high == 1


def test_every_metric_of_a_regression_has_its_column():
    table = build([score("fc", s, "cognition", r2=v) for s, v in enumerate((0.25, -0.05))], "cognition")
    text = to_markdown(table)
    assert "| MAE | Pearson r | R2 |" in text
    assert "0.10 \u00b1 0.21" in text
    assert "Lower is better for MAE, higher for all else." in text
    found = entry(table, "constant", "r2")
    assert (found.mean, found.unit) == (0.5, "1")


def test_constant_comes_once_per_seed_and_from_the_files():
    table = build([*accuracies(0.5, 0.6), *(score("fc", s) for s in range(3))])
    found = entry(table, "constant", "f1")
    assert (found.mean, found.n_seeds) == (0.0, 3)


def test_one_seed_has_no_spread():
    text = to_markdown(build(accuracies(0.5)))
    assert "50.0 \u00b1 n/a (n/a)" in text


def test_undefined_metrics_are_marked_not_dropped():
    scores = [score("fc", s, "cognition", pearson_r=None if s else 0.3) for s in range(3)]
    table = build(scores, "cognition")
    assert entry(table, "fc", "pearson_r").note == "undefined in 2 of 3 seeds"
    constant = entry(table, "constant", "pearson_r")
    assert (constant.mean, constant.note) == (None, "undefined")
    assert "This endpoint is not in the paper." in to_markdown(table)
    assert not table.rows("published")


def test_published_rows_carry_value_source_and_no_spread():
    text = to_markdown(build(accuracies(0.5, 0.6)))
    ours = next(line for line in text.splitlines() if line.startswith("| BrainHarmonix |"))
    cells = [c.strip() for c in ours.strip("|").split("|")]
    assert cells[:4] == ["BrainHarmonix", "[note-A; accuracy also note-D]", "63.13", "72.63"]
    assert cells[6] == "SD not recovered"
    assert "| BrainNetCNN | [note-D] | 60.5 | not recovered |" in text
    assert text.index("| BrainHarmonix |") < text.index("| Hub tokens, linear probe |")


def test_every_experiment_has_rows_in_the_one_table():
    scores = [*accuracies(0.5, 0.6), *(s | {"experiment": "later"} for s in accuracies(0.7, 0.9))]
    table = build([*scores, score("fc", 0), score("fc", 1)])
    assert [(r.experiment, r.method) for r in table.rows("this run")] == [
        ("", "fc"), ("demo", "probe"), ("later", "probe"), ("", "constant"),
    ]  # fmt: skip
    assert entry(table, "probe", "accuracy", "later").mean == pytest.approx(80)
    assert "| Hub tokens, linear probe | this run (later) | 80.0" in to_markdown(table)
    assert table.short(RowKey("this run", "later", "probe")) == "hub, linear probe (later)"


def test_rows_chosen_on_test_have_a_table_and_a_caption_of_their_own():
    table = build([s | {"choose_on": "test"} for s in accuracies(0.5, 0.6)])
    assert table.name == "diagnosis_reference"
    for text in (to_markdown(table), to_latex(table)):
        assert "CHOSEN ON TEST SUBJECTS" in text
        assert "selected on test, scored on validation" in text
    assert "CHOSEN ON TEST" not in to_markdown(build(accuracies(0.5, 0.6)))


def test_untrained_weights_stand_beside_trained_ones_and_are_explained():
    methods = ("probe", "function_regions_untrained", "function_regions", "fc")
    text = to_markdown(build([s for m in methods for s in accuracies(0.5, 0.6, method=m)]))
    rows = [line.split("|")[1].strip() for line in text.splitlines() if "| this run" in line]
    assert rows == [
        "Functional connectivity + linear model", "Function tokens, regions",
        "Function tokens, regions, untrained weights", "Hub tokens, linear probe", "Majority-class baseline",
    ]  # fmt: skip
    assert "The difference from them is what training adds" in text
    assert "what training adds" not in to_markdown(build(accuracies(0.5, 0.6)))


def test_what_is_planted_in_synthetic_subjects_stands_above_their_table():
    table = build_table("diagnosis", DIAGNOSIS, accuracies(0.5, 0.6), "patients: ventricles +1.2 mm")
    for render in (to_markdown, to_latex):
        assert "the right answer is known: patients: ventricles +1.2 mm." in render(table)
    assert from_csv(to_csv(table)).planted == "patients: ventricles +1.2 mm"
    assert "Planted" not in to_markdown(build(accuracies(0.5, 0.6)))


def test_synthetic_data_are_labelled():
    synthetic, real = build(accuracies(0.5, 0.6)), build([score("probe", 0, synthetic=False)])
    for render in (to_markdown, to_latex):
        assert "SYNTHETIC DATA" in render(synthetic)
        assert "SYNTHETIC" not in render(real)
    assert ",true," in to_csv(synthetic)
    assert ",true," not in to_csv(real)


def test_csv_is_tidy_and_comes_back():
    table = build(accuracies(0.5, 0.625, 0.75))
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len(rows) == 10 * 2 + 2 * 4
    assert len({(r["origin"], r["method"], r["metric"]) for r in rows}) == len(rows)
    again = from_csv(to_csv(table))
    assert to_markdown(again) == to_markdown(table)
    assert again.synthetic is True


def test_latex_has_booktabs_and_escapes():
    text = to_latex(build(accuracies(0.5, 0.6)))
    for word in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\shortstack[r]{Accuracy\\(\%)}",
        r"\shortstack[r]{55.0 $\pm$ 7.1\\(0.0 to 100.0)}",
        r"\shortstack[r]{not testable:\\needs one fixed TR}",
        r"\label{tab:diagnosis}",
    ):
        assert word in text
    body = [line for line in text.splitlines() if line.endswith(r"\\[3pt]")]
    assert len(body) == 1 + 10 + 2
    assert len({line.count(" & ") for line in body}) == 1


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        ([], "no metrics"),
        ([score("fc", 0, "cognition")], "cognition"),
        ([score("fc"), score("fc")], "twice"),
        (
            [score("fc"), score("probe") | {"split_sha256": "b"}],
            "fc, seed 0 and probe .* differ in their splits",
        ),
        ([score("fc"), score("probe") | {"people_sha256": "b"}], "differ in their people"),
        ([score("fc"), score("probe", n_test=9)], "differ in their test subjects"),
        (
            [score("fc") | {"classes": ["patient", "control"]}],
            "coded as patient, control, the endpoint's as control, patient",
        ),
        (
            [score("fc"), score("probe") | {"choose_on": "test"}],
            "chosen on test subjects and cannot stand beside fc",
        ),
        ([score("forest")], "no such method"),
    ],
)
def test_wrong_files_are_refused(scores, word):
    with pytest.raises(DataError, match=word):
        build(scores)


def test_order_of_the_files_does_not_matter():
    scores = accuracies(0.1, 0.2, 0.4) + [score("fc", s) for s in range(3)]
    assert to_csv(build(scores)) == to_csv(build(scores[::-1]))


def test_command_writes_three_files(tmp_path, capsys):
    files = []
    for s in accuracies(0.5, 0.6):
        files.append(tmp_path / f"{s['seed']}.json")
        files[-1].write_text(json.dumps(s))
    section = settings_file(DIAGNOSIS.model_dump(mode="json"))
    arguments = ["--endpoint-name", "diagnosis", "--endpoint", section]
    stem = tmp_path / "out" / "diagnosis"
    assert command.main([*arguments, "--metrics", *map(str, files), "--out-stem", str(stem)]) == 0
    assert sorted(p.name for p in stem.parent.iterdir()) == [f"diagnosis.{x}" for x in ("csv", "md", "tex")]
    assert command.main([*arguments, "--metrics", str(tmp_path / "none.json"), "--out-stem", str(stem)]) == 1
    assert "none.json" in capsys.readouterr().err


def test_every_published_number_has_a_source_and_fits_its_metric():
    tags = set(published.sources())
    for name in published.names():
        block = published.endpoint(name)
        assert any(row.method == "BrainHarmonix" for row in block.rows)
        for row in block.rows:
            assert bool(row.source) == bool(row.values) or row.note != published.NOT_RECOVERED
            assert not row.source or any(tag in row.source for tag in tags)
            for metric, printed in row.values.items():
                value = float(printed)
                assert 40 < value < 80 if METRICS[metric].unit == "percent" else 0 < value < 10


def test_config_names_the_papers_endpoints():
    annotation = str(type(DIAGNOSIS).model_fields["paper"].annotation)
    assert all(repr(name) in annotation for name in published.names())


def test_constant_of_abide_is_not_mistaken_for_a_result():
    """The paper's F-only row on ABIDE-I is near 54.3 / 70.4, what "all patients" scores; it must stand as published."""
    row = next(r for r in published.endpoint("ABIDE-I").rows if r.method == "BrainHarmonix-F")
    assert row.values == {"accuracy": "57.39", "f1": "71.24"}


def test_help_has_an_example():
    text = subprocess.run(
        [sys.executable, "-m", "bhx_prep.report.tables", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "example:" in text
