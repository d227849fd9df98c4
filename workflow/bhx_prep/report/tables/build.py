"""The table of an endpoint, computed from the scores of all its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bhx_model.evaluation.metrics import METRICS, metrics_of
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.report import published
from bhx_prep.report.tables import scores as read_scores
from bhx_prep.report.tables.interval import interval
from bhx_prep.report.tables.table import LABELS, THIS_RUN, Entry, RowKey, Table


def build(
    name: str, endpoint: EndpointSection, scores: Sequence[Mapping[str, Any]], planted: str = ""
) -> Table:
    """Gather the table of an endpoint.

    Parameters
    ----------
    name : str
        Of the endpoint.
    endpoint : EndpointSection
        Its configuration.
    scores : Sequence[Mapping]
        Contents of the ``metrics.json`` files, one per row and seed, fractions where percent is printed.
    planted : str
        What is planted in synthetic subjects, where it is known.

    Raises
    ------
    DataError
        If there are none, or if they do not belong into one table (`scores.check`).
    """
    read_scores.check(name, endpoint, scores)
    entries: list[Entry] = []
    if endpoint.paper:
        entries += _published(endpoint.paper)
    for row, of_row in _rows(scores).items():
        entries += [_entry(row, metric, of_row) for metric in metrics_of(endpoint.kind)]
    return Table(
        endpoint=name,
        cohort=endpoint.cohort,
        kind=endpoint.kind,
        task=_task(endpoint),
        paper=endpoint.paper or "",
        synthetic=any(s["synthetic"] for s in scores),
        planted=planted,
        chosen_on="test" if read_scores.chosen_on(scores[0]) == "test" else "val",
        entries=tuple(entries),
    )


def _rows(scores: Sequence[Mapping[str, Any]]) -> dict[RowKey, list[Mapping[str, Any]]]:
    """Scores of each of this run's rows by seed, the rows in their order: by method, then by experiment; floors last."""
    ordered = sorted(scores, key=lambda s: s["seed"])
    rows: dict[RowKey, list[Mapping[str, Any]]] = {}
    for method in LABELS:
        for experiment in sorted({s["experiment"] or "" for s in scores if s["method"] == method}):
            of = [s for s in ordered if s["method"] == method and (s["experiment"] or "") == experiment]
            rows[RowKey(THIS_RUN, experiment, method)] = of
    per_seed = {s["seed"]: {**s, "metrics": s["constant"]} for s in reversed(ordered)}
    rows[RowKey(THIS_RUN, "", "constant")] = [per_seed[seed] for seed in sorted(per_seed)]
    return rows


def _task(endpoint: EndpointSection) -> str:
    if endpoint.kind == "regression":
        return f"regression of {endpoint.column}"
    names = [c.name for c in endpoint.classes]
    f1 = f"F1 of {names[1]}" if endpoint.kind == "binary" else "F1 weighted by class size"
    return f"{' versus '.join(names)}; {f1}"


def _published(paper: str) -> list[Entry]:
    block = published.endpoint(paper)
    entries = []
    for row in block.rows:
        for metric in block.metrics:
            printed = row.values.get(metric, "")
            entries.append(
                Entry(
                    origin="published",
                    experiment="",
                    method=row.method,
                    metric=metric,
                    unit=METRICS[metric].unit,
                    mean=float(printed) if printed else None,
                    sd=None,
                    ci_low=None,
                    ci_high=None,
                    n_seeds=block.runs if printed else None,
                    n_test="not recovered",
                    source=row.source,
                    note="SD not recovered" if printed else row.note,
                    printed=printed,
                )
            )
    return entries


def _entry(row: RowKey, metric: str, scores: Sequence[Mapping[str, Any]]) -> Entry:
    known = METRICS[metric]
    # the correlation with a constant does not exist, whatever number stands for it
    undefined_here = row.method == "constant" and not known.of_constants
    raw = [None if undefined_here else s["metrics"].get(metric) for s in scores]
    values = [known.factor * v for v in raw if v is not None and math.isfinite(v)]
    share = max(s["n_test"] / (s["n_train"] + s["n_val"]) for s in scores)
    mean, sd, low, high = interval(values, share) if values else (None, None, None, None)
    if low is not None and high is not None:
        low, high = max(low, known.lowest), min(high, known.highest)
    undefined = len(raw) - len(values)
    note = ""
    if undefined == len(raw):
        note = "undefined"
    elif undefined:
        note = f"undefined in {undefined} of {len(raw)} seeds"
    elif len(values) == 1:
        note = "one seed: no SD"
    tested = sorted({int(s["n_test"]) for s in scores})
    return Entry(
        **row._asdict(),
        metric=metric,
        unit=METRICS[metric].unit,
        mean=mean,
        sd=sd,
        ci_low=low,
        ci_high=high,
        n_seeds=len(scores),
        n_test=str(tested[0]) if len(tested) == 1 else f"{tested[0]} to {tested[-1]}",
        source=THIS_RUN,
        note=note,
        printed="",
    )
