"""``<stem>_desc-quality_{T1w,bold}.json``: quality measures of a scan, written beside its derivatives."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

from bhx_prep.io import bids_names

logger = logging.getLogger(__name__)


def stem_of(path: Path) -> str:
    """``sub-01_task-rest`` of an output's name, with every entity that distinguishes scans."""
    known = {"sub", *bids_names.SCAN_ENTITIES}
    parts = path.name.split(".", 1)[0].split("_")
    return "_".join(part for part in parts if part.split("-", 1)[0] in known and "-" in part)


def numbers(path: Path) -> dict[str, float]:
    """Quality measures of a scan's output from their file; none without such a file."""
    return {
        str(name): float(value)
        for name, value in _read(path).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def place_of_output(raw: Path, derivatives: Path) -> Path:
    """Where the output of a raw scan would lie: the subject's folder is below the derivatives as below the dataset."""
    parts = raw.parts
    subjects = [i for i, part in enumerate(parts[:-1]) if part.startswith("sub-")]
    return derivatives.joinpath(*parts[subjects[-1] :]) if subjects else raw


def failed(path: Path) -> list[str]:
    """Limits that a scan failed when it was preprocessed, and was kept by a decision."""
    names = _read(path).get("failed", [])
    return [str(name) for name in names] if isinstance(names, list) else []


def _read(path: Path) -> dict[str, Any]:
    suffix = "T1w" if bids_names.suffix(path.name) == "T1w" else "bold"
    file = path.parent / f"{stem_of(path)}_desc-quality_{suffix}.json"
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read (%s): its numbers are left out", file, type(error).__name__)
        return {}
    return found if isinstance(found, dict) else {}
