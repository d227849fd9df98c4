"""Which batch a person is in: fixed when a cohort is first planned, whoever comes later.

A batch is a hash of the person into a number of batches that is written down once. So new people never move old ones,
and the jobs of old ones are not run again.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from bhx_model.errors import DataError


def n_batches(results: Path, cohort: str, n_subjects: int, batch_size: int) -> int:
    """Number of batches of a cohort: what ``plan.json`` says, which the first call writes.

    Parameters
    ----------
    results : Path
        Folder of all results; the plan is ``<results>/<cohort>/plan.json``.
    cohort : str
    n_subjects : int
        People known at the first planning, > 0.
    batch_size : int
        People per batch, on average, at the first planning.

    Raises
    ------
    ValueError
        If the plan cannot be read as one of this cohort.
    """
    file = results / cohort / "plan.json"
    try:
        return _read(file, cohort)
    except FileNotFoundError:
        pass
    n = max(1, math.ceil(n_subjects / batch_size))
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".plan-", delete=False) as part:
        part.write(json.dumps({"cohort": cohort, "n_batches": n}, sort_keys=True) + "\n")
    Path(part.name).chmod(0o644)
    Path(part.name).replace(file)
    return n


def batch_of(cohort: str, subject: str, n: int) -> int:
    """Batch of a person, 0 to `n` - 1; depends on nobody else."""
    digest = hashlib.sha256(f"{cohort}/{subject}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % n


def batches(cohort: str, subjects: Iterable[str], n: int) -> dict[int, list[str]]:
    """People of every batch that holds anybody, both in order.

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
        n = plan["n_batches"]
        if plan["cohort"] == cohort and isinstance(n, int) and n > 0:
            return n
    except (ValueError, KeyError, TypeError):
        pass
    msg = (
        f"{file} is no plan of cohort {cohort}: restore it, or remove results/{cohort} to plan the cohort anew "
        "(its batches are then computed again)"
    )
    raise DataError(msg)
