"""The paper's published numbers with their sources, as far as they could be recovered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bhx_model.errors import ConfigError

NOT_RECOVERED = "not recovered"


@dataclass(frozen=True)
class PublishedRow:
    """One model in one of the paper's tables.

    Attributes
    ----------
    values : dict[str, str]
        Metric to the number as its source prints it (percent for accuracy and F1); absent if not recovered.
    source : str
        Tag of the source, empty if nothing was recovered.
    note : str
        Why there is no number, `NOT_RECOVERED` unless the source gives a reason.
    """

    method: str
    values: dict[str, str]
    source: str
    note: str


@dataclass(frozen=True)
class PublishedEndpoint:
    """One of the paper's benchmarks: its task, the metrics it was scored by, and the models compared."""

    name: str
    task: str
    metrics: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    runs: int
    runs_source: str


@cache
def _document() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))


def sources() -> dict[str, str]:
    """Tag to a sentence on what the source is."""
    return dict(_document()["sources"])


def names() -> tuple[str, ...]:
    """Name the paper's endpoints."""
    return tuple(_document()["endpoints"])


def endpoint(name: str) -> PublishedEndpoint:
    """Return the published block of one endpoint.

    Raises
    ------
    ConfigError
        If the paper has no such endpoint.
    """
    document = _document()
    if name not in document["endpoints"]:
        msg = f"the paper has no endpoint {name!r}; it has {', '.join(names())}"
        raise ConfigError(msg)
    block = document["endpoints"][name]
    rows = tuple(
        PublishedRow(
            method=row["method"],
            values={m: row[m] for m in block["metrics"] if row.get(m) is not None},
            source=row.get("source", ""),
            note=row.get("note", NOT_RECOVERED),
        )
        for row in block["rows"]
    )
    return PublishedEndpoint(
        name=name,
        task=block["task"],
        metrics=tuple(block["metrics"]),
        rows=rows,
        runs=document["runs"],
        runs_source=document["runs_source"],
    )
