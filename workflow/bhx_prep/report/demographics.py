"""Age, sex and site of a cohort's subjects for the report, as aggregates without small groups.

Of measured cohorts a count below `FEWEST` is joined with others until it is not, and what differs by fewer subjects from
what is shown is not shown; of simulated ones everything is.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import participants
from bhx_prep.ingest.cell_values import number_of

logger = logging.getLogger(__name__)

#: Least subjects that a number of a measured cohort is about; a median with its quartiles takes twice as many.
FEWEST: Final = 5
#: Sites that are named, the largest first.
MOST_NAMED: Final = 12
#: What tables call a column that the cohort's section does not name, without regard to case.
NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "age": ("age", "age_at_scan", "age_years", "age_in_years"),
    "sex": ("sex", "gender"),
    "site": ("site", "site_id", "center", "centre", "scanner"),
}


@dataclass(frozen=True)
class Group:
    """Some subjects of a cohort as the page shows them; a text is empty where nothing is known."""

    which: str
    subjects: int
    age: str
    sex: str
    site: str


def of_cohort(
    section: CohortSection, found: Collection[str], included: Collection[str], *, synthetic: bool
) -> list[Group]:
    """Those found and those included; none where the table of phenotypes says nothing of them.

    Parameters
    ----------
    section : CohortSection
    found, included : collection of str
        Labels without ``sub-``.
    synthetic : bool
        Whether the subjects are simulated: nobody has to be protected then.
    """
    known = _columns(section, found)
    if not any(known.values()):
        return []
    fewest = 1 if synthetic else FEWEST
    groups = [_group("found", known, found, fewest)]
    if 0 < len(found) - len(included) < fewest:
        return [*groups, Group("included", len(included), *[f"fewer than {fewest} less: not shown"] * 3)]
    return [*groups, _group("included", known, included, fewest)]


def _columns(section: CohortSection, subjects: Collection[str]) -> dict[str, dict[str, str]]:
    """Known values of age, sex and site, as cells of the subjects."""
    asked = {what: (section.columns[what],) if what in section.columns else _spellings(names)
             for what, names in NAMES.items()}  # fmt: skip
    if not section.phenotypes.is_file():
        return {}
    try:
        every = [name for names in asked.values() for name in names]
        table = participants.read(section.phenotypes, section.table, every).match(subjects).of(subjects)
        there = {what: next((n for n in names if n in table.names), None) for what, names in asked.items()}
        return {what: table.column(name).known for what, name in there.items() if name is not None}
    except DataError as error:  # what reads labels says so; the page is about more than this
        logger.warning("no age, sex and site: %s", error)
        return {}


def _spellings(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(spelt for name in names for spelt in (name, name.upper(), name.capitalize()))


def _group(
    which: str, known: Mapping[str, Mapping[str, str]], subjects: Collection[str], fewest: int
) -> Group:
    cells = {what: [of[s] for s in sorted(subjects) if s in of] for what, of in known.items()}
    ages = [age for age in map(number_of, cells.get("age", ())) if age is not None]
    return Group(
        which,
        len(subjects),
        _ages(ages, len(subjects), fewest),
        *(_levels(cells.get(what, ()), len(subjects), fewest) for what in ("sex", "site")),
    )


def _ages(ages: Collection[float], of: int, fewest: int) -> str:
    """Median and quartiles."""
    if not ages:
        return ""
    if len(ages) < 2 * fewest or 0 < of - len(ages) < fewest:
        return "not shown" if fewest > 1 else f"{np.median([*ages]):.1f}"
    low, median, high = np.percentile([*ages], [25, 50, 75])
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


def _levels(cells: Collection[str], of: int, fewest: int) -> str:
    """How many have each value, and for how many none is known."""
    if not cells:
        return ""
    counts = Counter(str(cell) for cell in cells)
    if of > len(cells):
        counts["unknown"] += of - len(cells)
    named, joined = protected(counts, fewest)
    named, more = named[:MOST_NAMED], named[MOST_NAMED:]
    shown = [f"{name} {n:,}" for name, n in named]
    if more:
        shown.append(f"{len(more)} more {sum(n for _, n in more):,}")
    if joined:
        n = sum(joined.values())
        shown.append(f"{' or '.join(sorted(joined)) if len(joined) <= 3 else f'{len(joined)} others'} {n:,}")
    return ", ".join(shown)


def protected(counts: Mapping[str, int], fewest: int) -> tuple[list[tuple[str, int]], dict[str, int]]:
    """Counts that can be shown, the largest first, and those that only their sum is shown of.

    A small count is joined with the next larger ones until their sum is not small: left alone, it would follow from the
    total and the others. Where everything together is small, nothing but its sum, the total, is shown.
    """
    named = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    joined = {name: n for name, n in named if n < fewest}
    named = [(name, n) for name, n in named if n >= fewest]
    while named and joined and (len(joined) == 1 or sum(joined.values()) < fewest):
        name, n = named.pop()
        joined[name] = n
    return named, joined
