"""Table of scores that neither site nor motion explains: within sites, and within subjects of similar motion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bhx_model.evaluation import intervals, subgroups
from bhx_model.evaluation.intervals import Interval, Run
from bhx_model.evaluation.metrics import METRICS
from bhx_prep.report.tables.estimates import of_interval
from bhx_prep.report.tables.scores import Score, largest_overlap
from bhx_prep.report.tables.table import COMPUTED, Entry, Origin, RowKey

#: What is scored, by kind of endpoint: other metrics follow the sizes of classes, which differ between subsets.
SCORED = {
    "binary": ("balanced_accuracy", "auroc"),
    "multiclass": ("balanced_accuracy", "auroc"),
    "regression": ("mae", "pearson_r"),
}
Scorer = Callable[[Sequence[Run], str], Interval]


def subgroup_entries(
    rows: Mapping[RowKey, Sequence[Score]],
    kind: str,
    covariates: Mapping[str, Mapping[str, Any]],
) -> list[Entry]:
    """Entries of every row within sites and among subjects who moved alike, as far as sites and motion are known.

    Parameters
    ----------
    rows : mapping
        Scores of each row, by split.
    kind : str
        Of the endpoint.
    covariates : mapping
        ``cohort/subject`` to its row of ``covariates.parquet``, of which ``site`` and ``mean_fd_mm`` are read.
    """
    label = {
        person: truth
        for of in rows.values()
        for score in of
        for person, truth in zip(
            score.predictions.people.tolist(), score.predictions.truth.tolist(), strict=True
        )
    }
    known = {person: row for person, row in covariates.items() if person in label}
    entries, metrics = [], SCORED[kind]
    site = {person: str(row["site"]) for person, row in known.items() if row.get("site") is not None}
    if len(set(site.values())) > 1:
        n = f"{len(set(site.values()))} sites"
        entries += _entries(
            "within sites", rows, metrics, n, lambda runs, metric: subgroups.within(runs, site, metric)
        )
    motion = {person: row["mean_fd_mm"] for person, row in known.items() if row.get("mean_fd_mm") is not None}
    if kind == "binary" and motion:
        matched = subgroups.motion_matched({p: int(label[p]) for p in motion}, motion)
        n = f"among {len(matched)} matched"
        entries += _entries(
            "alike motion", rows, metrics, n, lambda runs, metric: subgroups.of_subset(runs, matched, metric)
        )
    elif len(set(motion.values())) > 2:
        third = subgroups.motion_thirds(motion)
        entries += _entries(
            "alike motion",
            rows,
            metrics,
            "in thirds",
            lambda runs, metric: subgroups.within(runs, third, metric),
        )
    return entries


def _entries(
    origin: Origin, rows: Mapping[RowKey, Sequence[Score]], metrics: Sequence[str], n: str, scorer: Scorer
) -> list[Entry]:
    entries = []
    for row, scores in rows.items():
        runs = [intervals.run_of(score.predictions) for score in scores]
        for metric in metrics:
            if row.method in COMPUTED and not METRICS[metric].of_constants:
                continue
            of = of_interval(scorer(runs, metric), metric)
            entry = Entry(
                **row._replace(origin=origin)._asdict(),
                metric=metric,
                unit=METRICS[metric].unit,
                mean=of.mean,
                sd=None,
                ci_low=of.low,
                ci_high=of.high,
                p=None,
                n_seeds=len(scores),
                n_test=n,
                source=row.origin,
                trust="",
                note=of.note,
                printed="",
                overlap="" if row.method in COMPUTED else largest_overlap(scores),
            )
            entries.append(entry)
    return entries
