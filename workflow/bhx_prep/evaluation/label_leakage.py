"""Detect labels that are no measurement, or that site or another column determines."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

import numpy as np

from bhx_model.evaluation.influence import is_constant
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.ingest.cell_values import number_of, numbers_of, years_of

#: So many values, or fewer, of a regression are likely codes of classes.
MOST_CODES: Final = 4
_YEAR, _MONTH, _DAY = r"(19|20)\d\d", r"(0[1-9]|1[0-2])", r"(0[1-9]|[12]\d|3[01])"
#: Dates as numbers, which begin with no zero: year, month, day; day, month, year; month, day, year.
_DATES = [
    re.compile(pattern)
    for pattern in (
        f"{_YEAR}{_MONTH}{_DAY}",
        f"([1-9]|[12]\\d|3[01]){_MONTH}{_YEAR}",
        f"([1-9]|1[0-2]){_DAY}{_YEAR}",
    )
]
#: The years 1990 to 2040 as days since 1900, and as seconds since 1970.
_COUNTED: Final = ((32_874, 51_136), (631_152_000, 2_208_988_800))
#: Nothing is said of fewer people.
FEWEST: Final = 10
#: Fewer people per level, in the mean, may all be of one class by chance, or are a family.
PER_LEVEL: Final = 5
#: Covariates that are numbers; others are levels.
NUMBERS: Final = frozenset({"age", "motion", "scan_year"})
#: Share of the people whose class a level tells from which it is said, and share of the commonest class up to which.
MOST: Final = 0.95
COMMONEST: Final = 0.8
#: A label whose correlation with a covariate is as high is that covariate in another unit.
SAME: Final = 0.999


def codes(endpoint: EndpointSection, labels: Mapping[str, float]) -> str:
    """Say that the values of a regression look like codes of classes; empty if they do not."""
    there = sorted(set(labels.values()))
    if endpoint.kind != "regression" or len(labels) < FEWEST or not 1 < len(there) <= MOST_CODES:
        return ""
    if not all(float(value).is_integer() for value in there):
        return ""
    kind = "binary" if len(there) == 2 else "multiclass"
    values = ", ".join(f"{value:g}" for value in there)
    return f"regression of {len(labels)} values that are all {values}: if these are codes, use `kind: {kind}`"


def follows(
    endpoint: EndpointSection, labels: Mapping[str, float], covariate: str, cells: Mapping[str, str]
) -> bool:
    """Whether a covariate tells the labels of all people of whom both are known.

    Parameters
    ----------
    endpoint : EndpointSection
    labels : mapping
        Subject to the number of its class, or to its value.
    covariate : str
        Of a cohort's `columns`.
    cells : mapping
        Subject to its cell.
    """
    if covariate not in NUMBERS:
        people = _of_levels(labels, cells)
        return bool(people) and all(len(values) == 1 for values in people.values())
    known = years_of(cells) if covariate == "scan_year" else numbers_of(cells, covariate)[0]
    both = sorted(labels.keys() & known.keys())
    label = np.array([labels[subject] for subject in both], np.float64)
    number = np.array([known[subject] for subject in both], np.float64)
    if len(both) < FEWEST or is_constant(label) or is_constant(number):
        return False
    if endpoint.kind == "regression":
        return abs(float(np.corrcoef(label, number)[0, 1])) > SAME
    ranges = sorted((number[label == c].min(), number[label == c].max()) for c in np.unique(label))
    return all(high < low for (_, high), (low, _) in itertools.pairwise(ranges))


def nearly_follows(endpoint: EndpointSection, labels: Mapping[str, float], cells: Mapping[str, str]) -> str:
    """Say that levels (sites) tell the classes of nearly all people; empty if they do not, or of values."""
    people = {} if endpoint.kind == "regression" else _of_levels(labels, cells)
    n = sum(values.total() for values in people.values())
    told = sum(max(values.values()) for values in people.values())
    commonest = max(sum(people.values(), Counter[float]()).values(), default=0)
    if told == n or told < MOST * n or commonest > COMMONEST * n:
        return ""
    return f"of {told} of {n} people"


def _of_levels(labels: Mapping[str, float], cells: Mapping[str, str]) -> dict[str, Counter[float]]:
    """How many people of each level have which label; empty where levels, labels or people are too few to say."""
    found: dict[str, Counter[float]] = {}
    for subject in labels.keys() & cells.keys():
        found.setdefault(cells[subject], Counter())[labels[subject]] += 1
    n = sum(values.total() for values in found.values())
    one_label = len({label for values in found.values() for label in values}) < 2
    return {} if n < FEWEST or one_label or len(found) * PER_LEVEL > n else found


def dates(endpoint: EndpointSection, labels: Mapping[str, float]) -> str:
    """Say that the values of a regression look like dates written as numbers, 20190131 or 43496; empty if they do not."""
    if endpoint.kind != "regression" or len(labels) < FEWEST:
        return ""
    there = set(labels.values())
    if not all(float(value).is_integer() for value in there):
        return ""
    counted = any(all(first <= value <= last for value in there) for first, last in _COUNTED)
    if not counted and not any(all(date.fullmatch(f"{value:.0f}") for value in there) for date in _DATES):
        return ""
    return f"values such as {min(there):.0f} look like dates: name what is to be predicted"


def counts_subjects(endpoint: EndpointSection, labels: Mapping[str, float]) -> bool:
    """Whether the values of a regression are the numbers in the subjects' labels."""
    if endpoint.kind != "regression" or len(labels) < FEWEST:
        return False
    return all(value == number_of(re.sub(r"\D", "", subject)) for subject, value in labels.items())


def other_scale(own: Mapping[str, float], other: Mapping[str, float]) -> str:
    """Say that values of a cohort that is tested are not of the scale that is trained on; empty if they may be."""
    if min(len(own), len(other)) < FEWEST:
        return ""
    low, high, middle = min(own.values()), max(own.values()), float(np.median(list(other.values())))
    if low <= middle <= high:
        return ""
    return f"its median is {middle:g}, trained on are {low:g} to {high:g}: is it the same scale?"
