"""`bhx index`: one screen with what a user has to know of a cohort."""

from __future__ import annotations

import pyarrow as pa
from small_bids import write_image, write_subject

from bhx_prep import cli
from bhx_prep.commands.index import participants_line, summary
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import index
from bhx_prep.io.notes import Kind, note


def test_the_most_frequent_reasons_are_reported_first():
    rows = [
        {"cohort": "study", "input": "bids", "subject": str(n), "modality": "bold", "key": "k",
         "status": "excluded", "reason": f"reason {n % 10 if n > 20 else 0}"}
        for n in range(40)
    ]  # fmt: skip
    lines = summary(pa.Table.from_pylist(rows, schema=index.SCHEMA), most=3).splitlines()
    assert lines[0] == "study (input bids): 0 of 40 subjects usable"
    assert lines[3] == "       22 bold (sub-0, ..): reason 0"
    assert lines[-1] == "          and 7 further reasons"


def test_reasons_that_name_a_file_are_counted_together(tmp_path):
    for label in ("01", "02"):
        write_subject(tmp_path, label)
        write_image(tmp_path / f"sub-{label}/anat/sub-{label}_acq-b_T1w.nii.gz")
    lines = summary(index.build("study", CohortSection(input="bids", root=tmp_path))).splitlines()
    assert lines[5] == "        2 t1w (sub-01, ..): one T1w image of a session is used: sub-*_T1w.nii.gz"
    assert len(lines) == 8  # and a note of the choice, counted once for both
    assert "one of 2 T1w images of this session" in lines[7]


def test_notes_are_counted_by_kind_and_listed_when_asked_for(tmp_path, monkeypatch, capsys):
    rows = [
        {"cohort": "study", "input": "bids", "subject": f"0{n}", "modality": "bold", "key": f"study_sub-0{n}",
         "status": "ok" if n < 4 else "excluded", "tr_s": 2.0 if n else 0.8, "n_frames": 150, "reason": "x",
         "notes": [note(Kind.TR, f"of sub-0{n}_bold"), note(Kind.CHOICE, str(n))]}
        for n in range(6)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=index.SCHEMA)
    lines = summary(table).splitlines()
    assert "  repetition time 0.8 s (1), 2 s (3)" in lines
    assert "  length 2.0 to 5.0 min" in lines
    assert lines[-2:] == [
        "        4 file chosen among several: 0 (1), and 3 other details",
        "        4 repetition time chosen: of sub-*_bold",
    ]
    (tmp_path / "config.yaml").write_text("cohorts: {study: {input: bids, root: data}}")
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bhx_prep.commands.index.load", lambda *of, **more: table)
    assert cli.main(["index", "--notes"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert "  study_sub-03 bold: file chosen among several: 3" in listed
    assert not any("study_sub-04" in line for line in listed)  # it is excluded


def test_the_participants_table_is_compared_with_the_subjects(tmp_path):
    for label in ("01", "02", "03"):
        write_subject(tmp_path, label)
    cohort = CohortSection(input="bids", root=tmp_path)
    table = index.build("study", cohort)
    assert participants_line(cohort, table) is None
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-01\t1\tM\n2\t3\tF\n2024-01-02\t4\tF\n"
    )
    assert participants_line(cohort, table) == (
        "  participants.tsv: a row for 2 of 3 subjects; 1 row cannot be used; columns age, sex"
    )
    (tmp_path / "participants.tsv").write_bytes(b"")
    assert "cannot be used" in participants_line(cohort, table)
