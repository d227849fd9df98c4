"""Detect labels that are no measurement, or that site or another column determines."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Final

import numpy as np

from bhx_model.evaluation.influence import is_constant
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.ingest.cell_values import numbers_of

#: So many values, or fewer, of a regression are likely codes of classes.
MOST_CODES: Final = 4
#: Nothing is said of fewer people.
FEWEST: Final = 10
#: Fewer people per level, in the mean, may all be of one class by chance, or are a family.
PER_LEVEL: Final = 5
#: Covariates that are numbers; others are levels.
NUMBERS: Final = frozenset({"age", "motion", "scan_year"})
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
    known: Mapping[str, float | str] = numbers_of(cells, covariate)[0] if covariate in NUMBERS else cells
    both = sorted(labels.keys() & known.keys())
    label = np.array([labels[subject] for subject in both], np.float64)
    if len(both) < FEWEST or is_constant(label):
        return False
    if covariate not in NUMBERS:
        of_level: dict[float | str, set[float]] = {}
        for subject in both:
            of_level.setdefault(known[subject], set()).add(labels[subject])
        several = len(of_level) * PER_LEVEL <= len(both)
        return several and all(len(values) == 1 for values in of_level.values())
    number = np.array([known[subject] for subject in both], np.float64)
    if is_constant(number):
        return False
    if endpoint.kind == "regression":
        return abs(float(np.corrcoef(label, number)[0, 1])) > SAME
    ranges = sorted((number[label == c].min(), number[label == c].max()) for c in np.unique(label))
    return all(high < low for (_, high), (low, _) in itertools.pairwise(ranges))


def other_scale(own: Mapping[str, float], other: Mapping[str, float]) -> str:
    """Say that values of a cohort that is tested are not of the scale that is trained on; empty if they may be."""
    if min(len(own), len(other)) < FEWEST:
        return ""
    low, high, middle = min(own.values()), max(own.values()), float(np.median(list(other.values())))
    if low <= middle <= high:
        return ""
    return f"its median is {middle:g}, trained on are {low:g} to {high:g}: is it the same scale?"
