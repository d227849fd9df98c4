"""What a study has twice, without names of subjects: folders, labels and series; `bhx index --duplicates` names them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from bhx_prep.commands import duplicates
from bhx_prep.config.config import Config
from bhx_prep.report.collect import read_table


@dataclass(frozen=True)
class Twice:
    """Something that one cohort, or two of them, have twice: how often, and a number that says how alike it is."""

    cohorts: str
    what: str
    count: int
    detail: str = ""


def find(config: Config, results: Path) -> list[Twice]:
    """List what is there twice; cohorts without features are not compared by their series.

    Raises
    ------
    DataError
        If a file is there and cannot be read.
    """
    found = [
        Twice(f"{one}, {other}", "one folder under two names", 1)
        for one, other, _ in duplicates.same_folders(config.cohorts)
    ]
    indices = {name: results / name / "index.parquet" for name in config.cohorts}
    tables = {n: read_table(path, columns=["subject"]) for n, path in indices.items() if path.exists()}
    for one, other, labels in duplicates.shared_subjects(tables):
        found.append(Twice(f"{one}, {other}", "subject labels in two cohorts", len(labels)))
    pairs = defaultdict(list)
    for pair in duplicates.same_series(results, list(config.cohorts)).pairs:
        of = dict.fromkeys(key.partition("_")[0] for key in (pair.first, pair.second))
        pairs[", ".join(of)].append(pair.r)
    for cohorts, r in pairs.items():
        found.append(Twice(cohorts, "pairs of runs with the same series", len(r), f"r {min(r):.4f} or more"))
    return found
