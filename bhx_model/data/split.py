"""The split of a pretraining: who is trained on, and who is held out."""

from __future__ import annotations

import json
from pathlib import Path

from bhx_model.errors import DataError


def read_split(path: Path) -> dict[str, str]:
    """People of a pretraining split: ``cohort/label`` to ``train`` or ``holdout``."""
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
        people = {person: part for part in ("train", "holdout") for person in split[part]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} is no split with the lists train and holdout ({error}): make it again"
        raise DataError(msg) from error
    if len(people) != len(split["train"]) + len(split["holdout"]):
        msg = f"{path} names a person twice, so the holdout would be trained on: make it again"
        raise DataError(msg)
    return people
