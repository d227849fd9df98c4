"""The table of decisions: read as people write it, and every mistake is a sentence that says how to fix it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhx_model.errors import ConfigError
from bhx_prep.review import decided, decisions
from bhx_prep.review.decisions import Decision

HEADER = "cohort\tsubject\tsession\ttask\trun\tmodality\tdecision\twho\twhen\twhy"
ROWS = [
    {"subject": subject, "session": ses, "task": task, "run": run, "modality": modality, "key": key}
    for subject, ses, task, run, modality, key in (
        ("0051", None, "rest", "01", "bold", "a_sub-0051_task-rest_run-01"),
        ("0051", None, "rest", "02", "bold", "a_sub-0051_task-rest_run-02"),
        ("0051", None, None, None, "t1w", "a_sub-0051"),
        ("7", "x", "rest", None, "bold", "a_sub-7_ses-x_task-rest_dir-AP"),
        ("7", "x", "rest", None, "bold", "a_sub-7_ses-x_task-rest_dir-PA"),
        ("7", "x", None, None, "t1w", "a_sub-7_ses-x"),
        ("7", "y", None, None, "t1w", "a_sub-7_ses-y"),
    )
]


def table(*lines: str, header: str = HEADER) -> str:
    return "\n".join([header, *lines]) + "\n"


def line(
    subject="0051", session="", task="rest", run="1", modality="bold", decision="exclude", **more
) -> str:
    cells = {"cohort": "a", "who": "ab", "when": "2026-01-31", "why": "ghost", **more}
    values = [cells["cohort"], subject, session, task, run, modality, decision]
    return "\t".join([*values, cells["who"], cells["when"], cells["why"]])


def test_it_is_read_as_people_write_it():
    text = "\ufeff" + table(line("sub-0051", "n/a", "task-rest", "run-1", "BOLD", "Exclude")).replace(
        "\n", "\r\n"
    )
    found, mistakes = decisions.parse(text.removeprefix("\ufeff"), ["a"])
    assert mistakes == []
    assert found == [
        Decision("a", "0051", "", "rest", "1", "bold", "exclude", "ab", "2026-01-31", "ghost", line=2)
    ]


def test_columns_may_have_any_order_and_cells_at_the_end_may_be_missing(tmp_path: Path):
    names = HEADER.split("\t")
    turned = "\t".join(reversed(names))
    cells = "\t".join(reversed(line().split("\t")))
    (tmp_path / "d.tsv").write_text(f"\ufeff{turned}\n\n{cells}\n", encoding="utf-8")
    (one,) = decisions.read(tmp_path / "d.tsv", ["a"])
    assert (one.decision, one.why, one.line) == ("exclude", "ghost", 3)


def test_no_file_is_no_decision_and_neither_is_a_first_line_alone(tmp_path: Path):
    assert decisions.read(tmp_path / "none.tsv", ["a"]) == []
    assert decisions.parse(table(), ["a"]) == ([], [])
    assert decisions.parse("", ["a"]) == ([], [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEADER.replace("\t", ",") + "\na,1,,rest,,bold,keep,x,,y\n", "no tabs: write the columns cohort, subject"),
        (table(header=HEADER.replace("why", "reason")), "column why is missing; there is 'reason': write the columns"),
        (table(header=f"{HEADER}\trating"), "unknown column 'rating': remove it"),
        (table(header=f"{HEADER}\twhy"), "column why is there twice"),
        (table(line(decision="drop")), "line 2: unknown decision 'drop': write exclude or keep"),
        (table(line(modality="dwi")), "line 2: unknown modality 'dwi': write bold or t1w"),
        (table(line(cohort="b")), "line 2: unknown cohort 'b'; there are: a"),
        (table(line(why=" ")), "line 2: it does not say why"),
        (table(line(when="31.1.2026")), "line 2: when is '31.1.2026': write a date as 2026-01-31"),
        (table(line(when="2026-13-31")), "line 2: when is '2026-13-31'"),
        (table(line(subject="")), "line 2: its subject is missing"),
        (table(line(), line()), "lines 2 and 3 decide the same on a sub-0051_task-rest_run-1 bold: remove one"),
        (table(line(), line(run="01", decision="keep")), "lines 2 and 3 contradict each other on a sub-0051_task-rest"),
        (table(line() + "\tmore"), "line 2 has 11 cells, the first line 10"),
        (table(line(why='"open')), "quotes"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(tmp_path: Path, text: str, expected: str):
    (tmp_path / "d.tsv").write_text(text)
    with pytest.raises(ConfigError) as caught:
        decisions.read(tmp_path / "d.tsv", ["a"])
    (mistake,) = caught.value.mistakes
    assert expected in mistake
    assert len(mistake) <= 200
    assert "1 mistake in" in str(caught.value)


def test_every_mistake_is_listed_up_to_a_dozen(tmp_path: Path):
    (tmp_path / "d.tsv").write_text(table(*(line(decision="drop", run=str(i)) for i in range(20))))
    with pytest.raises(ConfigError, match="20 mistakes") as caught:
        decisions.read(tmp_path / "d.tsv", ["a"])
    assert str(caught.value).splitlines()[-1] == "  and 8 more"


def test_a_table_that_is_no_text_or_a_folder_is_a_sentence(tmp_path: Path):
    (tmp_path / "d.tsv").write_bytes("cohort\tw\xe4hlt".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8"):
        decisions.read(tmp_path / "d.tsv", ["a"])
    with pytest.raises(ConfigError, match="qc_decisions"):
        decisions.read(tmp_path, ["a"])


def test_what_is_written_is_read_again_whatever_it_holds(tmp_path: Path):
    why = 'he said "no",\tand\nleft <script>'
    one = Decision("a", "1", "", "rest", "", "bold", "keep", "ab", "2026-01-31", why)
    other = Decision(
        "a", "2", "", "rest", "", "bold", "exclude", "ab", "", "x", key="a_sub-2_task-rest_dir-AP"
    )
    decisions.write(tmp_path / "d.tsv", [other, one])
    first, second = decisions.read(tmp_path / "d.tsv", ["a"])
    assert first.why == 'he said "no", and left <script>'
    assert second.key == other.key
    assert (tmp_path / "d.tsv").read_text().splitlines()[0] == f"{HEADER}\tkey"


def find(*lines: str, header: str = HEADER):
    found, mistakes = decisions.parse(table(*lines, header=header), ["a"])
    assert mistakes == []
    return decided.find(found, ROWS)


def test_scans_are_found_however_their_run_is_written():
    found, mistakes = find(line(), line(run="02", decision="keep"), line(task="", run="", modality="t1w"))
    assert mistakes == []
    assert {place: one.decision for place, one in found.items()} == {
        ("bold", "a_sub-0051_task-rest_run-1"): "exclude",
        ("bold", "a_sub-0051_task-rest_run-2"): "keep",
        ("t1w", "a_sub-0051"): "exclude",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (line(run="3"), "line 2: unknown scan a sub-0051_task-rest_run-3 bold: of this subject and modality there is"),
        (line(subject="51"), "line 2: there is no subject '51' in cohort a; did you mean '0051'?"),
        (line("7", "x", run=""), "is 2 scans (a_sub-7_ses-x_task-rest_dir-AP, a_sub-7_ses-x_task-rest_dir-PA, ..):"),
    ],
)  # fmt: skip
def test_a_line_that_names_no_scan_or_several_is_a_sentence(text: str, expected: str):
    found, mistakes = find(text)
    assert found == {}
    assert expected in mistakes[0]
    assert len(mistakes[0]) <= 200


def test_a_key_tells_scans_apart():
    cells = line("7", "x", run="")
    found, mistakes = find(f"{cells}\ta_sub-7_ses-x_task-rest_dir-PA", header=f"{HEADER}\tkey")
    assert mistakes == []
    assert list(found) == [("bold", "a_sub-7_ses-x_task-rest_dir-PA")]


def test_a_t1w_that_fmriprep_merges_of_sessions_may_be_decided():
    found, mistakes = find(line("7", "", "", "", "t1w"))
    assert (list(found), mistakes) == ([("t1w", "a_sub-7")], [])
