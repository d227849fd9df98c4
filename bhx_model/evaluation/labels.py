"""Labels and split of an endpoint's subjects, as the workflow writes them. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from bhx_model.atomic_write import read_json
from bhx_model.errors import DataError
from bhx_model.evaluation.metrics import metrics_of
from bhx_model.file_hash import file_sha256

SPLITS: Final = ("train", "val", "test")
#: What may be done to the scores of all methods, see `bhx_model.evaluation.adjustments`.
ADJUSTMENTS: Final = ("calibrate", "class_weights", "threshold")
#: Sizes of numbers other than 0 that can be computed with: their fourth powers, and those of their last digits, neither
#: overflow nor vanish.
SMALLEST, LARGEST = 1e-30, 1e30


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
    cohorts: list[str] = dataclasses.field(default_factory=list)
    """(n,) cohort of each subject; empty where all are of `cohort`."""
    inner_folds: int = 0
    """Divisions of the train and validation subjects on which a penalty is chosen; 0: on the validation subjects."""
    refit: bool = False
    """Whether what is chosen is fitted again to train and validation subjects."""
    protocol: str = "paper"
    """Name of how the split is drawn and what is chosen on, `paper` or `brainmarks`."""
    metrics_first: tuple[str, ...] = ()
    """Metrics that the protocol reports before others."""
    adjustments: tuple[str, ...] = ()
    """What is done to the scores of all methods, see `bhx_model.evaluation.adjustments`."""

    @property
    def people(self) -> list[str]:
        """``cohort/label`` of each subject: a label means another person in another cohort."""
        cohorts = self.cohorts or [self.cohort] * len(self.subjects)
        return [f"{cohort}/{subject}" for cohort, subject in zip(cohorts, self.subjects, strict=True)]

    @property
    def all_cohorts(self) -> list[str]:
        """The endpoint's own cohort first, then the other cohorts on which it is tested."""
        return list(dict.fromkeys([self.cohort, *self.cohorts]))

    @property
    def n_classes(self) -> int:
        """Classes; 0 for a regression."""
        return len(self.classes)

    def of(self, split: str) -> np.ndarray:
        """Which subjects are in `split`: (n,) bool."""
        return self.split == split

    @property
    def fitted(self) -> np.ndarray:
        """Which subjects a linear model is fitted to in the end, and features are standardised by: (n,) bool."""
        return self.of("train") | self.of("val") if self.refit else self.of("train")

    def keep(self, people: Collection[str]) -> Labels:
        """Labels of those whose ``cohort/label`` is among `people`."""
        kept = [i for i, one in enumerate(self.people) if one in people]
        return dataclasses.replace(
            self,
            subjects=[self.subjects[i] for i in kept],
            target=self.target[kept],
            split=self.split[kept],
            cohorts=[self.cohorts[i] for i in kept] if self.cohorts else [],
        )

    def swap_val_and_test(self) -> Labels:
        """Validate on the test subjects and test on the validation subjects, as the published code does."""
        names = {"train": "train", "val": "test", "test": "val"}
        return dataclasses.replace(self, split=np.array([names[split] for split in self.split]))

    def check_cohorts(self, there: Collection[str], what: str) -> None:
        """Refuse what is read of other cohorts than these labels are of.

        Parameters
        ----------
        there : collection of str
            Cohorts of what is read.
        what : str
            How it is called, for the message.

        Raises
        ------
        DataError
            If a cohort of the labels is not there.
        """
        if absent := [cohort for cohort in self.all_cohorts if cohort not in there]:
            msg = f"the labels are of cohort {absent[0]}, the {what} of {', '.join(there)}: name those of the former, too"
            raise DataError(msg)

    def check_splits(self, lacking: str) -> None:
        """Refuse labels from which nothing can be learned, chosen or reported.

        Parameters
        ----------
        lacking : str
            What the subjects that are not here lack, for the message.

        Raises
        ------
        DataError
            If a split is empty, one subject alone is tested, a class is absent in training, or all have one value.
        """
        for split in SPLITS:
            if not self.of(split).any():
                msg = f"no subject in the {split} split of {self.endpoint} has {lacking}"
                raise DataError(msg)
        if self.of("test").sum() < 2:
            msg = f"one subject alone is tested in seed {self.seed} of {self.endpoint}: test more people"
            raise DataError(msg)
        there = set(self.target[self.of("train")].tolist())
        if not self.n_classes and len(there) < 2:
            msg = (
                f"{self.endpoint} is {min(there):g} for all subjects in the train split of seed {self.seed}: nothing can be "
                "learned, predict something else"
            )
            raise DataError(msg)
        if self.n_classes and len(there) < 2:
            msg = (
                f"all subjects in the train split of {self.endpoint} are of one class: split again, with subjects of "
                "the others"
            )
            raise DataError(msg)
        if absent := set(range(self.n_classes)) - there:
            names = " and ".join(repr(self.classes[number]) for number in sorted(absent))
            msg = (
                f"no subject of class {names} is in the train split of {self.endpoint}, seed {self.seed}: split again, or "
                "leave the class out"
            )
            raise DataError(msg)


def is_computable(number: float) -> bool:
    """Whether a number is 0 or of a size that sums, squares and ratios of it can be made of, see `LARGEST`; NaN is not."""
    return number == 0 or SMALLEST <= abs(number) <= LARGEST


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
        split_sha256=file_sha256(path),
        cohorts=[row.get("cohort", raw["cohort"]) for row in rows]
        if any("cohort" in row for row in rows)
        else [],
        inner_folds=raw.get("inner_folds", 0),
        refit=raw.get("refit", False),
        protocol=raw.get("protocol", "paper"),
        metrics_first=tuple(raw.get("metrics_first", ())),
        adjustments=tuple(raw.get("adjustments", ())),
    )


def _mistake_of_options(raw: Mapping[str, Any]) -> str | None:
    """What is wrong with the values that a split file may have or lack, if anything is."""
    folds, refit = raw.get("inner_folds", 0), raw.get("refit", False)
    if type(folds) is not int or folds < 0:
        return f"inner_folds is {folds!r:.40}, no whole number of 0 or more"
    if not isinstance(refit, bool):
        return f"refit is {refit!r:.40}, neither true nor false"
    if not isinstance(raw.get("protocol", "paper"), str):
        return "protocol is no text"
    for key, known in (("adjustments", ADJUSTMENTS), ("metrics_first", metrics_of(raw["kind"]))):
        given = raw.get(key, [])
        if not isinstance(given, list) or not all(name in known for name in given):
            return f"{key} is {given!r:.40}, no list of some of {', '.join(known)}"
    return None


def _find_mistake(raw: Mapping[str, Any]) -> str | None:
    """What is wrong with the content of a split file, if anything is."""
    kind, classes, rows = raw["kind"], raw["classes"], raw["rows"]
    if not isinstance(classes, list) or not isinstance(rows, list):
        return "classes and rows are no lists"
    fitting = {"binary": len(classes) == 2, "multiclass": len(classes) > 2, "regression": not classes}
    if not isinstance(kind, str) or not fitting.get(kind, False):
        return f"{len(classes)} classes do not make an endpoint of kind {kind!r:.40}"
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
        return "the names of the classes are no texts, or two are equal"
    if mistake := _mistake_of_options(raw):
        return mistake
    subjects: set[tuple[str, str]] = set()
    for row in rows:
        if not isinstance(row, dict) or not {"subject", "label", "split"} <= row.keys():
            return "a row has not subject, label and split"
        subject, label, cohort = row["subject"], row["label"], row.get("cohort", raw["cohort"])
        if not isinstance(subject, str) or not isinstance(cohort, str) or (cohort, subject) in subjects:
            return f"the subject {subject!r} is there twice, or is no text"
        if row["split"] not in SPLITS:
            return f"{subject} is in the split {row['split']!r}, there are {', '.join(SPLITS)}"
        number = type(label) in (int, float) and is_computable(label)
        if not number or (classes and label not in range(len(classes))):
            wanted = "a class number" if classes else "a number, and none of absurd size,"
            return f"{subject} has the label {label!r:.40}, {wanted} was expected"
        if cohort != raw["cohort"] and row["split"] != "test":
            return f"{subject} of {cohort} is in {row['split']}, subjects of other cohorts are tested only"
        subjects.add((cohort, subject))
    return None
