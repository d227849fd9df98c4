"""Rows of the index at ``input: bids``: raw BIDS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from bhx_prep.ingest import metadata
from bhx_prep.ingest.anat import check_raw, choose_t1w, link_anat
from bhx_prep.ingest.bids_files import File, files_of_subjects, natural
from bhx_prep.ingest.rows import IMAGES, Row, check_name, check_volume, exclude, new_row, no_bold, sample_key


def list_rows(
    start: Row, root: Path, labels: Sequence[str], tasks: Sequence[str], tr_s: float | None
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
    tr_s : float or None
        Repetition time (s) of runs whose files do not state it.

    Yields
    ------
    dict
        A row per T1w image and BOLD run.
    """
    sidecars = metadata.Sidecars(root)
    for label, files in files_of_subjects(root, labels, ("bold", "T1w"), IMAGES):
        anats = choose_t1w({**start, "subject": label, "kind": "raw"}, files, sidecars, raw=True)
        yield from anats
        runs: dict[str, list[File]] = defaultdict(list)
        for file in files:
            if file.suffix == "bold" and (file.entities.get("task") in tasks or "task" not in file.entities):
                runs[sample_key(start["cohort"], label, file.entities)].append(file)
        if not runs:
            found = {f.entities["task"] for f in files if f.suffix == "bold"}
            yield no_bold({**start, "subject": label, "kind": "raw"}, tasks, found)
        for run in runs.values():
            # phase images belong to a magnitude image as echoes belong to the first one
            magnitude = [f for f in run if f.entities.get("part", "mag") == "mag"]
            echoes = sorted({f.entities.get("echo", "") for f in magnitude}, key=natural)
            for file in [f for f in magnitude if f.entities.get("echo", "") == echoes[0]] or run[:1]:
                row = new_row({**start, "subject": label, "kind": "raw"}, "bold", file.entities, file.path)
                row["echoes"] = len(echoes) if echoes != [""] else None
                if not magnitude:
                    exclude(row, "there is a phase image only, no magnitude")
                if "task" not in file.entities:
                    exclude(row, "the file name has no task: rename it to .._task-<label>_bold")
                check_raw(row, file)
                check_name(row, file)
                check_volume(row, file.path, sidecars, tr_s)
                link_anat(row, anats)
                if row["anat"] is None:
                    bad = next((f" ({a['reason']})" for a in anats), "")
                    exclude(row, f"no usable T1w image, which preprocessing needs{bad}")
                yield row
