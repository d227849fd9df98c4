"""Rows of ROI x time tables of public releases: which of several is read, and the repetition time of its site."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest.bids_files import matching
from bhx_prep.ingest.rows import Row, add_note, exclude, new_row
from bhx_prep.ingest.table_outline import read_outline
from bhx_prep.io.notes import Kind, quote
from bhx_prep.io.text_table import first_line


@dataclass(frozen=True)
class SiteTime:
    """Repetition time (s) of a site's raw scans; None if it is not known."""

    seconds: float | None
    site: str | None


def by_subject(root: Path, name: re.Pattern[str]) -> dict[str, list[str]]:
    """Tables below a root by subject, sorted, relative to the root.

    Parameters
    ----------
    root : Path
    name : pattern
        Of the files' names, with a group ``id``.

    Raises
    ------
    ConfigError
        If a folder may not be read.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for place in matching(root, "**"):
        if match := name.fullmatch(PurePosixPath(place).name):
            found[match["id"]].append(place)
    return dict(found)


def row(
    start: Row,
    root: Path,
    places: Sequence[str],
    cohort: CohortSection,
    named: Mapping[str, str],
    time: SiteTime,
    preferred: str | None = None,
) -> Row:
    """The row of one run.

    Parameters
    ----------
    start : dict
        Fields that all rows of the subject share.
    root : Path
    places : sequence of str
        Tables of the run, relative to the root; those that the cohort's `series` matches count.
    cohort : CohortSection
        Its `tr_s` takes the place of the site's.
    named : mapping of str to str
        BIDS entities of the run.
    time : SiteTime
    preferred : str, optional
        Pattern of the names that are taken where there are others beside them, with a note.
    """
    start = {**start, "kind": "table", "space": None}
    matching = [place for place in places if _matches(place, cohort.series)]
    if preferred is not None and len(matching) > 1:
        best = [place for place in matching if fnmatchcase(PurePosixPath(place).name, preferred)]
    else:
        best = matching
    found = new_row(start, "bold", named, root / (best or matching or places)[0])
    if not matching:
        exclude(found, f"no table of this subject matches {quote(cohort.series)}, the cohort's `series`")
        return found
    if len(best) != 1:
        several = best or matching
        some = " and ".join(quote(part) for part in _differing(*several[:2]))
        exclude(
            found, f"{len(several)} tables of one run ({some}): choose with `series`, e.g. '**/filt_global/*'"
        )
        return found
    if len(matching) > 1:
        other = next(place for place in matching if place not in best)
        detail = f"{PurePosixPath(best[0]).name}, not {PurePosixPath(other).name}; `series` chooses"
        add_note(found, Kind.CHOICE, detail)
    try:
        found["n_frames"] = read_outline(root / best[0]).n_frames
    except DataError as error:
        exclude(found, str(error))
    _fill_time(found, cohort, time)
    return found


def _differing(one: str, other: str) -> tuple[str, str]:
    """The parts of two paths in which they differ."""
    a, b = one.split("/"), other.split("/")
    while a and b and a[0] == b[0]:
        a, b = a[1:], b[1:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    return "/".join(a), "/".join(b)


def _matches(place: str, pattern: str) -> bool:
    """Whether a path matches `pattern`; ``**/`` matches any folders, or none."""
    if pattern.startswith("**/"):
        return fnmatchcase(f"/{place}", pattern[1:])
    return fnmatchcase(place, pattern)


def _fill_time(found: Row, cohort: CohortSection, time: SiteTime) -> None:
    site = f"site {time.site}" if time.site else "this file, whose name holds no site"
    if cohort.tr_s is not None:
        found["tr_s"] = cohort.tr_s
        if time.seconds is not None and abs(time.seconds - cohort.tr_s) > 0.005:
            add_note(
                found, Kind.TR, f"{cohort.tr_s:g} s of `tr_s`; raw scans of {site} have {time.seconds:g} s"
            )
    elif time.seconds is None:
        exclude(
            found, f"the repetition time of {site} is not known: state `tr_s`, in a cohort of that site alone"
        )
    else:
        found["tr_s"] = time.seconds
        add_note(found, Kind.TR, f"{time.seconds:g} s, as the raw scans of {site} have it")


def padded(spelt: str, digits: int) -> str:
    """A number as a label of so many digits: 0050002 of ``50002``, ``50002.0`` and ``sub-0050002``."""
    bare = re.sub(r"\.0+$", "", spelt.strip().removeprefix("sub-"))
    return bare.zfill(digits) if bare.isdecimal() else bare


def region_names(path: Path) -> list[str]:
    """Names of the regions in the first line of a table: ``#1``, ``#2``, .. or ``Mean_1``, .."""
    return re.findall(r"(?:#|Mean_)\d+", first_line(path))
