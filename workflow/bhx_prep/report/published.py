"""The paper's published numbers with their sources, and those of other publications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bhx_model.errors import ConfigError

NOT_RECOVERED = "not recovered"


@dataclass(frozen=True)
class Source:
    """Where numbers are from: `text` says what it is, `trust` how far it can be believed."""

    text: str
    trust: str


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
    """One of the paper's benchmarks: its task, the metrics it was scored by, and the models compared.

    `people` are the numbers of subjects by class, empty where they were not recovered; the class that this software calls
    positive is the last.
    """

    name: str
    task: str
    metrics: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    runs: int
    runs_source: str
    people: Mapping[str, int]
    people_source: str


@dataclass(frozen=True)
class IndependentRow:
    """What others than the paper's authors measured by one method.

    Attributes
    ----------
    task : str
        What was predicted where it is not the paper's task; else empty.
    values : dict[str, str]
        Metric to the number, or a range, as the source prints it.
    sd : dict[str, str]
        Metric to its standard deviation over splits, where that is known.
    people, splits : int or None
        Subjects of all splits, and how many splits.
    source : str
        Tag of the source.
    """

    method: str
    task: str
    values: dict[str, str]
    sd: dict[str, str]
    people: int | None
    splits: int | None
    source: str

    def printed(self, metric: str) -> str:
        """A number with its spread as text; empty if it was not measured."""
        value = self.values.get(metric, "")
        return f"{value} ({self.sd[metric]})" if metric in self.sd else value


@cache
def _document(name: str) -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def sources() -> dict[str, Source]:
    """Tags of sources and their descriptions, of the paper's numbers and of those of other publications."""
    tags = {**_document("published.yaml")["sources"], **_document("independent.yaml")["sources"]}
    return {tag: Source(**about) for tag, about in tags.items()}


def names() -> tuple[str, ...]:
    """Name the paper's endpoints."""
    return tuple(_document("published.yaml")["endpoints"])


def endpoint(name: str) -> PublishedEndpoint:
    """Return the published block of one endpoint.

    Raises
    ------
    ConfigError
        If the paper has no such endpoint.
    """
    document = _document("published.yaml")
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
        people=block.get("people", {}),
        people_source=block.get("people_source", ""),
    )


def independent(name: str) -> tuple[IndependentRow, ...]:
    """What others measured on one of the paper's endpoints, or on the same cohort."""
    about = {"method", "task", "sd", "range", "people", "splits", "source"}
    return tuple(
        IndependentRow(
            method=row["method"],
            task=row.get("task", ""),
            values={**{m: v for m, v in row.items() if m not in about}, **row.get("range", {})},
            sd=row.get("sd", {}),
            people=row.get("people"),
            splits=row.get("splits"),
            source=row["source"],
        )
        for row in _document("independent.yaml")["endpoints"].get(name, ())
    )
