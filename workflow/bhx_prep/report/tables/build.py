"""The table of an endpoint, computed from the scores of all its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from bhx_model.evaluation.metrics import METRICS, metrics_of
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.report.tables import people, reference_rows
from bhx_prep.report.tables.estimates import (
    Estimate,
    all_positive,
    constant,
    difference,
    estimates,
    with_holm,
)
from bhx_prep.report.tables.scores import Score, check, largest_overlap
from bhx_prep.report.tables.subgroups import subgroup_entries
from bhx_prep.report.tables.table import ABLATION, COMPUTED, LABELS, THIS_RUN, Entry, RowKey, Table

#: Row that the others are compared with.
CONNECTIVITY = RowKey(THIS_RUN, "", "fc")


def build(
    name: str,
    endpoint: EndpointSection,
    scores: Sequence[Score],
    planted: str = "",
    covariates: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Table:
    """Gather the table of an endpoint.

    Parameters
    ----------
    name : str
        Of the endpoint.
    endpoint : EndpointSection
        Its configuration.
    scores : Sequence[Score]
        One per row and seed; experiments in the order of the configuration.
    planted : str
        What is planted in synthetic subjects, where it is known.
    covariates : mapping
        ``cohort/subject`` to site and motion, where they are known.

    Raises
    ------
    DataError
        If there are none, or if they do not belong into one table (`scores.check`).
    """
    check(name, endpoint, scores)
    metrics = _metrics(endpoint)
    synthetic = any(score["synthetic"] for score in scores)
    paper = endpoint.paper if endpoint.paper and (endpoint.paper_beside_synthetic or not synthetic) else ""
    entries: list[Entry] = []
    if paper:
        entries += reference_rows.of_the_paper(paper) + reference_rows.of_others(paper, endpoint.kind)
    rows = rows_of(scores)
    for row, of_row in rows.items():
        found = estimates(of_row, metrics)
        for metric in metrics:
            # the correlation with a constant does not exist, whatever number stands for it
            exists = row.method not in COMPUTED or METRICS[metric].of_constants
            of = found[metric] if exists else Estimate(None, None, None, None, "undefined")
            entries.append(_entry(row, metric, of, of_row))
    entries += _differences(rows, metrics)
    entries += _ablations(rows, list(dict.fromkeys(score.experiment for score in scores)), metrics)
    entries += subgroup_entries(rows, endpoint.kind, covariates)
    return Table(
        endpoint=name,
        cohort=", ".join(endpoint.cohorts),
        kind=endpoint.kind,
        task=_task(endpoint),
        benchmark=endpoint.paper or "",
        paper=paper,
        synthetic=synthetic,
        planted=planted,
        chosen_on="test" if scores[0].chosen_on == "test" else "val",
        who=people.who(endpoint, scores),
        people_sha256=people.sha256(scores),
        splits=people.splits(endpoint, scores),
        entries=tuple(entries),
    )


def _metrics(endpoint: EndpointSection) -> tuple[str, ...]:
    """Metrics of an endpoint, those of its protocol first."""
    first = endpoint.splits.rules.metrics
    return tuple(
        sorted(metrics_of(endpoint.kind), key=lambda m: first.index(m) if m in first else len(first))
    )


def rows_of(scores: Sequence[Score]) -> dict[RowKey, list[Score]]:
    """Scores of each of this run's rows by seed, the rows in their order: by method, then by experiment; constant last."""
    ordered = sorted(scores, key=lambda s: s["seed"])
    rows: dict[RowKey, list[Score]] = {}
    for method in LABELS:
        for experiment in sorted({s.experiment for s in scores if s["method"] == method}):
            of = [s for s in ordered if s["method"] == method and s.experiment == experiment]
            rows[RowKey(THIS_RUN, experiment, method)] = of
    per_seed = {s["seed"]: s for s in sorted(ordered, key=lambda s: s.name, reverse=True)}
    of_split = [per_seed[seed] for seed in sorted(per_seed)]
    if scores[0]["kind"] == "binary":
        rows[RowKey(THIS_RUN, "", "all_positive")] = [all_positive(score) for score in of_split]
    rows[RowKey(THIS_RUN, "", "constant")] = [constant(score) for score in of_split]
    return rows


def _task(endpoint: EndpointSection) -> str:
    if endpoint.kind == "regression":
        return f"regression of {endpoint.column}"
    names = [c.name for c in endpoint.classes]
    f1 = f"F1 of {names[1]}" if endpoint.kind == "binary" else "F1 weighted by class size"
    return f"{' versus '.join(names)}; {f1}"


def _entry(row: RowKey, metric: str, of: Estimate, scores: Sequence[Score]) -> Entry:
    tested = sorted({int(s["n_test"]) for s in scores})
    return Entry(
        **row._asdict(),
        metric=metric,
        unit=METRICS[metric].unit,
        mean=of.mean,
        sd=of.sd,
        ci_low=of.low,
        ci_high=of.high,
        p=of.p,
        n_seeds=len(scores),
        n_test=str(tested[0]) if len(tested) == 1 else f"{tested[0]} to {tested[-1]}",
        source=THIS_RUN,
        trust="",
        note=of.note,
        printed="",
        overlap="" if row.method in COMPUTED else largest_overlap(scores),
    )


def _differences(rows: Mapping[RowKey, Sequence[Score]], metrics: Sequence[str]) -> list[Entry]:
    """Differences of all rows to connectivity on common splits; none without a connectivity row.

    Constant predictions are not compared: every comparison makes Holm's correction stronger for the others.
    """
    fc = {score["seed"]: score for score in rows.get(CONNECTIVITY, ())}
    compared = {
        row: of
        for row, of in rows.items()
        if row != CONNECTIVITY and row.method not in COMPUTED and all(score["seed"] in fc for score in of)
    }
    if not fc:
        return []
    entries: dict[tuple[RowKey, str], Entry] = {}
    for metric in metrics:
        found = {
            row: difference(of, [fc[score["seed"]] for score in of], metric) for row, of in compared.items()
        }
        for row, of in with_holm(found).items():
            key = row._replace(origin="difference")
            entries[row, metric] = _entry(key, metric, of, compared[row])
    return [entries[row, metric] for row in compared for metric in metrics if (row, metric) in entries]


def _ablations(
    rows: Mapping[RowKey, Sequence[Score]], experiments: Sequence[str], metrics: Sequence[str]
) -> list[Entry]:
    """Differences of a method's rows to that of the first experiment that has it, on the splits that both have."""
    pairs: dict[RowKey, tuple[str, list[Score], list[Score]]] = {}
    for method in dict.fromkeys(row.method for row in rows if row.experiment):
        base, *others = [name for name in experiments if RowKey(THIS_RUN, name, method) in rows]
        of_base = {score["seed"]: score for score in rows[RowKey(THIS_RUN, base, method)]}
        for name in others:
            both = [s for s in rows[RowKey(THIS_RUN, name, method)] if s["seed"] in of_base]
            if both:
                key = RowKey(ABLATION, name, method)
                pairs[key] = (base, both, [of_base[score["seed"]] for score in both])
    entries: dict[tuple[RowKey, str], Entry] = {}
    for metric in metrics:
        found = {key: difference(of, against, metric) for key, (_, of, against) in pairs.items()}
        for key, of in with_holm(found).items():
            base, scores, _ = pairs[key]
            entries[key, metric] = dataclasses.replace(_entry(key, metric, of, scores), source=base)
    return [entries[key, metric] for key in pairs for metric in metrics]
