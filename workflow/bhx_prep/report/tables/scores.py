"""Read the scores of a table from the folders of runs, and check that they are of the same subjects and splits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bhx_model.errors import DataError
from bhx_model.evaluation import prediction_file
from bhx_model.evaluation.labels import SPLITS
from bhx_model.evaluation.prediction_file import PredictionTable
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.report.tables.table import COMPUTED, LABELS

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


@dataclass(frozen=True)
class Score:
    """One row on one split.

    Attributes
    ----------
    path : Path
        Its ``metrics.json``.
    values : mapping
        Content of that; shares are fractions.
    predictions : PredictionTable
        From the ``predictions.parquet`` beside it.
    """

    path: Path
    values: Mapping[str, Any]
    predictions: PredictionTable

    def __getitem__(self, key: str) -> Any:
        """A value of ``metrics.json``."""
        return self.values[key]

    @property
    def experiment(self) -> str:
        """Its experiment; empty if the method needs none."""
        return self.values["experiment"] or ""

    @property
    def chosen_on(self) -> str:
        """Subjects on whom the penalty or the epoch was chosen: ``val`` or ``test``."""
        return self.values.get("choose_on", "val")

    @property
    def overlap(self) -> str:
        """Test subjects that are in the pretraining of the scored weights, ``2 of 14``, or ``unknown``; else empty."""
        found = self.values.get("pretraining_overlap")
        if not found:
            return ""
        if not found["known"]:
            return "unknown"
        return f"{found['n_overlap']} of {found['n_tested']}" if found["n_overlap"] else ""

    @property
    def name(self) -> str:
        """Row and split, for messages."""
        of = f" of experiment {self.experiment}" if self.experiment else ""
        return f"{self['method']}{of}, seed {self['seed']}"


def largest_overlap(scores: Sequence[Score]) -> str:
    """The overlap of the split with most of it; that nothing is known counts as the largest."""
    return max(
        (score.overlap for score in scores),
        key=lambda text: math.inf if text == "unknown" else int(text.partition(" ")[0] or 0),
    )


def read(path: Path) -> Score:
    """Read a ``metrics.json`` and its predictions.

    Raises
    ------
    DataError
        If one of them is none, or they do not belong together.
    """
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): evaluate again") from error
    missing = _KEYS - set(values) if isinstance(values, dict) else _KEYS
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}: evaluate again")
    predictions = prediction_file.read(path.with_name("predictions.parquet"))
    if mistake := _mistake(values, predictions):
        raise DataError(f"{path.parent}: {mistake}: evaluate again")
    return Score(path, values, predictions)


def _mistake(values: Mapping[str, Any], table: PredictionTable) -> str | None:
    """What cannot be of a ``metrics.json`` and the predictions beside it; None where they belong together."""
    if type(values["seed"]) is not int:
        return f"its seed is {values['seed']!r:.40}, no whole number"
    for key in ("metrics", "constant"):
        if not isinstance(values[key], dict) or not all(map(_is_score, values[key].values())):
            return f"its {key} are no names and numbers"
    n_classes = 0 if values["kind"] == "regression" else table.scores.shape[1]
    answers = np.concatenate([table.truth, table.prediction])
    if not (np.isfinite(answers).all() and np.isfinite(table.scores).all()):
        return "some of its predictions are not finite"
    if n_classes and not np.isin(answers, np.arange(n_classes)).all():
        return "some of its predictions are of no class"
    for split in SPLITS:
        if values[f"n_{split}"] != (n := int(table.of(split).sum())):
            return f"its metrics are of {values[f'n_{split}']!r:.20} {split} subjects, its predictions of {n}"
    people = prediction_file.people_sha256(table.people)
    if values.get("people_sha256", people) != people:
        return "its metrics and its predictions are of different people"
    return _other_score(values, table, n_classes)


def _is_score(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))


def _other_score(values: Mapping[str, Any], table: PredictionTable, n_classes: int) -> str | None:
    """Say that a score is not that of the predictions; the published code's means over batches are not compared."""
    test = table.of("test")
    if values.get("scores_over") == "batches" or not test.any():
        return None
    truth, predicted = table.truth[test], table.prediction[test]
    name = "accuracy" if n_classes else "mae"
    found = np.mean(truth == predicted) if n_classes else np.abs(truth - predicted).mean()
    said = values["metrics"].get(name)
    if said is not None and math.isclose(said, found, rel_tol=1e-6, abs_tol=1e-9):
        return None
    return f"its {name} is {said}, that of its predictions {found:g}"


def check(name: str, endpoint: EndpointSection, scores: Sequence[Score]) -> None:
    """Refuse scores that do not belong into one table.

    Parameters
    ----------
    name : str
        Of the endpoint.
    endpoint : EndpointSection
    scores : Sequence[Score]

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
        if score["endpoint"] != name or score["kind"] != endpoint.kind:
            theirs = f"{score['endpoint']!r} ({score['kind']})"
            msg = f"{score.name}: belongs to endpoint {theirs}, not to {name!r} ({endpoint.kind})"
            raise DataError(msg)
        if score["method"] not in LABELS or score["method"] in COMPUTED:
            msg = f"{score.name}: no method of this version: evaluate again, or see docs/how-to/methods.md"
            raise DataError(msg)
        if score.name in seen:
            msg = f"{score.name}: given twice"
            raise DataError(msg)
        seen.add(score.name)
    _check_alike(name, endpoint, scores)


def _check_alike(name: str, endpoint: EndpointSection, scores: Sequence[Score]) -> None:
    classes = [c.name for c in endpoint.classes]
    first = scores[0]
    for score in scores:
        theirs = score.values.get("classes", classes)
        if theirs != classes:
            msg = (
                f"{score.name}: its labels are coded as {', '.join(theirs)}, the endpoint's as {', '.join(classes)}: "
                "evaluate again"
            )
            raise DataError(msg)
        if score.chosen_on != first.chosen_on:
            test, val = (score, first) if score.chosen_on == "test" else (first, score)
            msg = (
                f"{test.name} was chosen on test subjects and cannot stand beside {val.name}, chosen on validation: "
                "they need tables of their own"
            )
            raise DataError(msg)
    _check_labels(name, scores)
    for key, what in _SHARED.items():
        of_seed: dict[int, Score] = {}
        for score in scores:
            other = of_seed.setdefault(score["seed"], score)
            if score.values.get(key) != other.values.get(key):
                msg = (
                    f"table {name}: {other.name} and {score.name} differ in their {what}: evaluate both again with the "
                    "same configuration"
                )
                raise DataError(msg)


def _check_labels(name: str, scores: Sequence[Score]) -> None:
    """Refuse rows whose subjects have other labels, or are in other parts, on the same split."""
    of_seed: dict[int, tuple[Score, dict[str, tuple[str, float]]]] = {}
    for score in scores:
        table = score.predictions
        answers = zip(table.split.tolist(), table.truth.tolist(), strict=True)
        labels = dict(zip(table.people.tolist(), answers, strict=True))
        other, theirs = of_seed.setdefault(score["seed"], (score, labels))
        if any(labels[one] != theirs[one] for one in labels.keys() & theirs.keys()):
            msg = (
                f"table {name}: {other.name} and {score.name} differ in their subjects' labels or parts: evaluate both "
                "again with the same configuration"
            )
            raise DataError(msg)
