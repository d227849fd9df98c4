"""Assumptions about labels of endpoints, without single subjects; `bhx status --notes` lists all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bhx_prep.io import notes
from bhx_prep.report.collect import anonymous, json_if_whole

_OF_ONE = re.compile(r"\S+ \(1 x\)")


@dataclass(frozen=True)
class LabelNotes:
    """A kind of note that the splits of an endpoint carry: how many there are, and what they say."""

    endpoint: str
    kind: str
    count: int
    details: str


def find(results: Path, endpoints: Iterable[str]) -> list[LabelNotes]:
    """Notes of the splits of some endpoints, by kind; those of several seeds are one."""
    found = []
    for endpoint in endpoints:
        by_kind: dict[str, dict[str, None]] = {}
        for path in sorted((results / "endpoints" / endpoint).glob("seed-*.json")):
            for note in (json_if_whole(path) or {}).get("notes") or ():
                by_kind.setdefault(notes.kind_of(note), {})[_of_several(note.partition(": ")[2])] = None
        found += [LabelNotes(endpoint, kind, len(said), "; ".join(said)) for kind, said in by_kind.items()]
    return found


def _of_several(detail: str) -> str:
    """A note without the example ids at its end, and without values that only one subject has."""
    return _OF_ONE.sub("one value (1 x)", anonymous(detail.partition(", e.g. ")[0], ()))
