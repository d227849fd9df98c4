"""ABCD: raw BIDS and the derivatives of the ABCD-BIDS Community Collection (ABCC, NDA collection 3165).

Ids are spelt ``NDAR_INV01ABCDEF`` in tables and ``sub-NDARINV01ABCDEF`` in names; visits are sessions
(``ses-baselineYear1Arm1``, ``ses-2YearFollowUpYArm1``, in newer releases ``ses-00A``). Raw BIDS and the derivatives of
fMRIPrep are laid out as anywhere. Those of the abcd-hcp-pipeline (DCAN Labs) are listed here; the root is the folder
``derivatives/abcd-hcp-pipeline`` or the one that it is in::

    sub-NDARINV01ABCDEF/ses-baselineYear1Arm1/func/
        sub-.._ses-.._task-rest_bold_desc-filtered_timeseries.dtseries.nii    all runs joined; regressed and filtered
        sub-.._ses-.._task-rest_run-1_bold_timeseries.dtseries.nii            one run, not denoised
        sub-.._ses-.._task-rest_run-1_motion.tsv                              X Y Z RotX RotY RotZ .. (mm, degrees)
        sub-.._ses-.._task-rest_run-1_desc-filtered_motion.tsv                without breathing
        sub-.._ses-.._task-rest_desc-filtered_motion_mask.mat
        sub-.._ses-.._task-rest_bold_atlas-Gordon2014FreeSurferSubcortical_desc-filtered_timeseries.ptseries.nii

It is documented at collection3165.readthedocs.io ("Derivatives"). There is no table of confounds, so the joined file
that the pipeline denoised is used and nothing else; there is no T1 volume in MNI space either.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import metadata
from bhx_prep.ingest.bids_files import natural, subject_labels
from bhx_prep.ingest.layouts import Layout, Listing, Places
from bhx_prep.ingest.rows import Row, add_note, exclude, fill_repetition_time, new_row, no_bold
from bhx_prep.io import bids_names
from bhx_prep.io.notes import Kind

PIPELINE: Final = "derivatives/abcd-hcp-pipeline"
DENOISED: Final = "_bold_desc-filtered_timeseries.dtseries.nii"
_SERIES = re.compile(
    r".*_task-(?P<task>[A-Za-z0-9]+)(_run-\w+)?_bold(_desc-filtered)?_timeseries\.dtseries\.nii"
)
_MOTION = re.compile(r".*_run-[A-Za-z0-9]+_motion\.tsv")
#: Subjects whose names are looked at to tell one pipeline's derivatives from the other's.
_LOOK_AT = 20


def of_dcan(root: Path) -> bool:
    """Whether a root holds derivatives of the abcd-hcp-pipeline, by the names of its first series."""
    for below in _folders(root):
        for name in subject_labels(below)[0][:_LOOK_AT]:
            for file in (below / f"sub-{name}").glob("ses-*/func/*.dtseries.nii"):
                return _SERIES.fullmatch(file.name) is not None
    return False


def _folders(root: Path) -> Iterator[Path]:
    yield from (folder for folder in (root, root / PIPELINE) if folder.is_dir())


def subjects(root: Path) -> dict[str, Places]:
    """Folders of each subject's visits.

    Raises
    ------
    OSError
        If a subject's folder may not be read.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for below in _folders(root):
        for name in subject_labels(below)[0]:
            visits = (below / f"sub-{name}").iterdir()  # unlike a pattern, it says what may not be read
            for visit in sorted(path for path in visits if path.name.startswith("ses-")):
                places[name].append(str(visit.relative_to(root)))
    return {name: tuple(of) for name, of in places.items()}


def rows(start: Row, root: Path, places: Places, cohort: CohortSection, t1w_mm: float) -> Iterator[Row]:
    """Rows of a subject's denoised series."""
    found: list[Row] = []
    others: set[str] = set()
    for place in places:
        func = root / place / "func"
        files = sorted((f for f in func.iterdir()), key=lambda f: natural(f.name)) if func.is_dir() else []
        by_task: dict[str, list[Path]] = defaultdict(list)
        for file in files:
            if named := _SERIES.fullmatch(file.name):
                by_task[named["task"]].append(file)
        others |= by_task.keys()
        for task in cohort.tasks:
            if by_task[task]:
                found.append(
                    _run({**start, "kind": "cifti", "space": "fsLR"}, by_task[task], files, task, cohort)
                )
    yield from found or [no_bold(start, cohort.tasks, others)]


def _run(start: Row, series: list[Path], files: list[Path], task: str, cohort: CohortSection) -> Row:
    entities = bids_names.parse(series[0].name)
    row = new_row(start, "bold", {"ses": entities.get("ses", ""), "task": task})
    path = next((file for file in series if file.name.endswith(DENOISED)), None)
    if path is None:
        exclude(row, f"{series[0].name} is not denoised: BHX needs .._task-{task}{DENOISED}")
        return row
    row["path"] = str(path)
    if cohort.space != "fsLR":
        exclude(row, f"no BOLD in space {cohort.space}; there is: fsLR")
    if cohort.strategy != "none":
        exclude(row, "the abcd-hcp-pipeline denoised these series: set `strategy: none` for this cohort")
    measured = None
    try:
        row["n_frames"], measured = metadata.read_cifti_series(path)
    except DataError as error:
        exclude(row, str(error))
    fill_repetition_time(row, path, metadata.Sidecars(path.parent), measured, cohort.tr_s, cohort.tr)
    prefix = path.name.removesuffix(DENOISED)
    motion = [
        file for file in files if file.name.startswith(f"{prefix}_run-") and _MOTION.fullmatch(file.name)
    ]
    # with the breathing in them, as everywhere else
    motion = [file for file in motion if "_desc-" not in file.name] or motion
    row["confounds"] = str(motion[0]) if motion else None
    if not motion:
        add_note(row, Kind.MOTION, "there is no .._motion.tsv")
        detail = "where runs are joined in the file is not known: a patch may cross from one into the next"
        add_note(row, Kind.CHOICE, detail)
    if len(motion) > 1:
        add_note(
            row,
            Kind.CHOICE,
            f"{len(motion)} runs are joined in one file: patches end where a run does",
        )
    return row


def label(spelt: str) -> str:
    """``NDARINV01ABCDEF`` of ``NDAR_INV01ABCDEF``."""
    return spelt.strip().removeprefix("sub-").replace("_", "")


LAYOUTS: Final = {
    "abcd": Layout(
        {"fmriprep": Listing(subjects, rows, f"sub-NDARINV<id>/ses-<visit>/func/..{DENOISED}")},
        label,
        is_listed=of_dcan,
    )
}
