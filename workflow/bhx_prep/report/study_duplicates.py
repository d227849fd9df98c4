"""Duplicates of a study in the report, without names; `bhx index --duplicates` names them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pyarrow as pa

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.config import Config
from bhx_prep.features import duplicates, series_files
from bhx_prep.report.collect import read_table


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
    """Find runs with the same series among the existing features.

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
    roots = {name: cohort.root.resolve() for name, cohort in cohorts.items()}
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


@dataclass(frozen=True)
class Duplicates:
    """Duplicates of one kind in one cohort, or in two: how many, and a number that says how alike they are."""

    cohorts: str
    what: str
    count: int
    detail: str = ""


def find(config: Config, results: Path) -> list[Duplicates]:
    """List duplicates; cohorts without features are not compared by their series.

    Raises
    ------
    DataError
        If a file is there and cannot be read.
    """
    found = [
        Duplicates(f"{one}, {other}", "one folder under two names", 1)
        for one, other, _ in same_folders(config.cohorts)
    ]
    indices = {name: results / name / "index.parquet" for name in config.cohorts}
    tables = {n: read_table(path, columns=["subject"]) for n, path in indices.items() if path.exists()}
    for one, other, labels in shared_subjects(tables):
        found.append(Duplicates(f"{one}, {other}", "subject labels in two cohorts", len(labels)))
    pairs = defaultdict(list)
    for pair in same_series(results, list(config.cohorts)).pairs:
        of = dict.fromkeys(key.partition("_")[0] for key in (pair.first, pair.second))
        what = "with the same series" if pair.is_equal else "of one scan, denoised in two ways"
        pairs[", ".join(of), f"pairs of runs {what}"].append(pair.r)
    for (cohorts, what), r in pairs.items():
        found.append(Duplicates(cohorts, what, len(r), f"r {min(r):.4f} or more"))
    return found
