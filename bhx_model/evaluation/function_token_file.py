"""The file of function tokens of a cohort, as readouts of trained and of untrained weights. Needs no torch.

Arrays of an ``.npz``, a row per BOLD run: ``keys`` and ``subjects``, ``mean``, ``regions`` and ``covariance`` (float32),
``rois`` (float16, runs x ROIs x width), each also as ``<name>_untrained``; ``about`` is JSON.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from bhx_model.data import npz
from bhx_model.errors import DataError
from bhx_model.evaluation.labels import Labels

#: Version of the form of the file.
VERSION: Final = 1
_ABOUT: Final = {"version", "cohort", "synthetic", "function", "shards", "heads"}
_REMEDY: Final = "make it again with `python -m bhx_model.evaluation.function_tokens`"


@dataclasses.dataclass(frozen=True)
class FunctionTokens:
    """One array of such a file."""

    path: Path
    about: Mapping[str, Any]
    """``version``, ``cohort``, ``synthetic``, SHA-256 of the weights (``function``) and of the index (``shards``), and
    ``heads`` of the encoder."""
    subjects: np.ndarray
    """(runs,) labels."""
    features: np.ndarray
    """(runs, ...) of every run."""

    def by_subject(self, labels: Labels) -> tuple[Labels, np.ndarray, list[dict[str, str]]]:
        """Average over the runs of each subject with a label; subjects without runs are excluded.

        Returns
        -------
        labels : Labels
            Of the subjects that are there.
        features : ndarray, (n, ...) float64, or float32 where there is a row for every ROI
        excluded : list of dict
            Subjects without runs, and why.

        Raises
        ------
        DataError
            If they are of different cohorts, or no subject of a split has tokens.
        """
        if labels.cohort != self.about["cohort"]:
            msg = f"labels of cohort {labels.cohort}, function tokens of {self.about['cohort']}: name those of the former"
            raise DataError(msg)
        kept = labels.keep({f"{self.about['cohort']}/{subject}" for subject in self.subjects.tolist()})
        kept.check_splits(f"function tokens in {self.path}: see why its runs are excluded")
        number = {subject: n for n, subject in enumerate(kept.subjects)}
        total = np.zeros(
            (len(number), *self.features.shape[1:]), np.float64 if self.features.ndim == 2 else np.float32
        )
        n_runs = np.zeros(len(number))
        for subject, features in zip(self.subjects.tolist(), self.features, strict=True):
            if subject in number:
                total[number[subject]] += features
                n_runs[number[subject]] += 1
        total /= n_runs.reshape(-1, *[1] * (total.ndim - 1)).astype(total.dtype)
        gone = [subject for subject in labels.subjects if subject not in number]
        return kept, total, [{"subject": s, "reason": "no function tokens: no usable BOLD run"} for s in gone]


def read(path: Path, array: str) -> FunctionTokens:
    """Read one array of a file of function tokens.

    Raises
    ------
    DataError
        If it is no such file, of another version, broken, or holds numbers that are not finite.
    """
    try:
        arrays = npz.read(path, _REMEDY, ("about", "subjects", array))
    except FileNotFoundError as error:
        msg = f"there are no function tokens at {path}: {_REMEDY}"
        raise DataError(msg) from error
    lacking = {"about", "subjects", array} - arrays.keys()
    if lacking:
        msg = f"{path} has no {', '.join(sorted(lacking))}, it is no file of function tokens: {_REMEDY}"
        raise DataError(msg)
    about, subjects, features = _about(arrays["about"]), arrays["subjects"], arrays[array]
    if not about.keys() >= _ABOUT or about["version"] != VERSION:
        msg = f"{path} is of another version than {VERSION}: {_REMEDY}"
        raise DataError(msg)
    if len(subjects) != len(features) or not np.isfinite(features).all():
        msg = f"{path}: {array} has not one row of finite numbers per run: {_REMEDY}"
        raise DataError(msg)
    return FunctionTokens(path, about, subjects, features)


def _about(array: np.ndarray) -> dict[str, Any]:
    try:
        value = json.loads(str(array))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
