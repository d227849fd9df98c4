"""Data sets of many sites, each a BIDS dataset (or derivatives of one) in a subfolder of the root.

::

    <root>/                        or <root>/RawDataBIDS/, <root>/RawData/
      <site>/
        dataset_description.json
        participants.tsv
        task-rest_bold.json        repetition time of all runs of the site
        sub-<label>/..

One of those folders, or a merged dataset with ``sub-<label>`` at its top, may be the root as well.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import fmriprep, raw_bids
from bhx_prep.ingest.bids_files import SUBJECT, is_folder
from bhx_prep.ingest.choice import Choice
from bhx_prep.ingest.layouts import Listing, Places
from bhx_prep.ingest.rows import Row, exclude, new_row, safe_label

#: Folders between the root and those of the sites.
_ABOVE: Final = ("RawDataBIDS", "RawData")
#: Folders that are no sites: BIDS', FreeSurfer's beside fMRIPrep's, a file system's.
_NO_SITES: Final = frozenset(
    {"code", "derivatives", "freesurfer", "logs", "lost+found", "phenotype", "sourcedata", "stimuli"}
)


def subjects(root: Path) -> Mapping[str, Places]:
    """Folders that hold a subject's folder, by label; relative to the root."""
    found: dict[str, list[str]] = defaultdict(list)
    above = [name for name in _ABOVE if (root / name).is_dir()]
    sites = [
        f"{place}/{name}".removeprefix("./") for place in (".", *above) for name in _folders(root / place)
    ]
    for site in (".", *sites):
        for name in _folders(root / site):
            if name.startswith("sub-"):
                found[name.removeprefix("sub-")].append(site)
    return found


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            e.name for e in entries if is_folder(e) and not e.name.startswith(".") and e.name not in _NO_SITES
        )


def raw_rows(start: Row, root: Path, places: Places, cohort: CohortSection, t1w_mm: float) -> Iterator[Row]:
    """Rows of one subject's raw data."""
    refusal = _refused(start, root, places, "raw")
    if refusal is not None:
        yield refusal
        return
    site = root / places[0]
    choice = Choice.of(start["cohort"], cohort, site, t1w_mm)
    yield from raw_bids.list_rows(
        start, site, [start["subject"]], cohort.tasks, cohort.tr_s, cohort.tr, choice
    )


def derivative_rows(
    start: Row, root: Path, places: Places, cohort: CohortSection, t1w_mm: float
) -> Iterator[Row]:
    """Rows of one subject of fMRIPrep's derivatives."""
    refusal = _refused(start, root, places, None)
    if refusal is not None:
        yield refusal
        return
    labels = [start["subject"]]
    site = root / places[0]
    choice = Choice.of(start["cohort"], cohort, site, t1w_mm)
    yield from fmriprep.list_rows(start, site, labels, cohort.tasks, cohort.tr_s, cohort.tr, choice)


def _refused(start: Row, root: Path, places: Places, kind: str | None) -> Row | None:
    """The row of a subject that no label may name, or that two sites have."""
    label = start["subject"]
    named = {**start, "subject": safe_label(label), "kind": kind}
    row = new_row(named, "bold", {}, root / places[0] / f"sub-{label}")
    if not SUBJECT.fullmatch(label):
        exclude(row, f"folder {f'sub-{label}'!r} names no subject: only letters and digits may follow `sub-`")
    elif len(places) > 1:
        exclude(
            row,
            f"sub-{label} is in the folders of {' and '.join(places)}: make each site a cohort of its own",
        )
    else:
        return None
    return row


LISTINGS: Final = {
    "bids": Listing(subjects, raw_rows, "<site>/sub-<label>"),
    "fmriprep": Listing(subjects, derivative_rows, "<site>/sub-<label>"),
}
