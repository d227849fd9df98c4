"""The result of one check of ``bhx doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One requirement: `level` is ``ok``, ``note`` (may matter to you) or ``missing`` (will stop you)."""

    level: Literal["ok", "note", "missing"]
    what: str
    fix: str = ""
