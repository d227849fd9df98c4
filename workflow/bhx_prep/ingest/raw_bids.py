"""Rows of the index for ``input: bids``: raw BIDS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bhx_prep.ingest import metadata
from bhx_prep.ingest.anat import check_raw, choose_t1w, link_anat
from bhx_prep.ingest.bids_files import File, files_of_subjects, natural
from bhx_prep.ingest.choice import Choice, note_reconstructions, scans_tables
from bhx_prep.ingest.rows import (
    IMAGES,
    Row,
    add_note,
    best,
    check_name,
    check_volume,
    exclude,
    new_row,
    no_bold,
    sample_key,
)
from bhx_prep.io import bids_names, notes

NO_T1W: Final = "no usable T1w image, which preprocessing needs"
#: What of a subject's files is looked at: MP2RAGE's images say why there is no T1w.
_SUFFIXES = ("bold", "T1w", "scans", "UNIT1", "MP2RAGE")


def list_rows(
    start: Row,
    root: Path,
    labels: Sequence[str],
    tasks: Sequence[str],
    tr_s: float | None,
    tr: str | None = None,
    choice: Choice | None = None,
) -> Iterator[Row]:
    """Rows of some subjects of a raw BIDS dataset.

    Parameters
    ----------
    start : dict
        Fields that all rows of the cohort share.
    root : Path
        Absolute.
    labels : sequence of str
        Subjects, without ``sub-``.
    tasks : sequence of str
        fMRI tasks to list.
    tr_s, tr
        The cohort's, see `repetition_time.choose`.
    choice : Choice, optional
        What decides among files.

    Yields
    ------
    dict
        A row per T1w image and BOLD run.
    """
    choice = choice or Choice(start["cohort"], root)
    sidecars = metadata.Sidecars(root)
    for label, files in files_of_subjects(root, labels, _SUFFIXES, (*IMAGES, ".tsv")):
        mine = {**start, "subject": label, "kind": "raw"}
        anats = choose_t1w(mine, files, sidecars, choice, raw=True)
        yield from anats
        without_t1w = _no_usable_t1w(anats, files)
        flagged, fault = scans_tables(files)
        runs: dict[str, list[File]] = defaultdict(list)
        for file in files:
            if file.suffix == "bold" and (file.entities.get("task") in tasks or "task" not in file.entities):
                runs[bids_names.same_scan(sample_key(start["cohort"], label, file.entities))].append(file)
        if not runs:
            found = {f.entities["task"] for f in files if f.suffix == "bold"}
            yield no_bold(mine, tasks, found)
        rows = []
        for run in runs.values():
            for row, file in _run_rows(mine, run, choice, flagged):
                rows.append(row)
                if row["status"] != "ok" and file is None:
                    continue
                assert file is not None, "a row that is not left out has its file"
                check_raw(row, file)
                check_name(row, file)
                check_volume(row, file.path, sidecars, tr_s, tr)
                link_anat(row, anats)
                if row["anat"] is None:
                    exclude(row, without_t1w if row["status"] == "ok" else NO_T1W)
                if fault is not None:
                    add_note(row, notes.Kind.CHOICE, fault)
        choice.prefer_runs(rows)
        note_reconstructions(rows)
        yield from rows


def _run_rows(
    start: Row, run: list[File], choice: Choice, flagged: Mapping[str, str]
) -> Iterator[tuple[Row, File | None]]:
    """Rows of one run, with the file to check; normally one, several where files contradict each other."""
    kept, reasons = [], []
    of_run = {f.entities.get("echo", "") for f in run if f.entities.get("part", "mag") == "mag"}
    for file in run:
        key = sample_key(start["cohort"], start["subject"], file.entities)
        reason = choice.left_out(file.path, [key], flagged) or choice.not_selected(file.entities)
        if reason is None:
            kept.append(file)
        else:
            reasons.append(reason)
    if not kept:
        row = new_row(start, "bold", run[0].entities, run[0].path)
        exclude(row, reasons[0])
        yield row, None
        return
    # phase images belong to a magnitude image as echoes belong to the first one
    magnitude = [f for f in kept if f.entities.get("part", "mag") == "mag"]
    if "echo" in choice.prefer:
        magnitude = best(magnitude, lambda f: choice.rank(f.entities, ["echo"]))
    echoes = sorted({f.entities.get("echo", "") for f in magnitude}, key=natural)
    for file in [f for f in magnitude if f.entities.get("echo", "") == echoes[0]] or kept[:1]:
        row = new_row(start, "bold", file.entities, file.path)
        asked = "echo" in choice.select or "echo" in choice.prefer
        row["echoes"] = None if echoes == [""] or (asked and len(echoes) == 1) else len(echoes)
        if not magnitude:
            exclude(row, "there is a phase image only, no magnitude")
        if 1 < len(echoes) < len(of_run):
            exclude(
                row,
                f"{len(of_run) - len(echoes)} of {len(of_run)} echoes are left out: use all of them, or one",
            )
        if "task" not in file.entities:
            exclude(row, "the file name has no task: rename it to .._task-<label>_bold")
        yield row, file


def _no_usable_t1w(anats: list[Row], files: list[File]) -> str:
    """Why a run has no T1w image."""
    bad = next((f" ({a['reason']})" for a in anats), "")
    if not bad and any(f.suffix in ("UNIT1", "MP2RAGE") for f in files):
        bad = " (there is MP2RAGE: make a T1w image of its UNIT1, without noise in the background)"
    return f"{NO_T1W}{bad}"
