"""Assign an endpoint's labelled subjects to training, validation and test: the content of ``seed-<k>.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bhx_model.errors import DataError
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.evaluation import draw, people, split_lists
from bhx_prep.evaluation.endpoint_labels import read_labels
from bhx_prep.ingest import participants
from bhx_prep.ingest.cell_values import listed
from bhx_prep.io import notes

#: What of a subject can be in the shards, and what it is called where it is missing.
SCANS = {"bold": "BOLD run", "t1w": "T1"}


@dataclass(frozen=True)
class Cohort:
    """What is known of the subjects of a cohort.

    Attributes
    ----------
    name : str
    table : Participants
        Its phenotypes, not yet matched with the subjects that have data.
    family : str or None
        Its column with an id per family.
    scans : mapping
        Modality to the labels of the subjects that have it in the shards.
    keys : mapping
        Label to what tells who it is, see `bhx_prep.evaluation.people`; empty where nothing is known.
    """

    name: str
    table: participants.Participants
    family: str | None
    scans: Mapping[str, Collection[str]]
    keys: Mapping[str, frozenset[people.Key]] = field(default_factory=dict)


@dataclass
class _Labelled:
    """Subjects of a cohort with a label and all scans, and why others have none."""

    labels: dict[str, int | float]
    excluded: dict[str, str]
    notes: list[str]
    related: dict[str, str]
    table: participants.Participants
    same_scan: list[list[str]]


def make(
    name: str,
    spec: EndpointSection,
    seed: int,
    own: Cohort,
    *,
    modalities: Collection[str] = ("bold", "t1w"),
    others: Sequence[Cohort] = (),
    sites: Sequence[Sequence[str]] = (),
    lists: tuple[participants.Participants, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Split the subjects of an endpoint and label them.

    Parameters
    ----------
    name : str
        Name of the endpoint.
    spec : EndpointSection
    seed : int
    own : Cohort
        The endpoint's.
    modalities : collection of str
        What a subject needs, as some row of the endpoint's table reads it; with none of them either will do.
    others : sequence of Cohort
        Those of `test_on`.
    sites : sequence of sequence of str
        Sites that are tested in each split (leave-one-site-out), see `split_seeds.site_folds`.
    lists : (Participants, sequence of str), optional
        Splits from a file, see `split_lists.read`.

    Returns
    -------
    dict
        The value of ``seed-<k>.json``. Every subject in the table or in the shards is either in ``rows`` or, with a
        reason, in ``excluded``; ``notes`` say what was assumed. A missing value of a `stratify` column is a level of its
        own.

    Raises
    ------
    DataError
        If a column is missing, a class has too few subjects, or a file of splits does not fit the subjects.
    """
    modalities = sorted(modalities)
    found = _labelled(spec, own, modalities)
    split = _split(name, spec, seed, own, found, sites, lists)
    rows = [{"subject": s, "label": label, "split": split[s]} for s, label in found.labels.items()]
    excluded = [{"subject": s, "reason": reason} for s, reason in sorted(found.excluded.items())]
    said = found.notes
    trained = {s: own.keys.get(s, frozenset()) for s in found.labels}
    seen = [_Seen(own.name, "which is trained on", people.listed(trained))]
    for other in others:
        tested, left_out, more = _external(spec, other, seen, modalities)
        who = {row["subject"]: other.keys.get(row["subject"], frozenset()) for row in tested}
        persons = {kind: own for kind, own in people.listed(who).items() if kind not in people.FAMILIES}
        seen.append(_Seen(other.name, "where it is tested", persons))
        rows, excluded, said = [*rows, *tested], [*excluded, *left_out], [*said, *more]
    said = [*said, *_of_one_label(spec, rows)]
    return {
        "endpoint": name,
        "seed": seed,
        **_described(spec),
        "modalities": modalities,
        **({"sites": list(sites[seed])} if spec.splits.scheme == "leave-one-site-out" else {}),
        **({} if lists is None else {"list": lists[1][seed]}),
        "rows": rows,
        "excluded": excluded,
        "same_scan": found.same_scan,
        "notes": said,
    }


def _split(
    name: str,
    spec: EndpointSection,
    seed: int,
    own: Cohort,
    found: _Labelled,
    sites: Sequence[Sequence[str]],
    lists: tuple[participants.Participants, Sequence[str]] | None,
) -> dict[str, str]:
    """Assign every subject by the scheme; unassigned ones move from `found`'s labels to its exclusions."""
    if spec.splits.scheme == "leave-one-site-out":
        return _leave_site_out(name, spec, seed, found, sites)
    if spec.splits.scheme == "file":
        assert lists is not None
        return _from_file(name, spec, seed, found, own, lists)
    train, val, test = spec.splits.rules.shares
    shares = (train / (train + val), val / (train + val), 0.0) if spec.test_on else (train, val, test)
    return draw.divide(name, spec, seed, found.labels, _strata(spec, found), found.related, shares)


def _described(spec: EndpointSection) -> dict[str, Any]:
    """What the section says of the label and of how it is split, for those who read the split alone."""
    rules = spec.splits.rules
    return {
        "cohort": spec.cohort,
        "kind": spec.kind,
        "classes": [c.name for c in spec.classes],
        "scheme": spec.splits.scheme,
        "protocol": spec.splits.protocol,
        "inner_folds": rules.inner_folds,
        "refit": rules.refit,
        **({"adjustments": spec.scoring.names} if spec.scoring.names else {}),
        "metrics_first": list(rules.metrics),
    }


def _labelled(spec: EndpointSection, cohort: Cohort, modalities: Sequence[str]) -> _Labelled:
    """Labels of those who have all modalities; a scan under two ids counts once."""
    with_data = {s for labels in cohort.scans.values() for s in labels}
    complete = sorted(s for s in with_data if all(s in cohort.scans[m] for m in modalities))
    table = cohort.table.match(with_data)
    column, excluded = participants.values(table, spec.column, complete, spec.values)
    for modality in modalities:
        lacking = f"has no usable {SCANS[modality]} in the shards"
        excluded |= dict.fromkeys(sorted(with_data - set(cohort.scans[modality])), lacking)
    labels, refused, assumed = read_labels(column, spec)
    excluded |= refused
    related = participants.families(table, cohort.family) if cohort.family else {}
    kept, twice, groups = _once_each(labels, cohort.keys)
    said = [*table.notes(), *column.notes(), *assumed]
    for group in groups:
        ids = listed([f"sub-{s}" for s in group], 60)
        what = "the first is kept" if group[0] in kept else "their labels differ, none is kept"
        said.append(notes.note(notes.Kind.TABLE, f"one scan under several ids, {what}, e.g. {ids}"))
    return _Labelled(kept, excluded | twice, said, related, table, groups)


def _once_each(
    labels: Mapping[str, int | float], keys: Mapping[str, frozenset[people.Key]]
) -> tuple[dict[str, int | float], dict[str, str], list[list[str]]]:
    """Labels without scans that occur under another id, the reasons, and the groups that share a scan."""
    group_of: dict[people.Key, str] = {}
    same: dict[str, list[str]] = {}
    for subject in sorted(labels):
        scans = [key for key in keys.get(subject, ()) if key[0] == "scan"]
        first = min((group_of[key] for key in scans if key in group_of), default=subject)
        group_of |= dict.fromkeys(scans, first)
        same.setdefault(first, []).append(subject)
    groups = [group for group in same.values() if len(group) > 1]
    kept, excluded = dict(labels), {}
    for group in groups:
        agree = len({labels[s] for s in group}) == 1
        for subject in group[1:] if agree else group:
            del kept[subject]
            other = group[0] if agree else next(s for s in group if s != subject)
            why = "which is kept" if agree else "whose label differs: keep one of them"
            excluded[subject] = f"holds the same scan as sub-{other}, {why}"
    return kept, excluded, groups


def _strata(spec: EndpointSection, found: _Labelled) -> dict[str, tuple]:
    levels = [found.table.column(level).known for level in spec.stratify]
    return {s: tuple(level.get(s, "missing") for level in levels) for s in found.labels}


def _leave_site_out(
    name: str, spec: EndpointSection, seed: int, found: _Labelled, sites: Sequence[Sequence[str]]
) -> dict[str, str]:
    """Subjects of some sites are tested; all others, but for their relatives, train and validate."""
    if seed >= len(sites):
        raise DataError(f"endpoint {name}: there are {len(sites)} sites to leave out, none is number {seed}")
    column = spec.splits.site or spec.stratify[0]
    site = found.table.column(column).known
    tested = {s for s in found.labels if site.get(s) in sites[seed]}
    families = {found.related[s] for s in tested if s in found.related}
    for subject in list(found.labels):
        if subject in tested:
            continue
        if subject not in site:
            found.excluded[subject] = f"its {notes.brief(column)} is unknown"
        elif found.related.get(subject) in families:
            found.excluded[subject] = "is of a family of which a member is tested at another site"
        else:
            continue
        del found.labels[subject]
    if len(tested) < 2:
        msg = (
            f"endpoint {name}, seed {seed}: {len(tested)} subjects of site {listed(list(sites[seed]), 40)} have a label and "
            "all scans, two are needed: see `bhx status`"
        )
        raise DataError(msg)
    train, val, _ = spec.splits.rules.shares
    rest = {s: label for s, label in found.labels.items() if s not in tested}
    strata = _strata(spec, found)
    shares = (train / (train + val), val / (train + val), 0.0)
    for number, one in enumerate(spec.classes):
        n = sum(label == number for label in rest.values())
        if n < draw.fewest(shares):
            msg = (
                f"endpoint {name}, seed {seed}: without site {listed(list(sites[seed]), 40)} there are {n} subjects of "
                f"class {notes.quote(one.name, 24)} to train on, too few: use `scheme: random`"
            )
            raise DataError(msg)
    split = draw.divide(name, spec, seed, rest, strata, found.related, shares)
    return split | dict.fromkeys(tested, "test")


def _from_file(
    name: str,
    spec: EndpointSection,
    seed: int,
    found: _Labelled,
    own: Cohort,
    lists: tuple[participants.Participants, Sequence[str]],
) -> dict[str, str]:
    """The parts that a file gives the subjects; who is not in it takes no part."""
    table, columns = lists
    if seed >= len(columns):
        raise DataError(f"{table.file} holds {len(columns)} splits, none is number {seed}: lower `seeds`")
    with_data = {s for labels in own.scans.values() for s in labels}
    everybody = with_data | found.table.rows.keys() | found.table.excluded.keys()
    table = table.match(everybody)
    unknown = sorted({*table.rows, *table.excluded} - everybody)
    if unknown:
        msg = (
            f"{table.file} names {len(unknown)} people that cohort {own.name} does not have, e.g. "
            f"{notes.quote(unknown[0], 24)}: remove them, or name the cohort's own file"
        )
        raise DataError(msg)
    given = split_lists.parts(table, columns[seed])
    for subject in [s for s in found.labels if s not in given]:
        del found.labels[subject]
        found.excluded[subject] = f"takes no part in {notes.quote(columns[seed])} of {table.file}"
    split = {s: given[s] for s in found.labels}
    _check_file(name, spec, f"{notes.quote(columns[seed], 24)} of {table.file}", found, split)
    return split


def _check_file(
    name: str, spec: EndpointSection, file: str, found: _Labelled, split: Mapping[str, str]
) -> None:
    """Refuse a split of a file on which nothing can be learned or said, or that parts a family."""
    count = Counter(split.values())
    for part, least in (("train", 2), ("val", 1), ("test", 2)):
        if count[part] < least:
            msg = (
                f"endpoint {name}: {file} leaves {count[part]} usable subjects in {part}, {least} are needed"
            )
            raise DataError(msg)
    there = {found.labels[s] for s, part in split.items() if part == "train"}
    absent = [c.name for number, c in enumerate(spec.classes) if number not in there]
    if absent:
        raise DataError(f"endpoint {name}: {file} has nobody of class {absent[0]!r} in train: train on some")
    parts: dict[str, dict[str, str]] = {}
    for subject, part in split.items():
        if subject in found.related:
            parts.setdefault(found.related[subject], {})[part] = subject
    for members in parts.values():
        if len(members) > 1:
            part = "test" if "test" in members else "val"
            other = next(s for one, s in members.items() if one != part)
            does = "tests" if part == "test" else "validates on"
            msg = f"endpoint {name}: {file} {does} sub-{members[part]}, not its relative sub-{other}: keep families whole"
            raise DataError(msg)


@dataclass(frozen=True)
class _Seen:
    """Who of a cohort has a part already, as keys by kind."""

    cohort: str
    part: str
    keys: Mapping[str, Collection[str]]


def _of_one_label(spec: EndpointSection, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes that validation or test subjects all have one label, so that some metrics do not exist."""
    said = []
    for part, name in (("val", "validation"), ("test", "test")):
        there = {row["label"] for row in rows if row["split"] == part}
        if len(there) == 1:
            label = there.pop()
            of = (
                f"of class {notes.quote(spec.classes[int(label)].name, 24)}" if spec.classes else f"{label:g}"
            )
            n = sum(row["split"] == part for row in rows)
            lack = "AUROC" if spec.classes else "Pearson r, R2 and calibration slope"
            what = (
                f"{lack} of the split cannot be told"
                if part == "test"
                else "what is chosen on them may be chance"
            )
            said.append(notes.note(notes.Kind.TABLE, f"all {n} {name} subjects are {of}: {what}"))
    return said


def _external(
    spec: EndpointSection, other: Cohort, seen: Sequence[_Seen], modalities: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Rows and exclusions of a cohort that is tested only.

    Nobody who is, or is related to, a subject trained on, the first of `seen`; and who is in several cohorts that are
    tested counts once.
    """
    coded = spec.coded_in(other.name)
    absent = [SCANS[m] for m in modalities if not other.scans.get(m)]
    if absent:
        msg = f"test_on: nobody of cohort {other.name} has a {absent[0]}, which cohort {seen[0].cohort} has: leave it out"
        raise DataError(msg)
    there = _labelled(coded, other, modalities)
    also = ""
    for one in seen:
        known = people.shared({s: other.keys.get(s, frozenset()) for s in there.labels}, one.keys)
        for subject, kind in known.items():
            del there.labels[subject]
            there.excluded[subject] = f"{people.KINDS[kind]} is in cohort {one.cohort}, {one.part}"
        also += f" and are not in {one.cohort}, as {len(known)} others are" if known else ""
    if len(there.labels) < 2:
        msg = (
            f"test_on: {len(there.labels)} subjects of cohort {other.name} have a label and all scans{also}; two are "
            "needed: name another cohort, or look at `bhx status`"
        )
        raise DataError(msg)
    rows = [
        {"subject": s, "label": label, "split": "test", "cohort": other.name}
        for s, label in there.labels.items()
    ]
    excluded = [
        {"subject": s, "reason": reason, "cohort": other.name} for s, reason in sorted(there.excluded.items())
    ]
    return rows, excluded, there.notes
