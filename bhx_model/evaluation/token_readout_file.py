"""The file of readouts of the tokens of one encoder for a cohort. Needs no torch.

Arrays of an ``.npz``: ``keys`` and ``subjects``, a row per BOLD run of function tokens or per T1 of structure tokens, and
``about``, JSON. Of function tokens ``mean``, ``regions`` and ``covariance`` (float32), ``rois`` (float16, runs x ROIs x
width), each also as ``<name>_untrained``; of structure tokens ``mean`` (float32) and ``blocks`` (float16, T1s x blocks x
width).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bhx_model.data import npz
from bhx_model.errors import DataError
from bhx_model.evaluation.labels import Labels

#: Version of the form of the file.
VERSION: Final = 1
_ABOUT: Final = {"version", "cohort", "synthetic", "shards", "heads"}
#: What a row is of.
_SCANS: Final = {"function": "BOLD run", "structure": "T1"}


@dataclasses.dataclass(frozen=True)
class TokenReadouts:
    """One array of the files of one or several cohorts."""

    paths: Sequence[Path]
    stage: str
    """``function`` or ``structure``."""
    about: Mapping[str, Any]
    """``version``, ``synthetic``, SHA-256 of the weights (by the stage's name) and ``heads`` of the encoder."""
    cohorts: Sequence[str]
    people: Sequence[str]
    """(scans,) ``cohort/label``."""
    features: np.ndarray
    """(scans, ...) of every scan."""

    def by_subject(self, labels: Labels) -> tuple[Labels, np.ndarray, list[dict[str, str]]]:
        """Average over the scans of each subject with a label; subjects without scans are excluded.

        Returns
        -------
        labels : Labels
            Of the subjects that are there.
        features : ndarray, (n, ...) float64, or float32 where there is a row for every ROI or block
        excluded : list of dict
            Subjects without scans, and why.

        Raises
        ------
        DataError
            If they are of different cohorts, or no subject of a split has tokens.
        """
        if absent := [cohort for cohort in labels.all_cohorts if cohort not in self.cohorts]:
            there = ", ".join(self.cohorts)
            msg = f"labels of cohort {absent[0]}, {self.stage} tokens of {there}: name those of the former"
            raise DataError(msg)
        kept = labels.keep(set(self.people))
        where = ", ".join(str(path) for path in self.paths)
        kept.check_splits(f"{self.stage} tokens in {where}: see why its scans are excluded")
        number = {one: n for n, one in enumerate(kept.people)}
        total = np.zeros(
            (len(number), *self.features.shape[1:]), np.float64 if self.features.ndim == 2 else np.float32
        )
        n_scans = np.zeros(len(number))
        for one, features in zip(self.people, self.features, strict=True):
            if one in number:
                total[number[one]] += features
                n_scans[number[one]] += 1
        total /= n_scans.reshape(-1, *[1] * (total.ndim - 1)).astype(total.dtype)
        reason = f"no {self.stage} tokens: no usable {_SCANS[self.stage]}"
        gone = [s for s, one in zip(labels.subjects, labels.people, strict=True) if one not in number]
        return kept, total, [{"subject": subject, "reason": reason} for subject in gone]


def read(paths: Sequence[Path], array: str, stage: str = "function") -> TokenReadouts:
    """Read one array of the files of one cohort or several.

    Parameters
    ----------
    paths : sequence of Path
        A file per cohort.
    array : str
    stage : str
        Whose tokens they are, ``function`` or ``structure``.

    Raises
    ------
    DataError
        If one is no such file, of another version, broken, or holds numbers that are not finite, or if they are of
        different weights.
    """
    parts = [_read(path, array, stage) for path in paths]
    first = parts[0][0]
    for path, (about, *_) in zip(paths, parts, strict=True):
        if about[stage] != first[stage]:
            msg = f"{path} are tokens of other weights than {paths[0]}: make both again"
            raise DataError(msg)
    return TokenReadouts(
        paths,
        stage,
        {**first, "synthetic": any(about["synthetic"] for about, *_ in parts)},
        [about["cohort"] for about, *_ in parts],
        [f"{about['cohort']}/{subject}" for about, subjects, _ in parts for subject in subjects.tolist()],
        np.concatenate([features for *_, features in parts]) if len(parts) > 1 else parts[0][2],
    )


def _read(path: Path, array: str, stage: str) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    remedy = f"make it again with `python -m bhx_model.evaluation.{stage}_tokens`"
    try:
        arrays = npz.read(path, remedy, ("about", "subjects", array))
    except FileNotFoundError as error:
        msg = f"there are no {stage} tokens at {path}: {remedy}"
        raise DataError(msg) from error
    lacking = {"about", "subjects", array} - arrays.keys()
    if lacking:
        msg = f"{path} has no {', '.join(sorted(lacking))}, it is no file of {stage} tokens: {remedy}"
        raise DataError(msg)
    about, subjects, features = npz.object_of(arrays["about"]), arrays["subjects"], arrays[array]
    if not about.keys() >= _ABOUT | {stage} or about["version"] != VERSION:
        msg = f"{path} is of another version than {VERSION}: {remedy}"
        raise DataError(msg)
    if len(subjects) != len(features) or not np.isfinite(features).all():
        msg = f"{path}: {array} has not one row of finite numbers per {_SCANS[stage]}: {remedy}"
        raise DataError(msg)
    return about, subjects, features
