"""Splits of an endpoint of one cohort, made in this process."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.evaluation import endpoint_split
from bhx_prep.ingest.participants import Participants


def split_endpoint(
    name: str,
    spec: EndpointSection,
    seed: int,
    table: Participants,
    family: str | None,
    bold: set[str],
    t1w: set[str],
    modalities: Collection[str] = ("bold", "t1w"),
) -> dict[str, Any]:
    """Split the subjects of an endpoint, of whose scans only the labels are known."""
    own = endpoint_split.Cohort(spec.cohort, table, family, {"bold": bold, "t1w": t1w})
    return endpoint_split.make(name, spec, seed, own, modalities=modalities)
