"""The page: self-contained, complete, anonymous, the same each time, and whole where results are missing."""

from __future__ import annotations

import html
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from fake_results import CONFIG, NAMES, score, write_score
from settings_files import settings_file

from bhx_model.evaluation import intervals
from bhx_prep.report import __main__ as command
from bhx_prep.report import collect, figures, inside_figures, made_with, page, scores
from bhx_prep.report.tables import latex, markdown
from bhx_prep.report.tables.sheet import Group, Sheet
from bhx_prep.report.tables.table import THIS_RUN, RowKey
from bhx_prep.report.tables.tidy_csv import from_csv

#: NiiVue, the data of the viewers, and what shows them.
OWN_SCRIPTS = 3
VOID = {"meta", "img", "br", "link", "input", "col", "path", "use", "stop"}


class Outline(HTMLParser):
    """Tags that are open, ids, links, headings and tables of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.links, self.images, self.drawings = [], [], [], [], []
        self.tables, self.text, self.attributes = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)
        if tag == "svg":
            self.drawings.append(attributes)
        if tag == "table":
            self.tables.append([])
        if tag == "th" and self.tables:
            self.tables[-1].append(attributes.get("scope"))

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def outline(text):
    return Outline(text)


def test_page_is_well_formed(outline):
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert {link[1:] for link in outline.links} <= set(outline.ids)


def test_landmarks_have_names_of_their_own(outline):
    named = [
        value
        for tag, name, value in outline.attributes
        if tag in ("nav", "section", "div") and name == "aria-label"
    ]
    headings = [value for tag, name, value in outline.attributes if name == "aria-labelledby"]
    assert len(named) == len(set(named))
    assert len(headings) == len(set(headings))


def test_connectivity_of_a_run_stands_beside_that_of_the_mean(text):
    """Of the stage that predicts it alone."""
    (row,) = re.findall(r"<tr><th scope=\"row\">function, connectivity of a run.*?</tr>", text)
    assert re.findall(r">([0-9.]+)</td>", row) == ["0.4321", "0.8765"]
    assert text.count("connectivity of a run from a part of it") == 1


def test_equal_drawings_have_ids_of_their_own():
    svg = '<path id="m1"/><use xlink:href="#m1"/><g clip-path="url(#p2)"/><clipPath id="p2"/>'
    one, two = page.with_own_ids(svg, 1), page.with_own_ids(svg, 2)
    assert (
        one
        == '<path id="f1-m1"/><use xlink:href="#f1-m1"/><g clip-path="url(#f1-p2)"/><clipPath id="f1-p2"/>'
    )
    assert Outline(one + two).ids == ["f1-m1", "f1-p2", "f2-m1", "f2-p2"]


def test_page_needs_nothing_from_outside(text, outline):
    for tag, name, value in outline.attributes:
        if name in ("src", "href", "xlink:href", "action", "poster", "data"):
            assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:60])
    assert text.count("<script") == text.count("</script") == OWN_SCRIPTS
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)


def test_page_can_be_read_without_seeing_it(outline):
    assert all(image["alt"] for image in outline.images)
    assert all(drawing["aria-label"] and drawing["role"] == "img" for drawing in outline.drawings)
    assert len(outline.drawings) >= 10
    assert all(scopes and all(scopes) for scopes in outline.tables)
    assert ("html", "lang", "en") in outline.attributes
    assert {tag for tag, *_ in outline.attributes} >= {"nav", "main", "section"}


def test_page_follows_light_and_dark(text):
    assert "prefers-color-scheme: dark" in text
    for stand_in in ("#010101", "#020202", "#030303", "#050501"):
        assert stand_in not in text
    defined = set(re.findall(r"(--[\w-]+):", text))
    assert set(re.findall(r"var\((--[\w-]+)\)", text)) <= defined


def test_page_identifies_no_subject(text):
    assert "secret" not in text
    assert "sub-0" not in text
    assert "sub-* has no confounds beside sub-*.nii.gz" in text


def test_page_counts_scans_and_gives_the_reasons_of_exclusions(text):
    words = re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", text)))
    assert "Found 5 subjects, 5 BOLD runs, 5 T1 images" in words
    assert "Included 5 subjects, 3 BOLD runs, 5 T1 images" in words
    assert "mean FD 0.71 mm is above 0.5 mm" in words
    assert "1 scan excluded: preprocessing 1 \u00d7 no brain was found in sub-*_T1w.nii.gz" in words
    assert "1 scan not processed yet" in words


def test_page_counts_notes_of_included_scans_by_kind_and_escapes_them(text):
    table = text[text.index("Notes: what was assumed") :].partition("</table>")[0]
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", table.partition("<tbody>")[2])
    detail = "2 s of the sidecar, the header of sub-* states 1 s &lt;b&gt;"
    assert cells[:6] == ["patients", "repetition time chosen", detail, "3", "3", "0"]


def test_page_has_the_notes_of_a_cohort_and_duplicates(text):
    table = text[text.index("Notes: what was assumed") :].partition("</table>")[0]
    assert 'such as patients_sub-*_task-rest</td><td colspan="3" class="keep">the cohort' in table
    table = text[text.index("Duplicates in the study") :].partition("</table>")[0]
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", table.partition("<tbody>")[2])
    assert cells == ["patients", "pairs of runs with the same series", "1", "r 1.0000 or more"]


def test_page_has_the_notes_of_labels_without_ids_and_without_values_of_one_subject(text):
    table = text[text.index("Notes: what was assumed of labels") :].partition("</table>")[0]
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", table.partition("<tbody>")[2])
    said = (
        "2 ids of p.tsv are spelt otherwise than the subjects&#39;; "
        "&lt;b&gt;: read as unknown are &#39;-9999&#39; (3 x), one value (1 x)"
    )
    assert cells == ["cognition", "table read with an assumption", "2", said]


def test_page_states_which_data_are_synthetic(text, results):
    assert "Synthetic data." in text
    assert "The data of raw, patients are simulated; those of anatomical were measured." in re.sub(
        r"\s+", " ", text
    )
    real = CONFIG.model_copy(
        update={"cohorts": {"anatomical": CONFIG.cohorts["anatomical"]}, "experiments": {}, "endpoints": {}}
    )
    assert "Synthetic data." not in page.render(real, results)


def test_page_shows_the_tables(text):
    for words in (
        "63.13",
        "not recovered",
        "Hub tokens, linear probe",
        "note-A",
        "not testable: needs one fixed TR",
        ">R2</th>",
    ):
        assert words in text


def test_page_shows_trained_function_tokens_beside_their_controls(text, results):
    plain = re.sub(r"\s+", " ", text)
    (table,) = re.findall(r"<caption>Function tokens of demo.*?</table>", plain)
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", table)
    assert [re.findall(r"^(\w+)</th><td>(.*?)</td><td>(.*?)</td>", row)[0] for row in rows] == [
        ("diagnosis", "Function tokens, regions", "AUROC (%)"),
        ("cognition", "Function tokens, regions", "Pearson r"),
    ]
    shown = from_csv((results / "tables/cognition.csv").read_text())
    means = [
        shown.entry(RowKey(THIS_RUN, experiment, method), "pearson_r").mean
        for experiment, method in (
            ("demo", "function_regions_untrained"),
            ("demo", "function_regions"),
            ("", "fc"),
        )
    ]
    assert re.findall(r"class=\"score\">([^<]+)<", rows[1]) == [f"{mean:.2f}" for mean in means]
    assert ">\u2013</td>" in rows[1]  # there are no scores of each split to take a difference of


def test_what_pretraining_adds_is_the_difference_on_the_same_splits(results, tmp_path):
    copied = shutil.copytree(results, tmp_path / "results")
    name = "function_regions"
    for method, n in ((name, 4), (f"{name}_untrained", 3)):
        of_method = [score(method, seed, "cognition") for seed in range(n)]
        for one in of_method:
            write_score(copied, one)
    diagnosis, cognition = scores.controls(CONFIG, copied, "demo")
    assert diagnosis["added"] == scores.Score(none="\u2013")
    pairs = [
        [intervals.run_of(score(method, seed, "cognition").predictions) for seed in range(3)]
        for method in (name, f"{name}_untrained")
    ]
    expected = intervals.difference(*pairs, "pearson_r")
    within = f"{expected.low:.2f} to {expected.high:.2f}"
    assert cognition["added"] == scores.Score(f"{expected.point:+.2f}", "", within)


def test_page_has_the_papers_table_and_kinds_of_rows(text):
    part = text[text.index('id="h-evaluation"') :]
    assert ">Table 1: neurodevelopmental disorders</h3>" in part
    assert "SYNTHETIC DATA: the subjects of diagnosis are simulated" in part
    assert "52.8 %; 52.8 to 95.4 %; control (45.7 %): too few; autism (54.3 %): possible" in part
    for heading in (
        "Measured by others",
        "Floors: what needs no brain",
        "difference to functional connectivity",
    ):
        assert heading in part
    assert "bands: all positive" in part


EVIL = """<script>alert(1)</script>"'--></title><img src=x onerror=alert(2)>"""


def test_text_of_data_cannot_break_out_of_the_page(results, tmp_path, drawing_once):
    """Planted in a table, a reason, a note, a version, a site, and the names of columns and classes."""
    root = tmp_path / "results"
    shutil.copytree(results / "tables", root / "tables")
    file = root / "tables/diagnosis.csv"
    file.write_text(file.read_text().replace("25 control", "25 <script>alert(1)</script>"))
    (root / "patients").mkdir()
    index = pq.read_table(results / "patients/index.parquet").to_pylist()
    index[0] |= {"status": "excluded", "reason": EVIL}
    index[2] |= {"notes": [f"repetition time chosen: {EVIL}"]}
    pd.DataFrame(index).to_parquet(root / "patients/index.parquet")
    shutil.copytree(results / "raw", root / "raw")
    status = {"subject": "01", "status": "ok", "seconds": 1, "versions": {EVIL: EVIL}}
    (root / "raw/preproc/sub-01_status.json").write_text(json.dumps(status))
    rows = [f"secret{i}\t{EVIL}" for i in range(1, 6)]
    (tmp_path / "participants.tsv").write_text("\n".join(["participant_id\tsite", *rows]) + "\n")
    values = CONFIG.model_dump(mode="json")
    values["cohorts"]["patients"]["participants"] = str(tmp_path / "participants.tsv")
    values["endpoints"]["diagnosis"] |= {"column": EVIL, "classes": ["control", EVIL]}
    with drawing_once():
        shown = page.render(type(CONFIG).model_validate(values), root)
    assert "25 &lt;script&gt;alert(1)" in shown
    # of the table, the exclusion, the note, the version's name and value, the site of two groups, column and class
    assert shown.count("&lt;script&gt;alert(1)") >= 9
    assert shown.count("<script") == OWN_SCRIPTS
    assert "<img src=x" not in shown
    outline = Outline(shown)
    assert outline.open == []
    assert not [name for _, name, _ in outline.attributes if name.startswith("on")]


def test_text_of_data_cannot_break_out_of_a_plot():
    points = np.random.default_rng(0).normal(size=(6, 2))
    svg = inside_figures.plane(points, [EVIL, "b"] * 3, [0.5, 0.2])
    svg += figures.estimates(EVIL, [(EVIL, 1.0, 0.5, 1.5)], [(EVIL, 1.0, None, None)])
    assert "&lt;script&gt;" in svg
    assert "<script" not in svg
    assert "<img" not in svg
    assert Outline(svg).open == []


def test_text_of_data_cannot_break_out_of_a_table():
    link = "[x](javascript:alert(1)) ![y](https://example.org/z)"
    evil = f"{EVIL} | {link} \\input{{/etc/passwd}} $x$ %\n"
    sheet = Sheet("t", evil, (evil,), (evil, "n"), 1, (Group(evil, ((evil, "1"),)),), (evil,))
    shown = markdown.to_markdown(sheet)
    assert "<script" not in shown
    assert "<img" not in shown
    assert not re.search(r"(?<!\\)\]\(", shown)
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    tex = latex.to_latex(sheet)
    assert r"\input{" not in tex
    assert r"\textbackslash{}input\{" in tex
    assert "$x$" not in tex


def test_plots_have_floors_as_bands():
    svg = figures.estimates(
        "AUROC (%)", [("FC", 60, 52, 68)], [("permuted", 50, 42, 58), ("<site>", 55, None, None)]
    )
    assert "FC 60 (52 to 68); bands: permuted 50 (42 to 58); &lt;site&gt; 55." in svg
    assert "opacity: 0.13" in svg
    assert "<site>" not in svg


def test_page_says_when_the_target_hardly_moved(text, results, tmp_path, drawing_once):
    said = "of the stage function, which is what is used downstream, keeps 95 % of its random start"
    assert said in re.sub(r"\s+", " ", text)
    copied = shutil.copytree(results, tmp_path / "results")
    run = json.loads((copied / "experiments/demo/function/run.json").read_text())
    run["target"]["share_of_start"] = 0.05
    (copied / "experiments/demo/function/run.json").write_text(json.dumps(run))
    with drawing_once():
        assert "of its random start" not in page.render(CONFIG, copied)


def test_page_is_the_same_each_time(text, results):
    assert page.render(CONFIG, results) == text


def test_an_index_of_a_version_without_notes_is_shown(results, tmp_path):
    index = tmp_path / "anatomical" / "index.parquet"
    index.parent.mkdir()
    pq.write_table(pq.read_table(results / "anatomical" / "index.parquet").drop_columns(["notes"]), index)
    assert collect.summarise(CONFIG, tmp_path, "anatomical").found == collect.Count(1, 0, 1)


@pytest.mark.parametrize(
    "missing", ["templates", "patients", "patients/features", "experiments", "tables", "."]
)
def test_missing_results_are_marked(results, tmp_path, missing, drawing_once):
    root = tmp_path / "results"
    if missing != ".":
        shutil.copytree(
            results, root, ignore=lambda folder, names: _ignored(folder, names, results / missing)
        )
    with drawing_once():
        text = page.render(CONFIG, root)
    words = {
        "templates": "Not computed yet",
        "patients": "not indexed yet",
        "patients/features": "No features have been extracted from a BOLD run yet",
        "experiments": "demo has not been trained yet",
        "tables": "No endpoint has been evaluated yet",
        ".": "No features have been extracted from a BOLD run yet",
    }
    assert words[missing] in text
    assert Outline(text).open == []


def test_given_weights_are_not_called_untrained(results, tmp_path):
    root = tmp_path / "results"
    shutil.copytree(
        results, root, ignore=lambda folder, names: _ignored(folder, names, results / "experiments")
    )
    given = CONFIG.experiments["demo"].model_copy(update={"weights": tmp_path / "release"})
    study = CONFIG.model_copy(update={"experiments": {"demo": given}})
    text = page.render(study, root)
    assert "Its weights were trained outside this study: release." in text
    assert "demo has not been trained yet" not in text


def _ignored(folder, names, wanted):
    return [name for name in names if f"{folder}/{name}" == str(wanted)]


def test_command_writes_the_page_or_a_sentence(results, tmp_path, capsys):
    out = tmp_path / "reports" / "index.html"
    words = ["--config", settings_file(CONFIG.model_dump(mode="json")), "--out", str(out)]
    assert command.main([*words, "--results", str(results)]) == 0
    assert sorted(p.name for p in out.parent.iterdir()) == ["index.html", "methods.bib", "methods.md"]
    broken = results.parent / "broken"
    shutil.copytree(results, broken)
    (broken / "patients" / "index.parquet").write_bytes(b"no parquet")
    assert command.main([*words, "--results", str(broken)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_reasons_that_differ_in_numbers_are_one_reason():
    reasons = ["FD 0.7 is above 0.5", "FD 0.9 is above 0.5", "no T1"]
    assert collect.grouped(reasons) == [("FD \u2026 is above 0.5", [0, 1]), ("no T1", [2])]


@pytest.mark.parametrize(
    ("sentence", "subjects", "shown"),
    [
        ("sub-07_ses-b has no TR", ["07"], "sub-*_ses-* has no TR"),
        ("cannot read /data/x/sub-07/func/a_bold.nii.gz", ["07"], "cannot read a_bold.nii.gz"),
        ("subject NDAR123 is there twice", ["NDAR123"], "subject * is there twice"),
        ("subject 51459 is there twice", ["51459"], "subject * is there twice"),
        ("TR 2 s, not 3 s (n/a)", ["2"], "TR 2 s, not 3 s (n/a)"),
    ],
)
def test_sentences_lose_labels_and_folders(sentence, subjects, shown):
    assert collect.anonymous(sentence, subjects) == shown


def test_correlations_are_fishers_z():
    rng = np.random.default_rng(0)
    series = rng.normal(size=(4, 50))
    series[3] = np.nan
    z = collect.correlations(series)
    assert z[0, 1] == pytest.approx(np.arctanh(np.corrcoef(series[0], series[1])[0, 1]))
    assert np.isnan(z[3]).all()
    assert np.isnan(np.diag(z)).all()


def test_cohort_averages_included_runs(results):
    patients = collect.summarise(CONFIG, results, "patients")
    assert patients.n_runs_averaged == 3
    assert patients.coverage[3] == pytest.approx(0.4)
    assert np.isnan(patients.connectivity[3]).all()
    assert patients.example.series.shape == (len(NAMES), 60)
    assert not patients.traces["highest"].included
    assert patients.traces["highest"].fd_mm.mean() > patients.traces["median"].fd_mm.mean()


def test_example_carries_its_own_motion(results):
    import pyarrow.parquet as pq

    patients = collect.summarise(CONFIG, results, "patients")
    rows = [
        r
        for f in sorted((results / "patients").glob("features/*/qc.parquet"))
        for r in pq.read_table(f).to_pylist()
    ]
    kept = sorted((r for r in rows if r["status"] == "ok" and r["fd_mm"]), key=lambda r: r["mean_fd_mm"])
    np.testing.assert_allclose(patients.example.fd_mm, kept[1]["fd_mm"])


def test_labels_in_the_configuration_are_counted_not_shown():
    subjects = json.loads(made_with.public(CONFIG))["cohorts"]["patients"]["subjects"]
    assert subjects == "2 chosen (labels are not shown)"


def test_excluded_scans_in_the_configuration_are_counted_not_shown():
    values = CONFIG.model_dump(mode="json")
    values["cohorts"]["patients"]["exclude"] = ["sub-secret1_*", "*secret2*"]
    text = made_with.public(type(CONFIG).model_validate(values))
    assert json.loads(text)["cohorts"]["patients"]["exclude"] == "2 given (names are not shown)"
    assert "secret" not in text
