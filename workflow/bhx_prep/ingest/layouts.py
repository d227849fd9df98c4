"""Find the files of known data sets, chosen by a cohort's `layout`.

A module of this folder per data set: its docstring shows the source's tree and says where that is documented, its
`LAYOUTS` says what it does differently from the general inputs. A data set can differ in two ways:

- where files are and what they are called: a `Listing` for each `input` it is so for. An `input` without one is listed
  as any other cohort (BIDS, fMRIPrep's derivatives, tables by `series`);
- how its tables spell ids: `label` makes of ``NDAR_INV01ABCDEF``, ``011_S_0002`` or ``1000011.0`` the label that the
  folders give the subject.

What else is known of a data set (values that mean unknown, columns of ids, defaults of the cohort's section) is plain
data in `bhx_prep.config.layouts`.

A listing's rows are read by the same code as all others: `kind` is ``volume``, ``cifti``, ``gifti`` or ``table``. A
path may lead into a zip archive (``1000011_20227_2_0.zip/fMRI/rfMRI.nii.gz``), see `bhx_prep.io.archives`.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bhx_model.errors import ConfigError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest.bids_files import is_folder
from bhx_prep.ingest.rows import Row, exclude, new_row, safe_label
from bhx_prep.io import bids_names

#: Module of this folder that knows a layout.
MODULES: Final[dict[str, str]] = {
    "ukb": "ukb",
    "abcd": "abcd",
    "hcpya": "hcp",
    "hcpa": "hcp",
    "adni": "adni",
    "ppmi": "ppmi",
    "abide1": "abide",
    "abide2": "abide",
    "adhd200": "adhd200",
}

#: Paths below the root that hold a subject's scans: folders, archives or files.
Places = Sequence[str]


@dataclass(frozen=True)
class Listing:
    """How the scans of one kind of input are found.

    Attributes
    ----------
    subjects : callable
        Given the root, the places of each subject by its label. It may list folders and nothing more.
    rows : callable
        Given the fields that all rows of a subject share, the root, the subject's places, the cohort's section and the
        voxel size (mm) of the model's T1 grid: its rows, one per T1w image and BOLD run.
    expects : str
        What stands in the root, for the sentence where it does not.
    """

    subjects: Callable[[Path], Mapping[str, Places]]
    rows: Callable[[Row, Path, Places, CohortSection, float], Iterator[Row]]
    expects: str


def _as_it_is(spelt: str) -> str:
    return spelt.removeprefix("sub-")


@dataclass(frozen=True)
class Layout:
    """What a data set does differently.

    Attributes
    ----------
    listings : mapping of str to Listing
        By `input`.
    label : callable
        Label of a subject (without ``sub-``) whose id is spelt as in the data set's tables.
    is_listed : callable
        Whether the listings are for what a root holds, where a data set comes in several layouts.
    unconverted : callable
        Asked of a root without folders ``sub-<label>`` that is listed as BIDS: what it holds instead and what to do
        about it, or None.
    """

    listings: Mapping[str, Listing] = field(default_factory=dict)
    label: Callable[[str], str] = _as_it_is
    is_listed: Callable[[Path], bool] = lambda _root: True
    unconverted: Callable[[Path], str | None] = lambda _root: None


def load(name: str) -> Layout:
    """The layout of that name.

    Raises
    ------
    ConfigError
        If no module knows it.
    """
    if name not in MODULES:
        raise ConfigError(f"layout {name!r} cannot be read yet; there are: {', '.join(MODULES)}")
    return importlib.import_module(f"bhx_prep.ingest.{MODULES[name]}").LAYOUTS[name]


def listing_of(cohort: CohortSection) -> Listing | None:
    """How a cohort's scans are found, where that is not the general way of its `input`.

    Raises
    ------
    ConfigError
        If its root holds the data set as its archive gives it, which has to be converted first.
    """
    if cohort.layout is None:
        return None
    layout, root = load(cohort.layout), cohort.root.absolute()
    listing = layout.listings.get(cohort.input)
    if listing is not None and layout.is_listed(root):
        return listing
    if first_folder(root, re.compile("sub-.*")) is None and (reason := layout.unconverted(root)):
        raise ConfigError(f"{root}: {reason}")
    return None


def first_folder(root: Path, pattern: re.Pattern[str]) -> str | None:
    """Name of one of the folders in a root whose name fits, None where there is none."""
    if not root.is_dir():
        return None
    with os.scandir(root) as entries:
        return next((e.name for e in entries if pattern.fullmatch(e.name) and is_folder(e)), None)


def places_and_unknown(
    listing: Listing, start: Row, root: Path, cohort: CohortSection
) -> tuple[list[tuple[str, Places]], list[Row]]:
    """Places of the subjects to list, and rows of subjects that the cohort's section names and that have none.

    Raises
    ------
    ConfigError
        If the section has a key that such a listing knows nothing of.
    """
    if cohort.prefer:
        name = start["cohort"]
        msg = f"cohorts.{name}.prefer: does nothing with `layout: {cohort.layout}`: use `select` or `exclude`"
        raise ConfigError(msg)
    found = dict(listing.subjects(root))
    if cohort.subjects is None:
        return sorted(found.items()), []
    rows = []
    for label in sorted(set(cohort.subjects) - found.keys()):
        row = new_row({**start, "subject": safe_label(label)}, "bold", {})
        exclude(row, f"nothing of this subject in {root}: expected {listing.expects}")
        rows.append(row)
    return sorted((label, found[label]) for label in found.keys() & set(cohort.subjects)), rows


def rows_of(
    start: Row, root: Path, cohort: CohortSection, t1w_mm: float, subjects: Sequence[tuple[str, Places]]
) -> list[Row]:
    """Rows of some subjects, as `places_and_unknown` returns them; in a process of its own for a large cohort."""
    listing = listing_of(cohort)
    assert listing is not None, "asked for by `index.build` where there is one"
    rows: list[Row] = []
    for label, places in subjects:
        rows += listing.rows({**start, "subject": label}, root, places, cohort, t1w_mm)
    for row in rows:
        if row["modality"] == "bold" and row["status"] == "ok":
            _select(row, cohort)
    return rows


def _select(row: Row, cohort: CohortSection) -> None:
    """Exclude a run whose entities, as in its sample key, do not match `select`."""
    own = bids_names.unpadded(bids_names.parse(row["key"]))
    for entity, values in cohort.select.items():
        if own.get(entity, "none") not in {bids_names.unpadded({entity: value})[entity] for value in values}:
            asked = " or ".join(
                f"{entity}-{value}" if value != "none" else f"no {entity}-" for value in values
            )
            exclude(row, f"left out by `select`, which asks for {asked}")
