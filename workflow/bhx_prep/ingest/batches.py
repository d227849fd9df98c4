"""Assign subjects to batches; the assignment is fixed when a cohort is first planned.

A batch is a hash of the subject into a number of batches that is written down once. So new subjects never move earlier
ones, and the jobs of earlier ones are not run again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from bhx_model.atomic_write import write_json
from bhx_model.errors import DataError


def n_batches(results: Path, cohort: str, n_subjects: int, batch_size: int) -> int:
    """Number of batches of a cohort: as ``plan.json`` states it, which the first call writes.

    Parameters
    ----------
    results : Path
        Folder of all results; the plan is ``<results>/<cohort>/plan.json``.
    cohort : str
    n_subjects : int
        Subjects known at the first planning, > 0.
    batch_size : int
        Subjects per batch, on average, at the first planning.

    Raises
    ------
    DataError
        If the plan cannot be read as one of this cohort.
    """
    file = results / cohort / "plan.json"
    try:
        return _read(file, cohort)
    except FileNotFoundError:
        pass
    n = max(1, math.ceil(n_subjects / batch_size))
    write_json(file, {"cohort": cohort, "n_batches": n}, shared=True)
    return n


def batch_of(cohort: str, subject: str, n: int) -> int:
    """Batch of a subject, 0 to `n` - 1; depends on no other subject."""
    digest = hashlib.sha256(f"{cohort}/{subject}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % n


def batches(cohort: str, subjects: Iterable[str], n: int) -> dict[int, list[str]]:
    """Subjects of every batch that has any, both in order.

    Parameters
    ----------
    cohort : str
    subjects : iterable of str
        Labels; repeated ones count once.
    n : int
        Number of batches, from `n_batches`.
    """
    members: dict[int, list[str]] = defaultdict(list)
    for subject in sorted(set(subjects)):
        members[batch_of(cohort, subject, n)].append(subject)
    return dict(sorted(members.items()))


def _read(file: Path, cohort: str) -> int:
    text = file.read_text(encoding="utf-8")
    try:
        plan = json.loads(text)
    except json.JSONDecodeError:
        plan = None
    if isinstance(plan, dict) and plan.get("cohort") == cohort:
        n = plan.get("n_batches")
        if isinstance(n, int) and n > 0:
            return n
    msg = (
        f"{file} is not a plan of cohort {cohort}: restore it, or remove results/{cohort} to plan the cohort anew "
        "(its batches are then computed again)"
    )
    raise DataError(msg)
