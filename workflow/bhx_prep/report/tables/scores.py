"""The scores that a table is made of: ``metrics.json`` files, read and checked to be of the same people and splits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bhx_model.errors import DataError
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.report.tables.table import LABELS

#: What every ``metrics.json`` holds.
_KEYS = {
    "experiment", "endpoint", "method", "seed", "kind", "n_train", "n_val", "n_test", "metrics", "constant", "synthetic",
}  # fmt: skip
#: What rows of one table have in common on the splits they share, and how a sentence calls it.
_SHARED = {
    "people_sha256": "people",
    "split_sha256": "splits",
    "n_train": "training subjects",
    "n_val": "validation subjects",
    "n_test": "test subjects",
}


def read(path: Path) -> dict[str, Any]:
    """Read a ``metrics.json``.

    Raises
    ------
    DataError
        If it is none.
    """
    try:
        score = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): evaluate again") from error
    missing = _KEYS - set(score) if isinstance(score, dict) else _KEYS
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}: evaluate again")
    return score


def chosen_on(score: Mapping[str, Any]) -> str:
    """Subjects on whom the penalty or the epoch of a row was chosen: ``val`` or ``test``."""
    return score.get("choose_on", "val")


def check(name: str, endpoint: EndpointSection, scores: Sequence[Mapping[str, Any]]) -> None:
    """Refuse scores that do not belong into one table.

    Parameters
    ----------
    name : str
        Of the endpoint.
    endpoint : EndpointSection
    scores : Sequence[Mapping]
        Contents of ``metrics.json`` files.

    Raises
    ------
    DataError
        If there are none, if one is of another endpoint, kind or method, or occurs twice, or if two differ in people,
        splits, label coding, or in the subjects that they were chosen on.
    """
    if not scores:
        msg = f"no metrics of endpoint {name!r}: run its evaluations first"
        raise DataError(msg)
    seen = set()
    for score in scores:
        what = row_of(score)
        if score["endpoint"] != name or score["kind"] != endpoint.kind:
            theirs = f"{score['endpoint']!r} ({score['kind']})"
            msg = f"{what}: belongs to endpoint {theirs}, not to {name!r} ({endpoint.kind})"
            raise DataError(msg)
        if score["method"] not in LABELS or score["method"] == "constant":
            msg = f"{what}: no such method; there are {', '.join(m for m in LABELS if m != 'constant')}"
            raise DataError(msg)
        key = (score["experiment"], score["method"], score["seed"])
        if key in seen:
            msg = f"{what}: given twice"
            raise DataError(msg)
        seen.add(key)
    _check_alike(name, endpoint, scores)


def _check_alike(name: str, endpoint: EndpointSection, scores: Sequence[Mapping[str, Any]]) -> None:
    classes = [c.name for c in endpoint.classes]
    first = scores[0]
    for score in scores:
        theirs = score.get("classes", classes)
        if theirs != classes:
            msg = (
                f"{row_of(score)}: its labels are coded as {', '.join(theirs)}, the endpoint's as "
                f"{', '.join(classes)}: evaluate again"
            )
            raise DataError(msg)
        if chosen_on(score) != chosen_on(first):
            test, val = (score, first) if chosen_on(score) == "test" else (first, score)
            msg = (
                f"{row_of(test)} was chosen on test subjects and cannot stand beside {row_of(val)}, chosen on "
                "validation: they need tables of their own"
            )
            raise DataError(msg)
    for key, what in _SHARED.items():
        of_seed: dict[int, Mapping[str, Any]] = {}
        for score in scores:
            other = of_seed.setdefault(score["seed"], score)
            if score.get(key) != other.get(key):
                msg = (
                    f"table {name}: {row_of(other)} and {row_of(score)} differ in their {what}: evaluate both again "
                    "with the same configuration"
                )
                raise DataError(msg)


def row_of(score: Mapping[str, Any]) -> str:
    """Row and split of a score, for messages."""
    of = f" of experiment {score['experiment']}" if score["experiment"] else ""
    return f"{score['method']}{of}, seed {score['seed']}"
