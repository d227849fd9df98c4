"""The split of a pretraining: subjects to train on, and those held out."""

from __future__ import annotations

import json
from pathlib import Path

from bhx_model.errors import DataError


def read_split(path: Path) -> dict[str, str]:
    """Subjects of a pretraining split: ``cohort/label`` to ``train`` or ``holdout``.

    Raises
    ------
    DataError
        If it is no split, or a subject is in it twice.
    """
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
        parts = {subject: part for part in ("train", "holdout") for subject in split[part]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} is no split with the lists train and holdout ({error}): make it again"
        raise DataError(msg) from error
    if len(parts) != len(split["train"]) + len(split["holdout"]):
        msg = f"{path} names a subject twice, so the holdout would be trained on: make it again"
        raise DataError(msg)
    return parts
