"""Who is the same person, or of the same family, across cohorts, names and studies: compared as hashes.

A person has keys of several kinds. Two people who share one are the same person, or relatives: test subjects who share
one with a subject of the pretraining are not new to the model.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import TableSettings
from bhx_prep.config.section import read_section
from bhx_prep.ingest import participants
from bhx_prep.shards import read

logger = logging.getLogger(__name__)

#: Kind of key -> what two people who share it have in common, for a sentence.
KINDS: Final = MappingProxyType(
    {
        "subject": "the same subject",
        "data_set": "the same subject of the data set",
        "id": "the same id",
        "folder": "the same subject's folder",
        "scan": "the same scan",
        "family": "the same family",
        "study_family": "the same family",
    }
)
#: Kinds that relatives share, who are two people.
FAMILIES: Final = frozenset({"family", "study_family"})
#: Kind and hash.
Key: TypeAlias = tuple[str, str]
#: ``cohort/label`` to the keys of each person.
People: TypeAlias = dict[str, frozenset[Key]]

_DIGITS: Final = 6
_SMALLEST: Final = 1000


@dataclass(frozen=True)
class CohortPeople:
    """Information on the subjects of a cohort besides their scans.

    Attributes
    ----------
    cohort : str
    layout : str or None
        The known data set that it is, e.g. ``abide1``: its ids are the same in every cohort of it.
    folder : str
        Where it is, links followed.
    families : mapping
        Label to the id of the family.
    """

    cohort: str
    layout: str | None = None
    folder: str = ""
    families: Mapping[str, str] = field(default_factory=dict)


def keys(about: CohortPeople, label: str, scans: Iterable[str] = ()) -> frozenset[Key]:
    """Keys of a person.

    Parameters
    ----------
    about : CohortPeople
    label : str
    scans : iterable of str
        Hashes of their scans, see `bhx_prep.shards.read.contents`.
    """
    values = [("subject", f"{about.cohort}/{label}"), *(("scan", scan) for scan in scans)]
    if about.layout:
        values.append(("data_set", f"{about.layout}/{label}"))
    if about.folder:
        values.append(("folder", f"{about.folder}/{label}"))
    if is_distinctive(label):
        values.append(("id", label))
    if (family := about.families.get(label)) is not None:
        values += [("family", f"{about.layout or about.cohort}/{family}"), ("study_family", family)]
    return frozenset((kind, hashed(kind, value)) for kind, value in values)


def hashed(kind: str, value: str) -> str:
    """Hash of a key's value, as a card lists it."""
    return hashlib.sha256(f"{kind} {value}".encode()).hexdigest()[:32]


def is_distinctive(label: str) -> bool:
    """Whether a label is unlikely to be given twice: six digits or more that are no small count, as in 0050642, or an NDA's.

    001 or control12 are someone else in every cohort. The National Data Archive gives a person one id in all studies.
    """
    if label.startswith("NDAR"):
        return True
    digits = re.sub(r"\D", "", label)
    return len(digits) >= _DIGITS and int(digits) >= _SMALLEST


def of_cohort(cohort: read.PackedCohort, about: CohortPeople) -> People:
    """Keys of everybody in the shards of a cohort; without scans, with a warning, if an earlier version packed them."""
    scans: dict[str, set[str]] = {}
    for modality in ("bold", "t1w"):
        try:
            contents = read.contents(cohort, modality)
        except DataError as error:
            logger.warning("scans under several ids are not found: %s", error)
            contents = {subject: set() for subject in read.subjects(cohort, modality)}
        for subject, found in contents.items():
            scans.setdefault(subject, set()).update(found)
    return {f"{cohort.name}/{label}": keys(about, label, found) for label, found in scans.items()}


def about_cohort(cohort: str, given: Mapping[str, Any], with_data: Collection[str]) -> CohortPeople:
    """What a study's settings say of the subjects of a cohort.

    Parameters
    ----------
    cohort : str
        Its name.
    given : mapping
        ``layout`` and ``folder``, and ``participants`` and ``table`` (`TableSettings`), which is read if it names families.
    with_data : collection of str
        Labels of its subjects.
    """
    families: dict[str, str] = {}
    settings = read_section(TableSettings, given.get("table", {}))
    if settings.family is not None:
        table = participants.read(Path(given["participants"]), settings, [settings.family]).match(with_data)
        known = participants.families(table, settings.family)
        families = {label: known[label] for label in with_data if label in known}
    return CohortPeople(cohort, given.get("layout"), given.get("folder", ""), families)


def listed(people: Mapping[str, Collection[Key]]) -> dict[str, list[str]]:
    """Keys of some people as a card lists them: hashes by kind, sorted."""
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for own in people.values():
        for kind, value in own:
            found[kind].add(value)
    return {kind: sorted(values) for kind, values in found.items()}


def shared(people: Mapping[str, Collection[Key]], known: Mapping[str, Collection[str]]) -> dict[str, str]:
    """People who share a key with those that a card lists, and the kind of the first one that they share.

    Parameters
    ----------
    people : mapping
        From `of_cohort`.
    known : mapping
        From `listed`.
    """
    sets = {kind: set(known.get(kind, ())) for kind in KINDS}
    found = {}
    for person, own in sorted(people.items()):
        kinds = {kind for kind, value in own if kind in sets and value in sets[kind]}
        if kinds:
            found[person] = next(kind for kind in KINDS if kind in kinds)
    return found
