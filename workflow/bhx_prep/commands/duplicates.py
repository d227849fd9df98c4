"""``bhx index --duplicates``: what is in a study twice: folders, subjects, and series. Nothing is excluded for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pyarrow as pa

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.features import duplicates, series_files

#: Pairs of runs that are printed of two cohorts.
_MOST = 20


@dataclass(frozen=True)
class SameSeries:
    """Runs of a study that hold the same series.

    Attributes
    ----------
    pairs : list of SamePair
        Within cohorts and across them; a key begins with its cohort's name.
    without_features : list of str
        Cohorts with no features yet: nothing is known of them.
    unreadable : list of str
        A sentence for each cohort whose features cannot be used.
    """

    pairs: list[duplicates.SamePair]
    without_features: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def same_series(results: Path, cohorts: list[str]) -> SameSeries:
    """Find runs with the same series among the features that are there.

    Parameters
    ----------
    results : Path
        Folder of all results.
    cohorts : list of str
        Names.
    """
    found, without, unreadable = [], [], []
    for name in cohorts:
        files = sorted((results / name / "features").glob(f"batch-*/{series_files.FILE}"))
        if not files:
            without.append(name)
            continue
        try:
            found.append(series_files.list_runs(files))
        except DataError as error:
            unreadable.append(f"{name}: {error}")
    return SameSeries(duplicates.find_same(found), without, unreadable)


def same_folders(cohorts: Mapping[str, CohortSection]) -> list[tuple[str, str, Path]]:
    """Pairs of cohorts of which one's folder is the other's or inside it, links followed; and the inner folder."""
    roots = {name: cohort.root.expanduser().resolve() for name, cohort in cohorts.items()}
    pairs = []
    for one, other in combinations(cohorts, 2):
        if roots[one].is_relative_to(roots[other]) or roots[other].is_relative_to(roots[one]):
            pairs.append((one, other, max(roots[one], roots[other], key=lambda root: len(root.parts))))
    return pairs


def shared_subjects(tables: Mapping[str, pa.Table]) -> list[tuple[str, str, list[str]]]:
    """Pairs of cohorts, and the labels of subjects that both have.

    Parameters
    ----------
    tables : mapping
        Cohort to its index.
    """
    labels = {name: set(table["subject"].to_pylist()) for name, table in tables.items()}
    pairs = [(one, other, sorted(labels[one] & labels[other])) for one, other in combinations(labels, 2)]
    return [(one, other, both) for one, other, both in pairs if both]


def lines(
    results: Path, cohorts: Mapping[str, CohortSection], tables: Mapping[str, pa.Table]
) -> Iterator[str]:
    """What is in a study twice, for people to read.

    Parameters
    ----------
    results : Path
        Folder of all results.
    cohorts : mapping
        Sections of the configuration.
    tables : mapping
        Indices of the cohorts that have one.
    """
    yield "duplicates:"
    folders = same_folders(cohorts)
    for one, other, folder in folders:
        yield f"  one folder under two names: {one} and {other} both read {folder}"
    shared = shared_subjects(tables)
    for one, other, both in shared:
        labels = ", ".join(f"sub-{label}" for label in both[:3]) + (", .." if len(both) > 3 else "")
        yield f"  subjects in two cohorts: {one} and {other} have {_count(len(both), 'label')} in common ({labels})"
    same = same_series(results, list(cohorts))
    for pair in same.pairs[:_MOST]:
        shifted = f", shifted by {abs(pair.lag)}" if pair.lag else ""
        yield f"  the same series: {pair.first} = {pair.second} (r {pair.r:.4f}, {pair.n_frames} frames{shifted})"
    if len(same.pairs) > _MOST:
        yield f"  the same series: and {_count(len(same.pairs) - _MOST, 'further pair')} of runs"
    if not (folders or shared or same.pairs):
        yield "  none found"
    for reason in same.unreadable:
        yield f"  not compared: {reason}"
    if same.without_features:
        names = ", ".join(same.without_features)
        yield f"  not compared yet, since there are no features: {names} (`snakemake features`)"


def _count(n: int, thing: str) -> str:
    return f"1 {thing}" if n == 1 else f"{n:,} {thing}s"
