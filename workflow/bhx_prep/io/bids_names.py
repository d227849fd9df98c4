"""BIDS entities and file names; the only module that composes or parses names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bhx_model.errors import ConfigError, DataError

#: Entities that distinguish the scans of a subject, in BIDS order.
SCAN_ENTITIES = ("ses", "task", "acq", "ce", "rec", "dir", "run")
#: Entities whose values are whole numbers: ``run-01`` is ``run-1``. Values of all others are labels.
INDICES = ("run", "echo")

_PADDED = re.compile(rf"_({'|'.join(INDICES)})-0+(?=\d)")
_VALUE = re.compile(r"[A-Za-z0-9+]+")
_COHORT = re.compile(r"[a-z][a-z0-9]*")


def check_label(value: str, what: str) -> str:
    """Return `value` if it is a BIDS label (letters and digits), else raise.

    Guards every place where an id becomes part of a path or of a command.

    Raises
    ------
    DataError
        Named after `what`, e.g. ``subject``.
    """
    if not _VALUE.fullmatch(value):
        msg = f"{what} {value!r} is not a BIDS label: only letters and digits may be used"
        raise DataError(msg)
    return value


def check_cohort(value: str) -> str:
    """Return `value` if it may name a cohort: lower-case letters and digits, a letter first.

    Raises
    ------
    ConfigError
        If it may not.
    """
    if not _COHORT.fullmatch(value):
        msg = f"cohort {value!r}: use lower-case letters and digits, a letter first (e.g. abide1)"
        raise ConfigError(msg)
    return value


def stem(subject: str, entities: Mapping[str, str]) -> str:
    """``sub-01_ses-a_task-rest_run-1`` from a subject and those of its entities that distinguish scans.

    Parameters
    ----------
    subject : str
        Without ``sub-``.
    entities : Mapping[str, str]
        Entity to value; empty values and entities outside `SCAN_ENTITIES` are ignored.
    """
    parts = [f"sub-{check_label(subject, 'subject')}"]
    parts += [f"{e}-{check_label(str(entities[e]), e)}" for e in SCAN_ENTITIES if entities.get(e)]
    return "_".join(parts)


def parse(name: str) -> dict[str, str]:
    """Entities of a BIDS file name or stem: ``parse("sub-01_task-rest_bold.nii.gz")["task"] == "rest"``.

    The suffix and extension, if any, are dropped; parts that are not ``entity-value`` are ignored.
    """
    found = (part.split("-", 1) for part in name.split(".", 1)[0].split("_") if "-" in part)
    return {entity: value for entity, value in found if value}


def suffix(name: str) -> str:
    """``bold`` of ``sub-01_task-rest_bold.nii.gz``."""
    return name.split(".", 1)[0].rsplit("_", 1)[-1]


def sample_key(cohort: str, subject: str, entities: Mapping[str, str]) -> str:
    """Key of a sample in the shards: ``{cohort}_{stem}``."""
    return f"{check_cohort(cohort)}_{stem(subject, entities)}"


def unpadded(entities: Mapping[str, str]) -> dict[str, str]:
    """Entities with indices as numbers: ``run-01`` and ``run-1`` become equal. Some versions of programs pad them."""
    return {e: (v.lstrip("0") or "0") if e in INDICES and v.isdecimal() else v for e, v in entities.items()}


def same_scan(key: str) -> str:
    """What the sample keys, stems or file names of one scan have in common, however its indices are padded."""
    return _PADDED.sub(r"_\1-", key)
