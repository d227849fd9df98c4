"""Scores that neither site nor motion explains: within sites, and within subjects of similar motion. Needs no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np

from bhx_model.evaluation.influence import INFLUENCES, Influence
from bhx_model.evaluation.intervals import Interval, Run, combined, interval

#: Pairs whose log motion differs by more than this share of its standard deviation are none.
CALIPER: Final = 0.2


def within(runs: Sequence[Run], group_of: Mapping[str, str], metric: str) -> Interval:
    """Mean over groups (sites) of a metric of their test people alone, weighted by their number, with its interval.

    People without a group, and groups in which the metric does not exist in a split, do not count there.

    Parameters
    ----------
    runs : sequence of Run
        One per split.
    group_of : mapping of str to str
        Group of a person.
    metric : str
        Of `METRICS`.
    """
    parts = [_of_groups(run, group_of, metric) for run in runs]
    there = [(run, found, n) for run, found, n in parts if run is not None]
    if not there:
        return Interval(None, None, None, len(runs), 0)
    kept, found, groups = zip(*there, strict=True)
    found = combined(kept, metric, found, groups)
    return dataclasses.replace(found, n_splits=len(runs))


def of_subset(runs: Sequence[Run], people: Collection[str], metric: str) -> Interval:
    """Mean over splits of a metric of the test people who are among `people`, with its interval."""
    kept = [take(run, np.isin(run.people, list(people))) for run in runs]
    there = [run for run in kept if len(run.people)]
    if not there:
        return Interval(None, None, None, len(runs), 0)
    return dataclasses.replace(interval(there, metric), n_splits=len(runs))


def take(run: Run, chosen: np.ndarray) -> Run:
    """A split with some of its test people: (m,) bool or numbers."""
    return dataclasses.replace(
        run,
        people=run.people[chosen],
        truth=run.truth[chosen],
        predicted=run.predicted[chosen],
        scores=run.scores[chosen],
        everybody=None,
    )


def motion_matched(class_of: Mapping[str, int], motion: Mapping[str, float]) -> set[str]:
    """People of two classes in pairs, one of each, that moved alike: as many and as like pairs as there are.

    Parameters
    ----------
    class_of : mapping of str to int
        0 or 1 of every person.
    motion : mapping of str to float
        Mean framewise displacement (mm); people of whom it is not known, or 0, are in no pair.
    """
    from scipy.optimize import linear_sum_assignment

    known = sorted(person for person in class_of if motion.get(person, 0.0) > 0)
    log = {person: math.log(motion[person]) for person in known}
    sides = [[person for person in known if class_of[person] == c] for c in (0, 1)]
    if not all(sides):
        return set()
    widest = CALIPER * float(np.std(list(log.values())))
    apart = np.abs(np.subtract.outer(*([log[person] for person in side] for side in sides)))
    rows, columns = linear_sum_assignment(np.where(apart <= widest, apart, 1e3))
    pairs = [(i, j) for i, j in zip(rows, columns, strict=True) if apart[i, j] <= widest]
    return {sides[0][i] for i, _ in pairs} | {sides[1][j] for _, j in pairs}


def motion_thirds(motion: Mapping[str, float]) -> dict[str, str]:
    """Which third of the people each is in by their motion: groups for `within` where there are no two classes to match."""
    people = sorted(motion, key=lambda person: (motion[person], person))
    return {
        person: name
        for name, part in zip(("low", "middle", "high"), np.array_split(np.array(people), 3), strict=True)
        for person in part.tolist()
    }


def _of_groups(run: Run, group_of: Mapping[str, str], metric: str) -> tuple[Run | None, Influence, int]:
    """The test people who count, the metric with their influences, and the number of groups."""
    groups = np.array([group_of.get(person, "") for person in run.people.tolist()])
    places, values, influences = [], [], []
    for group in np.unique(groups[groups != ""]):
        own = np.flatnonzero(groups == group)
        value, u = INFLUENCES[metric](run.truth[own], run.predicted[own], run.scores[own])
        if math.isfinite(value):
            places.append(own)
            values.append(value * len(own))
            influences.append(u)
    if not places:
        return None, (math.nan, np.zeros(0)), 0
    kept = np.concatenate(places)
    return take(run, kept), (sum(values) / len(kept), np.concatenate(influences)), len(places)
