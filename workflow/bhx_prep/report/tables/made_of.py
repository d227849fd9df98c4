"""Sources of a table's rows: ``<table>.json``, from which `bhx explain` traces a row back to its runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bhx_model.file_hash import file_sha256
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.report.tables.build import rows_of
from bhx_prep.report.tables.scores import Score
from bhx_prep.report.tables.table import RowKey, Table, row_name


def made_of(
    table: Table, endpoint: EndpointSection, scores: Sequence[Score], results: Path
) -> dict[str, Any]:
    """List the runs of every row of this run, with hashes of what they wrote.

    Parameters
    ----------
    table : Table
    endpoint : EndpointSection
        Its configuration.
    scores : Sequence[Score]
        What it was built from.
    results : Path
        Folder of the results: paths are below it.

    Returns
    -------
    dict
        The value of ``<table>.json``.
    """
    return {
        "table": table.name,
        "endpoint": table.endpoint,
        "settings": endpoint.model_dump(mode="json"),
        "who": table.who,
        "splits": table.splits,
        "people_sha256": table.people_sha256,
        "synthetic": table.synthetic,
        "rows": [_row(table, row, of, results) for row, of in rows_of(scores).items()],
    }


def _row(table: Table, row: RowKey, scores: Sequence[Score], results: Path) -> dict[str, Any]:
    return {
        "name": row_name(row),
        "experiment": row.experiment,
        "method": row.method,
        "label": table.label(row),
        "chosen_on": scores[0].chosen_on,
        "runs": [_run(score, results) for score in scores],
        "weights": _unlike((score.values.get("weights") if row.experiment else None) for score in scores),
        "made_with": _unlike(score.values.get("made_with") for score in scores),
    }


def _run(score: Score, results: Path) -> dict[str, Any]:
    return {
        "seed": score["seed"],
        "metrics": os.path.relpath(score.path, results),
        "metrics_sha256": file_sha256(score.path),
        "predictions_sha256": file_sha256(score.path.with_name("predictions.parquet")),
        "people_sha256": score.values.get("people_sha256"),
        "split_sha256": score.values.get("split_sha256"),
        "n": {part: score[f"n_{part}"] for part in ("train", "val", "test")},
    }


def _unlike(values: Iterable[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    """Values without repetitions: runs of one row may have been made with several versions."""
    found: list[Mapping[str, Any]] = []
    for value in values:
        if value and value not in found:
            found.append(value)
    return found
