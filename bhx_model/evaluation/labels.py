"""The labels and the split of an endpoint's subjects, as the workflow writes them. Needs no torch."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from bhx_model.atomic_write import read_json
from bhx_model.errors import DataError

SPLITS: Final = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Labels:
    """Subjects with a label, in the order of the split file."""

    endpoint: str
    cohort: str
    kind: Literal["binary", "multiclass", "regression"]
    classes: list[str]
    """Names; none for a regression."""
    seed: int
    """Of the split."""
    subjects: list[str]
    target: np.ndarray
    """(n,) class numbers, int64, or values, float64."""
    split: np.ndarray
    """(n,) train, val or test."""
    split_sha256: str = ""
    """Of the split file; empty if they are of no file."""

    @property
    def n_classes(self) -> int:
        """Classes; 0 for a regression."""
        return len(self.classes)

    def of(self, split: str) -> np.ndarray:
        """Which subjects are in `split`: (n,) bool."""
        return self.split == split

    def keep(self, subjects: Collection[str]) -> Labels:
        """Labels of those among `subjects`."""
        kept = [i for i, subject in enumerate(self.subjects) if subject in subjects]
        return dataclasses.replace(
            self, subjects=[self.subjects[i] for i in kept], target=self.target[kept], split=self.split[kept]
        )

    def swap_val_and_test(self) -> Labels:
        """Validate on the test subjects and test on the validation subjects, as the published code does."""
        names = {"train": "train", "val": "test", "test": "val"}
        return dataclasses.replace(self, split=np.array([names[split] for split in self.split]))

    def check_splits(self, lacking: str) -> None:
        """Refuse labels from which nothing can be learned, chosen or reported.

        Parameters
        ----------
        lacking : str
            What the subjects that are not here lack, for the message.

        Raises
        ------
        DataError
            If a split is empty, or the training subjects are of one class.
        """
        for split in SPLITS:
            if not self.of(split).any():
                msg = f"no subject in the {split} split of {self.endpoint} has {lacking}"
                raise DataError(msg)
        if self.n_classes and len(np.unique(self.target[self.of("train")])) < 2:
            msg = (
                f"all subjects in the train split of {self.endpoint} are of one class: split again, with subjects of "
                "the others"
            )
            raise DataError(msg)


def read_labels(path: Path) -> Labels:
    """Read the split file of an endpoint.

    Raises
    ------
    DataError
        If it is none.
    OSError
        If it cannot be read.
    """
    raw = read_json(path, "make the split again")
    missing = {"endpoint", "cohort", "kind", "classes", "seed", "rows"} - raw.keys()
    if missing:
        msg = f"{path} has no {', '.join(sorted(missing))}, it is no split of an endpoint: make it again"
        raise DataError(msg)
    mistake = _find_mistake(raw)
    if mistake is not None:
        msg = f"{path}: {mistake}: make the split again"
        raise DataError(msg)
    rows = raw["rows"]
    number = np.float64 if raw["kind"] == "regression" else np.int64
    return Labels(
        endpoint=raw["endpoint"],
        cohort=raw["cohort"],
        kind=raw["kind"],
        classes=raw["classes"],
        seed=raw["seed"],
        subjects=[row["subject"] for row in rows],
        target=np.array([row["label"] for row in rows], number),
        split=np.array([row["split"] for row in rows], str),
        split_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _find_mistake(raw: Mapping[str, Any]) -> str | None:
    """What is wrong with the content of a split file, if anything is."""
    kind, classes, rows = raw["kind"], raw["classes"], raw["rows"]
    if not isinstance(classes, list) or not isinstance(rows, list):
        return "classes and rows are no lists"
    fitting = {"binary": len(classes) == 2, "multiclass": len(classes) > 2, "regression": not classes}
    if not fitting.get(kind, False):
        return f"{len(classes)} classes do not make an endpoint of kind {kind!r}"
    subjects: set[str] = set()
    for row in rows:
        if not isinstance(row, dict) or not {"subject", "label", "split"} <= row.keys():
            return "a row has not subject, label and split"
        subject, label = row["subject"], row["label"]
        if not isinstance(subject, str) or subject in subjects:
            return f"the subject {subject!r} is there twice, or is no text"
        if row["split"] not in SPLITS:
            return f"{subject} is in the split {row['split']!r}, there are {', '.join(SPLITS)}"
        number = type(label) in (int, float) and np.isfinite(label)
        if not number or (classes and label not in range(len(classes))):
            return f"{subject} has the label {label!r}, {'a class number' if classes else 'a number'} was expected"
        subjects.add(subject)
    return None
