"""``sub-X_status.json``: how the preprocessing of one subject ended. Written last, so what it calls ok is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bhx_model.atomic_write import write_json


def write_status(
    path: Path,
    *,
    subject: str,
    reason: str | None,
    seconds: float,
    stages: Mapping[str, float],
    versions: Mapping[str, str],
    log: Path,
    excluded: Sequence[Mapping[str, str]] = (),
    exit_code: int | None = None,
    notes: Sequence[Mapping[str, str]] = (),
    kept: Sequence[str] = (),
) -> None:
    """Write a status file atomically.

    Parameters
    ----------
    path : Path
        ``sub-X_status.json``; its folder is made.
    subject : str
        Without ``sub-``.
    reason : str or None
        Why the subject's preprocessing failed, as a sentence; None for ``ok``.
    seconds : float
        From start to end.
    stages : mapping
        Stage to seconds.
    versions : mapping
        Program to version.
    log : Path
        Where to read more.
    excluded : sequence of mappings
        Scans excluded although the subject is ok: ``{"file": .., "reason": ..}``.
    exit_code : int or None
        Of the container, where there was one.
    notes : sequence of mappings
        What was not done to usable scans, and why: ``{"file": .., "note": ..}``.
    kept : sequence of str
        File names of scans that were kept by a decision, whatever limits they fail.
    """
    status: dict[str, Any] = {
        "subject": subject,
        "status": "ok" if reason is None else "failed",
        "reason": reason,
        "seconds": round(seconds, 1),
        "stages": {stage: round(s, 1) for stage, s in stages.items()},
        "excluded": [dict(scan) for scan in excluded],
        "notes": [dict(note) for note in notes],
        "kept": list(kept),
        "exit_code": exit_code,
        "versions": dict(versions),
        "log": str(log),
    }
    write_json(path, status)


def failure(status: Mapping[str, Any]) -> str:
    """Why a subject failed, by the content of its status file."""
    return str(status.get("reason") or "its status file gives no reason")
