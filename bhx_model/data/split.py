"""The split of a pretraining: training subjects, held-out subjects and unused ones."""

from __future__ import annotations

import json
from pathlib import Path

from bhx_model.errors import DataError


def read_split(path: Path) -> dict[str, str]:
    """Subjects of a pretraining split: ``cohort/label`` to ``train``, ``holdout`` or ``left_out``.

    The list of the latter may be absent; a subject of the shards who is in none is refused where it is read.

    Raises
    ------
    DataError
        If it is no split, or a subject is in it twice.
    """
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
        lists = {"train": split["train"], "holdout": split["holdout"], "left_out": split.get("left_out", [])}
        parts = {subject: part for part, subjects in lists.items() for subject in subjects}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path} is no split with the lists train and holdout ({error}): make it again"
        raise DataError(msg) from error
    if len(parts) != sum(map(len, lists.values())):
        msg = f"{path} names a subject twice, so one who is not trained on would be: make it again"
        raise DataError(msg)
    return parts
