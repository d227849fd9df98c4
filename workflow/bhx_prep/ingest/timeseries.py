"""Rows of the index for ``input: timeseries``: ROI x time tables, with preprocessed T1w images beside them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bhx_model.errors import ConfigError, DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import metadata, table_outline
from bhx_prep.ingest.anat import choose_t1w, link_anat
from bhx_prep.ingest.bids_files import File, chunks, files_of_subjects, matching
from bhx_prep.ingest.choice import Choice, scans_tables
from bhx_prep.ingest.repetition_time import is_number
from bhx_prep.ingest.rows import (
    IMAGES,
    Row,
    add_note,
    exclude,
    fill_repetition_time,
    new_row,
    no_bold,
    safe_label,
    subjects_and_unknown,
)
from bhx_prep.ingest.stated_names import stated_names
from bhx_prep.io import bids_names, notes
from bhx_prep.io.stated_axes import StatedAxes


def list_rows(start: Row, root: Path, cohort: CohortSection, choice: Choice | None = None) -> Iterator[Row]:
    """Rows of the subjects of a cohort of ROI x time tables.

    Parameters
    ----------
    start : dict
        Fields that all rows of the cohort share.
    root : Path
        Absolute.
    cohort : Cohort
        Its section of the configuration.
    choice : Choice, optional
        What decides among files.

    Yields
    ------
    dict
        A row per T1w image and table.

    Raises
    ------
    ConfigError
        If the cohort's `series` does not name a subject.
    """
    if "{subject}" not in cohort.series:
        msg = f"cohort {start['cohort']}: `series` must contain {{subject}} (is {cohort.series!r})"
        raise ConfigError(msg)
    choice = choice or Choice.of(start["cohort"], cohort, root)
    sidecars = metadata.Sidecars(root)
    stated = StatedAxes.of_json(stated_names(cohort, start["cohort"]))
    wanted = None if cohort.subjects is None else set(cohort.subjects)
    tables = _tables_by_subject(root, cohort.series)
    labels, unknown = subjects_and_unknown(start, root, None)
    yield from (row for row in unknown if wanted is None)
    subjects = (set(tables) | set(labels)) if wanted is None else wanted
    anat_files: dict[str, list[File]] = {}
    for some in chunks(sorted(set(labels) & subjects)):
        anat_files.update(files_of_subjects(root, some, ("T1w", "mask", "scans"), (*IMAGES, ".tsv")))
    for label in sorted(subjects):
        subject = safe_label(label)
        mine = {**start, "subject": subject}
        anats = choose_t1w({**mine, "kind": "volume"}, anat_files.get(label, []), sidecars, choice)
        yield from anats
        listed = [File(path, "timeseries", "".join(path.suffixes)) for path in tables.get(label, [])]
        flagged, fault = scans_tables([*anat_files.get(label, []), *listed])
        found = tables.get(label, [])
        made = (_table_row(mine, label, path, cohort, sidecars, stated) for path in found)
        rows = [row for row in made if row is not None]
        if not rows:
            rows = [_without_table(mine, cohort, found, label in labels)]
        for row in rows:
            link_anat(row, anats)
            if row["path"] is not None:
                path = Path(row["path"])
                reason = choice.left_out(path, [row["key"]], flagged)
                reason = reason or choice.not_selected(bids_names.parse(path.name))
                if reason is not None:
                    exclude(row, reason)
                if fault is not None:
                    add_note(row, notes.Kind.CHOICE, fault)
        choice.prefer_runs(rows)
        yield from rows


def _tables_by_subject(root: Path, series: str) -> dict[str, list[Path]]:
    """Files that `series` of the cohort matches, by the subject's label."""
    tables: dict[str, list[Path]] = defaultdict(list)
    pattern = _subject_pattern(series)
    for found in matching(root, series.replace("{subject}", "*")):
        match = pattern.fullmatch(found)
        is_other = found.endswith(".json") or "_desc-confounds_" in found
        if match and not is_other and not (root / found).is_dir():
            tables[match["subject"].removeprefix("sub-")].append(root / found)
    return tables


def _without_table(start: Row, cohort: CohortSection, others: Sequence[Path], has_folder: bool) -> Row:
    """Row of a subject with no table of the cohort's tasks; `others` are its tables of other tasks."""
    reason = f"no table of the tasks {', '.join(cohort.tasks)} matches {cohort.series}"
    tasks = {bids_names.parse(path.name).get("task", "") for path in others}
    if tasks:
        reason += f"; there is: {', '.join(sorted(tasks)[:5])}"
    row = no_bold(start, cohort.tasks, set())
    row["reason"] = reason if has_folder else f"nothing of this subject in the root: {reason}"
    return row


def _table_row(
    start: Row,
    label: str,
    path: Path,
    cohort: CohortSection,
    sidecars: metadata.Sidecars,
    stated: StatedAxes,
) -> Row | None:
    named = bids_names.parse(path.name)
    named.setdefault("task", cohort.tasks[0])
    if named["task"] not in cohort.tasks:
        return None
    row = new_row({**start, "kind": "table", "space": None}, "bold", named, path)
    if named.get("sub", label) != label:
        exclude(row, f"the file of sub-{named['sub']} is in the place of sub-{label}")
    if start["subject"] != label:
        exclude(row, f"{label!r} is not a subject label: only letters and digits may be used")
    measured = None
    try:
        fields, sidecar = sidecars.fields_of(path)
    except DataError:  # `fill_repetition_time` gives the reason
        fields, sidecar = {}, None
    try:
        outline = table_outline.read_outline(path, stated, sidecar=sidecar)
        row["n_frames"], measured = outline.n_frames, outline.tr_s or _by_sampling_frequency(row, fields)
        if measured is None and cohort.tr_s is None and not _STATED & fields.keys():
            measured = _of_bold(row, path, sidecars)
        if outline.note is not None:
            row["notes"].append(outline.note)
    except DataError as error:
        exclude(row, str(error))
    fill_repetition_time(row, path, sidecars, measured, cohort.tr_s, cohort.tr)
    return row


_STATED = {"RepetitionTime", "VolumeTiming"}


def _of_bold(row: Row, path: Path, sidecars: metadata.Sidecars) -> float | None:
    """Repetition time (s) of the image from which a table was made, as XCP-D states it in the table's sidecar."""
    fields, sidecar = sidecars.of_bolds(path)
    found = fields.get("RepetitionTime")
    if sidecar is None or not is_number(found):
        return None
    add_note(row, notes.Kind.TR, f"{found:g} s of {notes.short(sidecar.name)}, its own sidecar states none")
    return found


def _by_sampling_frequency(row: Row, fields: Mapping[str, Any]) -> float | None:
    """Repetition time (s) of a sidecar that states ``SamplingFrequency`` (Hz) in its place."""
    frequency = fields.get("SamplingFrequency")
    if _STATED & fields.keys() or not is_number(frequency) or frequency <= 0:
        return None
    add_note(row, notes.Kind.TR, f"1 / SamplingFrequency ({frequency:g} Hz) of its sidecar")
    return 1 / frequency


def _subject_pattern(series: str) -> re.Pattern[str]:
    """Regular expression of a glob pattern with ``{subject}``, which becomes the group of that name."""
    parts = []
    for part in re.split(r"(\*\*/|\*|\?|\{subject\})", series):
        if part == "{subject}":
            parts.append("(?P=subject)" if "{subject}" in parts else "{subject}")
        else:
            parts.append({"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part)))
    return re.compile("".join(parts).replace("{subject}", "(?P<subject>[^/]+?)"))
