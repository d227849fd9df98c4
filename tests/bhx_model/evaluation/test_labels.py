"""The split file as evaluations read it: whose label it is, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bhx_model.errors import DataError
from bhx_model.evaluation import results
from bhx_model.evaluation.labels import read_labels


def split_file(folder: Path, rows: list[dict], classes: tuple[str, ...] = ("a", "b"), **more) -> Path:
    kind = "binary" if len(classes) == 2 else "multiclass"
    value = {
        "endpoint": "dx",
        "cohort": "one",
        "kind": kind,
        "classes": list(classes),
        "seed": 0,
        "rows": rows,
    }
    path = folder / "seed-0.json"
    path.write_text(json.dumps(value | more))
    return path


def row(subject: str, label: int, split: str, **more) -> dict:
    return {"subject": subject, "label": label, "split": split, **more}


ROWS = [
    row("1", 0, "train"),
    row("2", 1, "train"),
    row("3", 0, "val"),
    row("4", 1, "test"),
    row("5", 0, "test"),
]


def test_a_label_of_another_cohort_is_another_person(tmp_path: Path):
    rows = [*ROWS[:3], row("1", 1, "test", cohort="two"), row("4", 0, "test", cohort="two")]
    labels = read_labels(split_file(tmp_path, rows))
    assert labels.people == ["one/1", "one/2", "one/3", "two/1", "two/4"]
    assert labels.all_cohorts == ["one", "two"]
    assert labels.keep({"one/1", "two/4"}).people == ["one/1", "two/4"]
    assert read_labels(split_file(tmp_path, ROWS)).all_cohorts == ["one"]


def test_subjects_of_another_cohort_are_tested_only(tmp_path: Path):
    rows = [*ROWS, row("9", 1, "train", cohort="two")]
    with pytest.raises(DataError, match="9 of two is in train"):
        read_labels(split_file(tmp_path, rows))


def test_a_class_without_training_subjects_is_named(tmp_path: Path):
    rows = [*ROWS, row("6", 2, "val"), row("7", 2, "test")]
    labels = read_labels(split_file(tmp_path, rows, ("a", "b", "rare")))
    with pytest.raises(DataError, match="no subject of class 'rare' is in the train split of dx, seed 0"):
        labels.check_splits("a label")


def test_one_tested_subject_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="one subject alone is tested in seed 0 of dx"):
        read_labels(split_file(tmp_path, ROWS[:4])).check_splits("a label")


def test_training_subjects_of_one_value_are_refused(tmp_path: Path):
    rows = [
        row(str(i), 7.0 if i < 3 else float(i), split)
        for i, split in enumerate(["train"] * 3 + ["val", "test", "test"])
    ]
    labels = read_labels(split_file(tmp_path, rows, (), kind="regression"))
    with pytest.raises(DataError, match="dx is 7 for all subjects in the train split of seed 0"):
        labels.check_splits("a label")


def test_the_protocol_says_who_a_model_is_fitted_to(tmp_path: Path):
    first = ["balanced_accuracy", "macro_f1"]
    path = split_file(tmp_path, ROWS, inner_folds=5, refit=True, protocol="brainmarks", metrics_first=first)
    labels = read_labels(path)
    assert labels.inner_folds == 5
    summary, _ = results.summarise(labels, np.eye(2)[labels.target])
    assert (summary["protocol"], summary["metrics_first"]) == ("brainmarks", first)
    assert first[1] in summary["metrics"]
    np.testing.assert_array_equal(labels.fitted, [True, True, True, False, False])
    np.testing.assert_array_equal(
        read_labels(split_file(tmp_path, ROWS)).fitted, [True, True, False, False, False]
    )
