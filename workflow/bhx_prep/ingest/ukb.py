"""UK Biobank: bulk archives of one scan each, and the published tables of parcel series.

The tree, as ``ukbfetch`` and the Research Analysis Platform give it, flat or in folders of any name (``Bulk/Brain
MRI/rfMRI/10/..``). Archives may be unpacked into folders of their names, too::

    w12345_20240101.csv                                 participants who withdrew, one id a line
    1000011_20227_2_0.zip                               field 20227, functional images at rest, instance 2
        fMRI/rfMRI.nii.gz, rfMRI.json                   raw
        fMRI/rfMRI.ica/filtered_func_data_clean.nii.gz  cleaned by FIX, in the space of the scan
        fMRI/rfMRI.ica/reg/example_func2standard_warp.nii.gz
        fMRI/rfMRI.ica/mc/prefiltered_func_data_mcf.par
    1000011_20252_2_0.zip                               field 20252, T1 structural images
        T1/T1.nii.gz, T1_brain.nii.gz                   in the space of the scan
        T1/T1_brain_to_MNI.nii.gz                       MNI152NLin6Asym, 1 mm, without the skull
        T1/unusable/..                                  instead of the above where the scan failed
    1000011_31016_2_0.zip                               parcel series of "Connectomes for 40,000 UK Biobank participants"
        fMRI/fMRI.Schaefer17n400p.csv.gz                label_name, timepoint_0, .., timepoint_489; no repetition time

Fields 20227 and 20252 are documented in the Showcase and in UK Biobank's "Brain Imaging Documentation"; the tables in
Mansour et al. 2023 (NeuroImage 283:120407) and their code, github.com/sina-mansour/UKB-connectomics. The number of the
tables' field is not looked at, only what the archive holds. Instances (2: first imaging visit, 3: repeat) are sessions.

The functional images are in the space of the scan: they are refused, since resampling them by FSL's warp is for FSL.
With ``input: timeseries`` the published tables are used, with the T1 volumes of field 20252.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from bhx_model.errors import ConfigError, DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import metadata
from bhx_prep.ingest.anat import link_anat
from bhx_prep.ingest.bids_files import files_below
from bhx_prep.ingest.layouts import Layout, Listing, Places
from bhx_prep.ingest.rows import (
    Row,
    add_note,
    check_volume,
    exclude,
    fill_repetition_time,
    new_row,
    no_bold,
)
from bhx_prep.io import archives
from bhx_prep.io.notes import Kind
from bhx_prep.io.pointers import not_fetched

RESTING: Final = "20227"
STRUCTURAL: Final = "20252"
SPACE: Final = "MNI152NLin6Asym"

T1W: Final = "T1/T1_brain_to_MNI.nii.gz"
CLEANED: Final = "fMRI/rfMRI.ica/filtered_func_data_clean.nii.gz"
#: Where FSL keeps images that it resampled to its template.
IN_MNI: Final = "fMRI/rfMRI.ica/reg_standard/filtered_func_data_clean.nii.gz"
MASK_IN_MNI: Final = "fMRI/rfMRI.ica/reg_standard/mask.nii.gz"
MOTION: Final = "fMRI/rfMRI.ica/mc/prefiltered_func_data_mcf.par"

_BULK = re.compile(r"(?P<eid>\d{6,8})_(?P<field>\d{4,6})_(?P<instance>\d+)_(?P<array>\d+)(\.zip)?")
#: Starts of the numbers of fields that hold images and measures of images, never tables of series.
_IMAGING = ("20", "25")
_WITHDRAWN = re.compile(r"w(ithdraw\w*)?\d*_?\d*\.(csv|txt)", re.IGNORECASE)
#: The published tables, by the atlases in their names.
_TABLE = re.compile(r"(fMRI\.|Schaefer|Glasser|Tian|aparc).*\.(csv|tsv|parquet)(\.gz)?$")
_OF_A_SUBJECT = re.compile(r"(?<!\d)(?P<eid>\d{6,8})(_(?P<instance>\d)(?!\d))?")
_SESSION = re.compile(r"(?<![A-Za-z0-9])ses-(?P<instance>[A-Za-z0-9]+)")
#: Folders below the root that archives may be in.
_DEPTH = 6


def subjects(root: Path) -> dict[str, Places]:
    """Archives, unpacked archives and tables of each participant; of one who withdrew the list that says so.

    Raises
    ------
    ConfigError
        If a list of participants who withdrew cannot be read.
    """
    places: dict[str, list[str]] = defaultdict(list)
    withdrawn: dict[str, str] = {}
    for path, is_folder in _entries(root, "", 0):
        name = path.rpartition("/")[2]
        bulk = _BULK.fullmatch(name)
        if bulk:
            places[bulk["eid"]].append(path)
        elif not is_folder and "/" not in path and _WITHDRAWN.fullmatch(name):
            withdrawn |= dict.fromkeys(_ids(root / path), path)
        elif not is_folder and _TABLE.search(name) and (named := _OF_A_SUBJECT.search(path)):
            places[named["eid"]].append(path)
    return {eid: (withdrawn[eid],) if eid in withdrawn else tuple(sorted(of)) for eid, of in places.items()}


def _entries(root: Path, below: str, depth: int) -> Iterator[tuple[str, bool]]:
    """Paths below the root, and whether they are folders; folders that are unpacked archives are not entered."""
    with os.scandir(root / below) as entries:
        listed = sorted((e.name, e.is_dir()) for e in entries)
    for name, is_folder in listed:
        path = f"{below}/{name}" if below else name
        if is_folder and depth < _DEPTH and not _BULK.fullmatch(name):
            yield from _entries(root, path, depth + 1)
        else:
            yield path, is_folder


def _ids(file: Path) -> list[str]:
    """Ids of a list of participants who withdrew; without it nobody may be used."""
    try:
        wrong, text = not_fetched(file), file.read_bytes()
    except OSError as error:
        wrong, text = not_fetched(file) or f"cannot be read ({error.strerror})", b""
    if wrong:
        raise ConfigError(
            f"{file}, the list of participants who withdrew, {wrong}: nobody is used without it"
        )
    return re.findall(
        r"\d{6,8}", text.replace(b"\0", b"").decode("latin-1")
    )  # UTF-16 has zeros between digits


def derivative_rows(
    start: Row, root: Path, places: Places, cohort: CohortSection, t1w_mm: float
) -> Iterator[Row]:
    """Rows of a participant's T1 volumes and functional images."""
    yield from _rows(start, root, places, cohort, tables=False)


def table_rows(start: Row, root: Path, places: Places, cohort: CohortSection, t1w_mm: float) -> Iterator[Row]:
    """Rows of a participant's T1 volumes and published tables."""
    yield from _rows(start, root, places, cohort, tables=True)


def _rows(start: Row, root: Path, places: Places, cohort: CohortSection, *, tables: bool) -> Iterator[Row]:
    if len(places) == 1 and _WITHDRAWN.fullmatch(places[0]):
        row = new_row(start, "bold", {"task": "rest"})
        exclude(row, f"withdrew consent: listed in {places[0]}")
        yield row
        return
    anats, runs = [], []
    for instance, field, found in _by_instance(places):
        row_start = {**start, "kind": "volume"}
        if field == STRUCTURAL:
            anats.append(_t1w(row_start, root, instance, found))
        elif field == RESTING:
            if not tables:
                runs.append(_resting(row_start, root, instance, found, cohort))
        elif tables and not field.startswith(_IMAGING):
            for place in found:
                runs += _tables({**start, "kind": "table"}, root, instance, place, cohort)
    yield from anats
    if not runs:
        row = no_bold(start, cohort.tasks, ())
        wanted = (
            f"table {cohort.series}" if tables else f"archive of field {RESTING} (functional images at rest)"
        )
        row["reason"] = f"no {wanted} of this participant"
        runs = [row]
    for row in runs:
        link_anat(row, anats)
        yield row


def _by_instance(places: Places) -> Iterator[tuple[str | None, str, list[str]]]:
    """Instance, field and places of what belongs together; files that are no archives have an empty field."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for place in places:
        bulk = _BULK.fullmatch(place.rpartition("/")[2])
        if bulk:
            groups[bulk["instance"], bulk["field"]].append(place)
            continue
        found = [m["instance"] for m in _OF_A_SUBJECT.finditer(place) if m["instance"]]
        found += [m["instance"] for m in _SESSION.finditer(place)]
        groups[found[-1] if found else "", ""].append(place)
    for (instance, field), found in sorted(groups.items()):
        yield instance or None, field, found


def _choose(row: Row, found: list[str]) -> str:
    """One of several places of one scan: an archive before its unpacked folder, the first array index."""
    place = min(found, key=lambda p: (not p.endswith(archives.ENDING), p))
    if len(found) > 1:
        others = ", ".join(PurePosixPath(p).name for p in found if p != place)
        add_note(row, Kind.CHOICE, f"{PurePosixPath(place).name}, not {others}")
    return place


def _members(place: Path) -> Collection[str]:
    """Files of an archive, or of a folder that it was unpacked to."""
    if place.is_dir():
        return {os.path.relpath(path, place) for path in files_below(str(place))}
    return archives.members(place)


def _member(row: Row, place: Path, name: str) -> Path | None:
    """A file of an archive; None, and the reason in the row, where it is not there."""
    try:
        members = _members(place)
    except DataError as error:
        exclude(row, str(error))
        return None
    # archives that were packed again often have a folder more
    there = [m for m in members if m == name or (m.endswith(f"/{name}") and not m.startswith("__MACOSX"))]
    if len(there) == 1:
        return place / there[0]
    unusable = any("/unusable/" in f"/{member}" for member in members)
    why = ": UK Biobank marks the scan as unusable" if unusable else ""
    exclude(row, f"{place.name} holds no {PurePosixPath(name).name}{why}")
    return None


def _t1w(start: Row, root: Path, instance: str | None, found: list[str]) -> Row:
    row = new_row(start, "t1w", {"ses": instance or ""})
    row["space"] = SPACE
    path = _member(row, root / _choose(row, found), T1W)
    if path is None:
        return row
    row["path"] = str(path)
    try:
        header = metadata.read_header(path)
        shape = header.get_data_shape()
        if len(shape) != 3:
            exclude(row, f"the image is {len(shape)}D: expected a 3D volume")
        metadata.voxel_sizes({}, header)
    except DataError as error:
        exclude(row, str(error))
    return row


def _resting(start: Row, root: Path, instance: str | None, found: list[str], cohort: CohortSection) -> Row:
    row = new_row(start, "bold", {"ses": instance or "", "task": "rest"})
    place = root / _choose(row, found)
    try:
        members = _members(place)
    except DataError as error:
        exclude(row, str(error))
        return row
    if IN_MNI not in members:
        if _member(row, place, CLEANED) is not None:
            row["path"] = str(place / CLEANED)
            exclude(
                row,
                f"{PurePosixPath(CLEANED).name} is in the space of the scan: BHX reads images in MNI space;"
                " use the published tables (`input: timeseries`)",
            )
        return row
    row["path"], row["space"] = str(place / IN_MNI), SPACE
    check_volume(row, place / IN_MNI, metadata.Sidecars(place), cohort.tr_s, cohort.tr)
    row["mask"] = str(place / MASK_IN_MNI) if MASK_IN_MNI in members else None
    row["confounds"] = str(place / MOTION) if MOTION in members else None
    if row["confounds"] is None:
        add_note(row, Kind.MOTION, f"{PurePosixPath(MOTION).name} is not in the archive")
    return row


def _tables(start: Row, root: Path, instance: str | None, place: str, cohort: CohortSection) -> Iterator[Row]:
    """Rows of the tables in an archive, or of a table by itself, whose name fits `series`."""
    pattern = PurePosixPath(cohort.series).name
    named = {"ses": instance or "", "task": "rest"}
    names: Mapping[str, None]
    if _BULK.fullmatch(PurePosixPath(place).name):
        try:
            names = dict.fromkeys(sorted(_members(root / place)))
        except DataError as error:
            row = new_row(start, "bold", named)
            exclude(row, str(error))
            yield row
            return
        files = [
            root / place / name for name in names if fnmatch.fnmatchcase(name.rpartition("/")[2], pattern)
        ]
    else:
        files = [root / place] if fnmatch.fnmatchcase(place.rpartition("/")[2], pattern) else []
    for file in files:
        row = new_row(start, "bold", named, file)
        row["space"] = None
        try:
            metadata.check_file(file)
        except DataError as error:
            exclude(row, str(error))
        fill_repetition_time(row, file, metadata.Sidecars(file.parent), None, cohort.tr_s, cohort.tr)
        yield row


def label(spelt: str) -> str:
    """``1000011`` of ``1000011``, ``1000011.0`` or ``sub-1000011``."""
    return spelt.strip().removeprefix("sub-").removesuffix(".0")


LAYOUTS: Final = {
    "ukb": Layout(
        {
            "fmriprep": Listing(
                subjects, derivative_rows, "archives <eid>_20227_2_0.zip and <eid>_20252_2_0.zip"
            ),
            "timeseries": Listing(
                subjects,
                table_rows,
                "archives <eid>_<field>_2_0.zip with fMRI.Schaefer17n400p.csv.gz, or the tables",
            ),
        },
        label,
    )
}
