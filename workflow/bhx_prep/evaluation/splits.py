"""Splits of subjects into those to train on and those to validate and test on, as JSON.

Pretraining: a subject is in the holdout if a hash of (seed, cohort, subject) falls below the holdout's fraction, so new
subjects never move earlier ones; a share of the others is drawn in the same way. Endpoints: 60, 20 and 20 % within each
class and each combination of the `stratify` columns. Members of a family, where a cohort's table names families, are in
one split.

Examples
--------
::

    python -m bhx_prep.evaluation.splits pretrain --shards results/lemon/shards/index.json --holdout 0.1 --seed 0 --out F
    python -m bhx_prep.evaluation.splits endpoint --endpoint diagnosis.json --name diagnosis --seed 0
        --participants participants.tsv --shards results/patients/shards/index.json --out F
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bhx_model.atomic_write import write_json
from bhx_model.command_line import json_file, run_command
from bhx_model.errors import DataError
from bhx_prep.config.cohorts import TableSettings
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.section import read_section
from bhx_prep.evaluation.endpoint_labels import read_labels
from bhx_prep.ingest import participants
from bhx_prep.shards import read

logger = logging.getLogger(__name__)

#: The splits of every five subjects of a class: 0.6, 0.2, 0.2.
BLOCK = ("train", "train", "train", "val", "test")
#: Bins of a regression's label within which subjects are drawn.
BINS = 5
#: What a subject needs of a modality, in sentences.
SCANS = {"bold": "BOLD run", "t1w": "T1"}
#: Fewer subjects than this leave a split empty.
FEWEST = len(BLOCK)


def split_pretraining(
    subjects: Iterable[str],
    holdout: float,
    seed: int,
    families: Mapping[str, str] = MappingProxyType({}),
    *,
    share: float = 1.0,
) -> dict[str, list[str]]:
    """Split the subjects of the pretraining.

    Parameters
    ----------
    subjects : iterable of str
        ``cohort/subject``.
    holdout : float
        Fraction in the holdout, in expectation.
    seed : int
    families : mapping
        Subject to the id of its family, also of another cohort; who is not there has no relatives.
    share : float
        Fraction of the others that is trained on, in expectation. Those of a smaller one are among those of a larger one.

    Returns
    -------
    dict
        ``train`` and ``holdout``, sorted; and ``left_out``, who play no part, where there are any.

    Raises
    ------
    DataError
        If no subject is left to train on.
    """
    # a space: no cohort may be called so
    drawn = {s: f" family/{families[s]}" if s in families else s for s in sorted(set(subjects))}
    in_holdout = {subject: _unit(seed, one) < holdout for subject, one in drawn.items()}
    split = {
        name: [subject for subject, out in in_holdout.items() if out == (name == "holdout")]
        for name in ("train", "holdout")
    }
    if not split["train"]:
        raise DataError(
            f"a holdout of {holdout} leaves none of {len(in_holdout)} subjects to train on: lower it"
        )
    left_out = [subject for subject in split["train"] if _unit("share", seed, drawn[subject]) >= share]
    if len(left_out) == len(split["train"]):
        raise DataError(f"a share of {share} leaves none of {len(left_out)} subjects to train on: raise it")
    if left_out:
        split = {**split, "train": sorted(set(split["train"]) - set(left_out)), "left_out": left_out}
    return split


def read_families(
    tables: Mapping[str, Mapping[str, Any]], subjects: Mapping[str, Iterable[str]]
) -> dict[str, str]:
    """Families of the subjects of a pretraining.

    Parameters
    ----------
    tables : mapping
        Cohort to its ``participants``, a path, and ``table``, the values of its `TableSettings`; cohorts whose table
        names no families are not there.
    subjects : mapping
        Cohort to the labels of its subjects with data.

    Returns
    -------
    dict
        ``cohort/subject`` to the id of the family.
    """
    found = {}
    for cohort, given in sorted(tables.items()):
        settings = read_section(TableSettings, given["table"])
        if settings.family is None:
            continue
        with_data = set(subjects[cohort])
        table = participants.read(Path(given["participants"]), settings, [settings.family]).match(with_data)
        known = participants.families(table, settings.family)
        mine = {f"{cohort}/{subject}": known[subject] for subject in with_data & known.keys()}
        logger.info(
            "%s: %s of %s subjects have a family, %s families", cohort, len(mine), len(with_data),
            len(set(mine.values())),
        )  # fmt: skip
        found |= mine
    return found


def _unit(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone, on every machine and version."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_endpoint(
    name: str,
    spec: EndpointSection,
    seed: int,
    table: participants.Participants,
    family: str | None,
    bold: set[str],
    t1w: set[str],
    modalities: Collection[str] = ("bold", "t1w"),
) -> dict[str, Any]:
    """Split the subjects of an endpoint and label them.

    Parameters
    ----------
    name : str
        Name of the endpoint.
    spec : EndpointSection
    seed : int
    table : Participants
        From `participants.read`.
    family : str or None
        Its column with an id per family.
    bold, t1w : set of str
        Labels with a BOLD run and with a T1 in the shards.
    modalities : collection of str
        Which of both a subject needs, as some row of the endpoint's table reads it; with none of them either will do.

    Returns
    -------
    dict
        The value of ``seed-<k>.json``. Every subject in the table or in the shards is either in ``rows`` or, with a
        reason, in ``excluded``; ``notes`` say what was assumed. A missing value of a `stratify` column is a level of its
        own.

    Raises
    ------
    DataError
        If a column is missing or a class has too few subjects.
    """
    anybody = bold | t1w
    lacking = {"t1w": bold - t1w, "bold": t1w - bold}
    left_out = {s: f"has no usable {SCANS[m]} in the shards" for m in modalities for s in lacking[m]}
    table = table.match(anybody)
    column, excluded = participants.values(table, spec.column, sorted(anybody - left_out.keys()), spec.values)
    excluded |= left_out
    labels, refused, assumed = read_labels(column, spec)
    excluded |= refused
    levels = [table.column(level).known for level in spec.stratify]
    strata = {s: tuple(level.get(s, "missing") for level in levels) for s in labels}
    related = participants.families(table, family) if family else {}
    units = _units(labels, related)
    split = {}
    for group, members in _groups(name, spec, labels, units).items():
        drawn = _draw(members, units, labels, strata, f"{seed}/{name}/{group}")
        split |= {subject: part for first, part in drawn.items() for subject in units[first]}
    _check_classes(name, spec, labels, split)
    return {
        "endpoint": name,
        "cohort": spec.cohort,
        "kind": spec.kind,
        "classes": [c.name for c in spec.classes],
        "seed": seed,
        "rows": [{"subject": s, "label": label, "split": split[s]} for s, label in labels.items()],
        "excluded": [{"subject": s, "reason": reason} for s, reason in sorted(excluded.items())],
        "notes": [*table.notes(), *column.notes(), *assumed],
        "modalities": sorted(modalities),
    }


def _units(labels: Mapping[str, int | float], related: Mapping[str, str]) -> dict[str, list[str]]:
    """Subjects that stay together, by the first of them: families, and everybody else alone."""
    by_family: dict[str, list[str]] = {}
    for subject in sorted(labels):
        # a space: no label holds one
        by_family.setdefault(f"family {related[subject]}" if subject in related else subject, []).append(
            subject
        )
    return {members[0]: members for members in by_family.values()}


def _groups(
    name: str, spec: EndpointSection, labels: Mapping[str, int | float], units: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """Groups of units that are split one by one: those of a class, or of a quantile bin.

    A family of several classes is in the group of the rarest of them.
    """
    apart = " of different families" if len(units) < len(labels) else ""
    if spec.kind == "regression":
        if len(units) < FEWEST:
            raise DataError(_too_few(name, f"with a label and the scans{apart}", len(units)))
        mean = {first: sum(labels[s] for s in members) / len(members) for first, members in units.items()}
        ranked = sorted(units, key=lambda first: (mean[first], first))
        n = min(BINS, len(ranked) // FEWEST)
        edges = [len(ranked) * i // n for i in range(n + 1)]
        return {f"bin{i}": ranked[edges[i] : edges[i + 1]] for i in range(n)}
    count = Counter(labels.values())
    groups: dict[str, list[str]] = {c.name: [] for c in spec.classes}
    holding = Counter[str]()
    for first, members in units.items():
        found = {labels[s] for s in members}
        rarest = min(found, key=lambda label: (count[label], label))
        groups[spec.classes[int(rarest)].name].append(first)
        holding.update(spec.classes[int(label)].name for label in found)
    for value in groups:
        if holding[value] < FEWEST:
            raise DataError(_too_few(name, f"of class {value!r} with the scans{apart}", holding[value]))
    return groups


def _too_few(name: str, what: str, n: int) -> str:
    return (
        f"endpoint {name}: {n} subjects {what}, {FEWEST} are needed for a split of 0.6/0.2/0.2: "
        f"look at its column and classes in the config, and at `bhx status`"
    )


def _draw(
    firsts: Sequence[str],
    units: Mapping[str, list[str]],
    labels: Mapping[str, int | float],
    strata: Mapping[str, tuple],
    salt: str,
) -> dict[str, str]:
    """Split units so that every five in the order of their sizes, classes and strata are three, one and one."""

    def order(first: str) -> tuple:
        members = units[first]
        mixed = sorted({labels[s] for s in members}) if len(members) > 1 else []
        return len(members), len(mixed), mixed, strata[first], _unit(salt, first)

    ordered = sorted(firsts, key=order)
    split = {}
    for start in range(0, len(ordered), len(BLOCK)):
        # a fresh order for each five: else a stratum of one subject would be in the same split for every seed
        slots = sorted(range(len(BLOCK)), key=lambda slot: _unit(salt, start, slot))
        part = ordered[start : start + len(BLOCK)]
        split |= {subject: BLOCK[slot] for subject, slot in zip(part, slots, strict=False)}
    return split


def _check_classes(
    name: str, spec: EndpointSection, labels: Mapping[str, int | float], split: Mapping[str, str]
) -> None:
    """Refuse splits without anybody of a class, which families that stay together can leave."""
    there = {(labels[subject], part) for subject, part in split.items()}
    for number, one in enumerate(spec.classes):
        for part in ("train", "val", "test"):
            if (number, part) not in there:
                msg = (
                    f"endpoint {name}: families that stay together leave nobody of class {one.name!r} in {part}: "
                    "more families are needed, or another seed"
                )
                raise DataError(msg)


def main(argv: Sequence[str] | None = None) -> int:
    """Make one split file; 0 when made, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.evaluation.splits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="action", required=True)
    one = commands.add_parser("pretrain", help="train and holdout of a pretraining")
    one.add_argument("--shards", required=True, nargs="+", type=Path, help="index.json of every cohort")
    one.add_argument("--holdout", required=True, type=float, help="fraction held out, e.g. 0.1")
    one.add_argument("--share", default=1.0, type=float, help="fraction of the others to train on (1)")
    one.add_argument("--seed", required=True, type=int)
    one.add_argument(
        "--families",
        type=json_file,
        default={},
        metavar="FILE",
        help="tables that name families, as a JSON file",
    )
    one.add_argument("--out", required=True, type=Path)
    one = commands.add_parser("endpoint", help="train, val and test of an endpoint, with labels")
    one.add_argument(
        "--endpoint", required=True, type=json_file, metavar="FILE", help="its section as a JSON file"
    )
    one.add_argument("--name", required=True)
    one.add_argument("--seed", required=True, type=int)
    one.add_argument("--participants", required=True, type=Path)
    one.add_argument(
        "--table",
        type=json_file,
        default={},
        metavar="FILE",
        help="how it is read (TableSettings) as a JSON file",
    )
    one.add_argument("--shards", required=True, type=Path, help="index.json of its cohort")
    one.add_argument(
        "--modalities", nargs="*", choices=tuple(SCANS), default=tuple(SCANS),
        help="what a subject needs in the shards",
    )  # fmt: skip
    one.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    if args.action == "pretrain":
        with_data = {
            c.name: {s for m in ("bold", "t1w") for s in read.subjects(c, m)}
            for c in read.read_cohorts(args.shards)
        }
        families = read_families(args.families, with_data)
        subjects = (f"{cohort}/{s}" for cohort, mine in with_data.items() for s in mine)
        split = split_pretraining(subjects, args.holdout, args.seed, families, share=args.share)
        if args.holdout and not split["holdout"]:
            logger.warning("no subject of %d is held out", len(split["train"]))
    else:
        spec = read_section(EndpointSection, args.endpoint)
        cohort = read.read_index(args.shards)
        if cohort.name != spec.cohort:
            raise DataError(
                f"{args.shards} is of cohort {cohort.name}, endpoint {args.name} of {spec.cohort}"
            )
        bold, t1w = (read.subjects(cohort, m) for m in ("bold", "t1w"))
        settings = read_section(TableSettings, args.table)
        needed = [spec.column, *spec.stratify, *([settings.family] if settings.family else [])]
        table = participants.read(args.participants, settings, needed)
        split = split_endpoint(args.name, spec, args.seed, table, settings.family, bold, t1w, args.modalities)
        for text in split["notes"]:
            logger.info("%s", text)
    write_json(args.out, split, canonical=True)


if __name__ == "__main__":
    sys.exit(main())
