"""Who is trained on, and who is tested: splits of people, as JSON.

Pretraining: a person is held out if a hash of (seed, cohort, person) falls below the share, so new people never move
old ones. Endpoints: six to two to two within each class and each mix of the `stratify` columns.

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
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bhx_model.atomic_write import write_json
from bhx_model.command_line import json_file
from bhx_model.errors import DataError
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.section import read_section
from bhx_prep.ingest import participants
from bhx_prep.shards import read

#: The splits of every five people of a class: 0.6, 0.2, 0.2.
BLOCK = ("train", "train", "train", "val", "test")
#: Bins of a regression's label within which people are drawn.
BINS = 5
#: Fewer people than this cannot be split in a way that means anything.
FEWEST = len(BLOCK)


def pretrain(people: Iterable[str], holdout: float, seed: int) -> dict[str, list[str]]:
    """Split the people of the pretraining.

    Parameters
    ----------
    people : iterable of str
        ``cohort/subject``.
    holdout : float
        Share that is held out, in expectation.
    seed : int

    Returns
    -------
    dict
        ``train`` and ``holdout``, sorted.

    Raises
    ------
    ValueError
        If nobody is left to train on.
    """
    held = {person: _unit(seed, person) < holdout for person in sorted(set(people))}
    split = {
        name: [p for p, out in held.items() if out == (name == "holdout")] for name in ("train", "holdout")
    }
    if not split["train"]:
        raise DataError(f"a holdout of {holdout} leaves none of {len(held)} people to train on: lower it")
    return split


def _unit(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone, on every machine and version."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def endpoint(
    name: str,
    spec: EndpointSection,
    seed: int,
    people: pd.DataFrame,
    source: Path,
    bold: set[str],
    t1w: set[str],
) -> dict[str, Any]:
    """Split the people of an endpoint and label them.

    Parameters
    ----------
    name : str
        Name of the endpoint.
    spec : EndpointSection
    seed : int
    people : DataFrame
        From `participants.read`.
    source : Path
        Where the table came from, for messages.
    bold, t1w : set of str
        Labels with a BOLD run and with a T1 in the shards.

    Returns
    -------
    dict
        The value of ``seed-<k>.json``. Everybody in the table or in the shards is either in ``rows`` or, with a
        reason, in ``left_out``. A missing value of a `stratify` column is a level of its own.

    Raises
    ------
    ValueError
        If a column is missing or a class has too few people.
    """
    both = sorted(bold & t1w)
    people = participants.spelt_like(people, bold | t1w)
    values, refused = participants.values(people, spec.column, both, source)
    left_out = dict(refused)
    left_out |= dict.fromkeys(bold - t1w, "has no usable T1 in the shards")
    left_out |= dict.fromkeys(t1w - bold, "has no usable BOLD run in the shards")
    kept: dict[str, int | float] = {}
    for subject, value in values.to_dict().items():
        try:
            kept[str(subject)] = _label(str(value), spec)
        except ValueError as error:
            left_out[str(subject)] = str(error)
    levels = [participants.column(people, name, source).to_dict() for name in spec.stratify]
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
        "left_out": [{"subject": s, "reason": reason} for s, reason in sorted(left_out.items())],
    }


def _label(value: str, spec: EndpointSection) -> int | float:
    """Class number or value; a ValueError says why there is none."""
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
    """People who are split among themselves: those of a class, or of a quantile bin."""
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
        f"endpoint {name}: {n} people {what}, {FEWEST} are needed for a split of 0.6/0.2/0.2: "
        f"look at its column and classes in the config, and at `bhx status`"
    )


def _draw(members: Sequence[str], strata: Mapping[str, tuple], salt: str) -> dict[str, str]:
    """Split people so that every five in the order of their strata are three, one and one."""
    ordered = sorted(members, key=lambda s: (strata[s], _unit(salt, s)))
    split = {}
    for start in range(0, len(ordered), len(BLOCK)):
        # a fresh order for each five: else a stratum of one person would be in the same split for every seed
        slots = sorted(range(len(BLOCK)), key=lambda slot: _unit(salt, start, slot))
        part = ordered[start : start + len(BLOCK)]
        split |= {subject: BLOCK[slot] for subject, slot in zip(part, slots, strict=False)}
    return split


def main(argv: Sequence[str] | None = None) -> int:
    """Make one split file from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.evaluation.splits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="action", required=True)
    one = commands.add_parser("pretrain", help="train and holdout of a pretraining")
    one.add_argument("--shards", required=True, nargs="+", type=Path, help="index.json of every cohort")
    one.add_argument("--holdout", required=True, type=float, help="share held out, e.g. 0.1")
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
    try:
        if args.action == "pretrain":
            cohorts = read.read_cohorts(args.shards)
            people = (f"{c.name}/{s}" for c in cohorts for m in ("bold", "t1w") for s in read.subjects(c, m))
            split = pretrain(people, args.holdout, args.seed)
            if args.holdout and not split["holdout"]:
                print(f"splits: nobody of {len(split['train'])} people is held out", file=sys.stderr)
        else:
            spec = read_section(EndpointSection, args.endpoint)
            cohort = read.read_index(args.shards)
            if cohort.name != spec.cohort:
                raise DataError(
                    f"{args.shards} is of cohort {cohort.name}, endpoint {args.name} of {spec.cohort}"
                )
            bold, t1w = (read.subjects(cohort, m) for m in ("bold", "t1w"))
            table = participants.read(args.participants)
            split = endpoint(args.name, spec, args.seed, table, args.participants, bold, t1w)
        write_json(args.out, split, canonical=True)
    except (ValueError, OSError) as error:
        print(f"splits: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
