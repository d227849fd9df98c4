"""Splits of subjects into those to train on and those to validate and test on, as JSON.

Pretraining: a subject is in the holdout if a hash of (seed, cohort, subject) falls below the holdout's fraction, so new
subjects never move earlier ones. Endpoints: 60, 20 and 20 % within each class and each combination of the `stratify`
columns.

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
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bhx_model.atomic_write import write_json
from bhx_model.command_line import json_file, run_command
from bhx_model.errors import DataError
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.section import read_section
from bhx_prep.ingest import participants
from bhx_prep.shards import read

logger = logging.getLogger(__name__)

#: The splits of every five subjects of a class: 0.6, 0.2, 0.2.
BLOCK = ("train", "train", "train", "val", "test")
#: Bins of a regression's label within which subjects are drawn.
BINS = 5
#: Fewer subjects than this leave a split empty.
FEWEST = len(BLOCK)


def split_pretraining(subjects: Iterable[str], holdout: float, seed: int) -> dict[str, list[str]]:
    """Split the subjects of the pretraining.

    Parameters
    ----------
    subjects : iterable of str
        ``cohort/subject``.
    holdout : float
        Fraction in the holdout, in expectation.
    seed : int

    Returns
    -------
    dict
        ``train`` and ``holdout``, sorted.

    Raises
    ------
    DataError
        If no subject is left to train on.
    """
    in_holdout = {subject: _unit(seed, subject) < holdout for subject in sorted(set(subjects))}
    split = {
        name: [subject for subject, out in in_holdout.items() if out == (name == "holdout")]
        for name in ("train", "holdout")
    }
    if not split["train"]:
        raise DataError(
            f"a holdout of {holdout} leaves none of {len(in_holdout)} subjects to train on: lower it"
        )
    return split


def _unit(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone, on every machine and version."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_endpoint(
    name: str,
    spec: EndpointSection,
    seed: int,
    participants_table: pd.DataFrame,
    source: Path,
    bold: set[str],
    t1w: set[str],
) -> dict[str, Any]:
    """Split the subjects of an endpoint and label them.

    Parameters
    ----------
    name : str
        Name of the endpoint.
    spec : EndpointSection
    seed : int
    participants_table : DataFrame
        From `participants.read`.
    source : Path
        Where the table came from, for messages.
    bold, t1w : set of str
        Labels with a BOLD run and with a T1 in the shards.

    Returns
    -------
    dict
        The value of ``seed-<k>.json``. Every subject in the table or in the shards is either in ``rows`` or, with a
        reason, in ``excluded``. A missing value of a `stratify` column is a level of its own.

    Raises
    ------
    DataError
        If a column is missing or a class has too few subjects.
    """
    both = sorted(bold & t1w)
    table = participants.spelt_like(participants_table, bold | t1w)
    values, refused = participants.values(table, spec.column, both, source)
    excluded = dict(refused)
    excluded |= dict.fromkeys(bold - t1w, "has no usable T1 in the shards")
    excluded |= dict.fromkeys(t1w - bold, "has no usable BOLD run in the shards")
    kept: dict[str, int | float] = {}
    for subject, value in values.to_dict().items():
        try:
            kept[str(subject)] = _label(str(value), spec)
        except DataError as error:
            excluded[str(subject)] = str(error)
    levels = [participants.column(table, name, source).to_dict() for name in spec.stratify]
    strata = {s: tuple("missing" if pd.isna(level[s]) else str(level[s]) for level in levels) for s in kept}
    split = {}
    for group, members in _groups(name, spec, kept).items():
        split |= _draw(members, strata, f"{seed}/{name}/{group}")
    return {
        "endpoint": name,
        "cohort": spec.cohort,
        "kind": spec.kind,
        "classes": [c.name for c in spec.classes],
        "seed": seed,
        "rows": [{"subject": s, "label": label, "split": split[s]} for s, label in kept.items()],
        "excluded": [{"subject": s, "reason": reason} for s, reason in sorted(excluded.items())],
    }


def _label(value: str, spec: EndpointSection) -> int | float:
    """Class number or value.

    Raises
    ------
    DataError
        If there is none, with the reason.
    """
    if spec.kind == "regression":
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise DataError(f"{spec.column} is {value!r}, no number")
        return number
    for number, one in enumerate(spec.classes):
        if value in one.values:
            return number
    known = ", ".join(v for one in spec.classes for v in one.values)
    raise DataError(f"{spec.column} is {value!r}, none of the classes' values {known}")


def _groups(name: str, spec: EndpointSection, labels: Mapping[str, int | float]) -> dict[str, list[str]]:
    """Groups of subjects that are split one by one: those of a class, or of a quantile bin."""
    if spec.kind == "regression":
        if len(labels) < FEWEST:
            raise DataError(_too_few(name, "with a label and both scans", len(labels)))
        ranked = sorted(labels, key=lambda s: (labels[s], s))
        n = min(BINS, len(ranked) // FEWEST)
        edges = [len(ranked) * i // n for i in range(n + 1)]
        return {f"bin{i}": ranked[edges[i] : edges[i + 1]] for i in range(n)}
    groups = {c.name: [s for s, label in labels.items() if label == i] for i, c in enumerate(spec.classes)}
    for value, members in groups.items():
        if len(members) < FEWEST:
            raise DataError(_too_few(name, f"of class {value!r} with both scans", len(members)))
    return groups


def _too_few(name: str, what: str, n: int) -> str:
    return (
        f"endpoint {name}: {n} subjects {what}, {FEWEST} are needed for a split of 0.6/0.2/0.2: "
        f"look at its column and classes in the config, and at `bhx status`"
    )


def _draw(members: Sequence[str], strata: Mapping[str, tuple], salt: str) -> dict[str, str]:
    """Split subjects so that every five in the order of their strata are three, one and one."""
    ordered = sorted(members, key=lambda s: (strata[s], _unit(salt, s)))
    split = {}
    for start in range(0, len(ordered), len(BLOCK)):
        # a fresh order for each five: else a stratum of one subject would be in the same split for every seed
        slots = sorted(range(len(BLOCK)), key=lambda slot: _unit(salt, start, slot))
        part = ordered[start : start + len(BLOCK)]
        split |= {subject: BLOCK[slot] for subject, slot in zip(part, slots, strict=False)}
    return split


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
    one.add_argument("--seed", required=True, type=int)
    one.add_argument("--out", required=True, type=Path)
    one = commands.add_parser("endpoint", help="train, val and test of an endpoint, with labels")
    one.add_argument(
        "--endpoint", required=True, type=json_file, metavar="FILE", help="its section as a JSON file"
    )
    one.add_argument("--name", required=True)
    one.add_argument("--seed", required=True, type=int)
    one.add_argument("--participants", required=True, type=Path)
    one.add_argument("--shards", required=True, type=Path, help="index.json of its cohort")
    one.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    if args.action == "pretrain":
        cohorts = read.read_cohorts(args.shards)
        subjects = (f"{c.name}/{s}" for c in cohorts for m in ("bold", "t1w") for s in read.subjects(c, m))
        split = split_pretraining(subjects, args.holdout, args.seed)
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
        table = participants.read(args.participants)
        split = split_endpoint(args.name, spec, args.seed, table, args.participants, bold, t1w)
    write_json(args.out, split, canonical=True)


if __name__ == "__main__":
    sys.exit(main())
