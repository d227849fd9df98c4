"""``bhx qc``: decisions are written, taken back, merged and checked."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from bhx_prep import cli
from bhx_prep.commands import status
from bhx_prep.config import config
from bhx_prep.io import folder_lock
from bhx_prep.review import bundle, decisions


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(
        "cohorts: {a: {input: timeseries, root: a, tr_s: 2}, b: {input: timeseries, root: a}}"
    )
    for stem in (
        "sub-01_task-rest_run-1",
        "sub-01_task-rest_run-2",
        "sub-02_task-rest_acq-x",
        "sub-02_task-rest_acq-y",
    ):
        table = tmp_path / "a" / stem[:6] / f"{stem}_timeseries.tsv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("r1\tr2\n0\t1\n1\t0\n")
    return tmp_path


def decide(*words: str) -> int:
    return cli.main(["qc", "decide", "a", *words])


def table() -> list[tuple[str, str, str, str]]:
    found = decisions.read(Path("qc_decisions.tsv"), ["a", "b"])
    return [(one.subject, one.run or one.key, one.decision, one.why) for one in found]


def test_decisions_are_written_changed_and_taken_back(capsys):
    assert decide("01", "--exclude", "--why", "ghost", "--who", "ab") == 0
    assert table() == [("01", "1", "exclude", "ghost"), ("01", "2", "exclude", "ghost")]
    assert capsys.readouterr().out.splitlines() == [
        "exclude a sub-01_task-rest_run-1 bold",
        "exclude a sub-01_task-rest_run-2 bold",
    ]
    assert decide("sub-01", "--run", "02", "--keep", "--why", "fine") == 0
    assert table() == [("01", "1", "exclude", "ghost"), ("01", "2", "keep", "fine")]
    assert decide("01", "--run", "1", "--clear") == 0
    assert table() == [("01", "2", "keep", "fine")]
    one = decisions.read(Path("qc_decisions.tsv"), ["a"])[0]
    assert one.who
    assert one.when.startswith("20")


def test_a_key_is_written_where_labels_do_not_tell_scans_apart():
    assert decide("02", "--key", "a_sub-02_task-rest_acq-y", "--exclude", "--why", "x") == 0
    assert table() == [("02", "a_sub-02_task-rest_acq-y", "exclude", "x")]
    assert cli.main(["qc", "check"]) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["01", "--exclude"], "say why"),
        (["1", "--exclude", "--why", "x"], "no subject '1' in cohort a; did you mean '01'?"),
        (["01", "--run", "3", "--exclude", "--why", "x"], "no scan of run '3'; there are: 1, 2"),
        (
            ["01", "--modality", "t1w", "--exclude", "--why", "x"],
            "no scan of modality 't1w'; there are: bold",
        ),
        (["01", "--key", "z", "--exclude", "--why", "x"], "no scan 'z'"),
    ],
)
def test_what_cannot_be_decided_is_a_sentence(words: list[str], expected: str, capsys):
    assert decide(*words) == 1
    assert expected in capsys.readouterr().err
    assert not Path("qc_decisions.tsv").exists()


def test_a_keep_of_what_the_index_excludes_is_a_warning(capsys):
    Path("a/sub-01/sub-01_task-rest_run-1_timeseries.tsv").write_text("")
    assert decide("01", "--run", "1", "--keep", "--why", "x") == 0
    assert "cannot be kept, the index excludes it" in capsys.readouterr().err


def test_the_page_s_decisions_are_merged(capsys):
    assert decide("01", "--exclude", "--why", "ghost") == 0
    found = decisions.read(Path("qc_decisions.tsv"), ["a"])
    text = decisions.to_text(found[:1]).replace("exclude", "keep").replace("ghost", "fine")
    Path("page.tsv").write_text(text)
    assert cli.main(["qc", "merge", "page.tsv"]) == 0
    assert table() == [("01", "1", "keep", "fine"), ("01", "2", "exclude", "ghost")]
    assert "decisions taken over: 1, in place of earlier ones: 1" in capsys.readouterr().out
    Path("page.tsv").write_text(text.replace("\t01\t", "\t09\t"))
    assert cli.main(["qc", "merge", "page.tsv"]) == 1
    assert "no subject '09'" in capsys.readouterr().err
    assert len(table()) == 2


def test_a_line_that_names_the_scan_otherwise_is_replaced_too():
    line = decisions.Decision("a", "01", "", "rest", "1", "bold", "exclude", "ab", "2026-01-31", "ghost")
    by_key = dataclasses.replace(line, key="a_sub-01_task-rest_run-1")
    decisions.write(Path("qc_decisions.tsv"), [by_key])
    decisions.write(Path("page.tsv"), [dataclasses.replace(line, decision="keep", why="fine")])
    assert cli.main(["qc", "merge", "page.tsv"]) == 0
    assert table() == [("01", "1", "keep", "fine")]
    assert cli.main(["qc", "check"]) == 0


def test_two_who_decide_at_once_both_do():
    with folder_lock.alone(Path()):
        other = threading.Thread(target=decide, args=("01", "--run", "1", "--exclude", "--why", "ghost"))
        other.start()
        other.join(0.5)
        assert other.is_alive()
        line = decisions.Decision("a", "01", "", "rest", "2", "bold", "keep", "ab", "2026-01-31", "fine")
        decisions.write(Path("qc_decisions.tsv"), [line])
    other.join()
    assert table() == [("01", "1", "exclude", "ghost"), ("01", "2", "keep", "fine")]


def test_check_counts_them_and_names_mistakes(capsys):
    assert decide("01", "--exclude", "--why", "ghost") == 0
    assert cli.main(["qc", "check"]) == 0
    assert "a: 2 excluded, 0 kept" in capsys.readouterr().out
    with Path("qc_decisions.tsv").open("a") as file:
        file.write("a\t01\t\trest\t9\tbold\tkeep\tx\t\ty\n")
    assert cli.main(["qc", "check"]) == 1
    assert "unknown scan a sub-01_task-rest_run-9 bold" in capsys.readouterr().err


def test_pictures_are_written_as_files(capsys):
    assert cli.main(["qc", "pictures", "a", "--out", "p"]) == 1
    assert "`snakemake qc` draws" in capsys.readouterr().err
    drawn = [("a_sub-01_task-rest", "bold", kind, f"<svg>{kind} \u00b5</svg>") for kind in ("mask", "carpet")]
    bundle.write(Path("results/a/qc/batch-00000.js"), [*drawn, ("a_sub-02", "t1w", "mask", "<svg/>")])
    assert cli.main(["qc", "pictures", "a", "sub-01", "--out", "p"]) == 0
    names = [f"a_sub-01_task-rest_bold_{kind}.svg" for kind in ("carpet", "mask")]
    assert sorted(path.name for path in Path("p").iterdir()) == names
    assert Path("p", names[0]).read_text() == "<svg>carpet \u00b5</svg>"
    assert cli.main(["qc", "pictures", "a", "03", "--out", "p"]) == 1
    Path("results/a/qc/batch-00000.js").write_text("torn(")
    assert cli.main(["qc", "pictures", "a", "--out", "p"]) == 1
    assert "remove it, and `snakemake qc` draws it again" in capsys.readouterr().err


def test_the_configuration_s_check_reads_the_table_of_decisions(capsys):
    Path("qc_decisions.tsv").write_text("cohort\tsubject\nc\t01\n")
    assert cli.main(["config", "check"]) == 1
    error = capsys.readouterr().err
    assert "the table of decisions does not have what the configuration asks for" in error
    assert "column session, task, run is missing: write the columns cohort, subject" in error


def test_status_counts_pictures_and_page():
    study = config.load(Path("config.yaml"))
    for name, waiting in (("a", 1), ("b", 1)):
        (stage,) = [stage for stage in status.cohort_stages(study, name) if stage.name == "qc"]
        assert (stage.done, stage.waiting) == (0, waiting)
    Path("results/a/qc").mkdir(parents=True)
    Path("results/a/qc/index.html").touch()
    (stage,) = [stage for stage in status.cohort_stages(study, "a") if stage.name == "qc"]
    assert stage.done == 1
