"""Write the quality measures of a scan to a file and the log, and compare them with the limits."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

from bhx_model.atomic_write import write_json
from bhx_prep.quality import limits

logger = logging.getLogger(__name__)


def judge(
    name: str,
    numbers: Mapping[str, float | None],
    modality: str,
    path: Path | None = None,
    *,
    keep: bool = False,
) -> None:
    """Write a scan's numbers, print them in one line, and compare them with their limits.

    Parameters
    ----------
    name : str
        Of the scan, such as ``sub-01_T1w``.
    numbers : mapping
        Name to value; None where it could not be measured.
    modality : str
        ``t1w`` or ``bold``.
    path : Path, optional
        JSON file for the numbers, beside the derivatives.
    keep : bool
        Somebody decided to keep the scan: it fails no limit, but the file and the line say which it would.

    Raises
    ------
    LimitError
        If it fails a limit; the file and the line are there all the same.
    """
    failed = limits.failures(numbers, modality)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        known = {
            key: round(value, 4)
            for key, value in numbers.items()
            if value is not None and math.isfinite(value)  # JSON has no other
        }
        # under the numbers' own names, as XCP-D has them; what it failed beside them
        write_json(path, {**known, "failed": [limit.name for limit in failed]})
    logger.info("%s", line(name, numbers, failed))
    if not keep:
        limits.check(numbers, modality)


def line(name: str, numbers: Mapping[str, float | None], failed: list[limits.Limit]) -> str:
    """The numbers for people, ending with what the scan failed."""
    shown = ", ".join(
        f"{key} {'unknown' if value is None else limits.short(value)}" for key, value in numbers.items()
    )
    return f"{name}: {shown}: {'fails ' + ', '.join(limit.name for limit in failed) if failed else 'passes'}"
