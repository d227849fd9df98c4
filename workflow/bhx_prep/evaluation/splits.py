"""Split subjects into training, validation and test, as JSON.

Pretraining: a subject is in the holdout if a hash of (seed, cohort, subject) falls below the holdout's fraction, so new
subjects never move earlier ones; a share of the others is drawn in the same way. Endpoints: 60, 20 and 20 % within each
class and each combination of the `stratify` columns, or as the section `splits` says. Members of a family, where a
cohort's table names families, are in one split, and a scan that is there under two ids counts once.

Examples
--------
::

    python -m bhx_prep.evaluation.splits pretrain --shards results/lemon/shards/index.json --holdout 0.1 --seed 0 --out F
    python -m bhx_prep.evaluation.splits endpoint --endpoint diagnosis.json --name diagnosis --seed 0
        --participants participants.tsv --shards results/patients/shards/index.json --out F
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bhx_model import given_weights
from bhx_model.atomic_write import read_json, write_json
from bhx_model.command_line import json_file, json_object, run_command, seed_number
from bhx_model.errors import DataError
from bhx_prep.config.cohorts import TableSettings
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.section import read_section
from bhx_prep.evaluation import draw, endpoint_split, guards, people, split_lists
from bhx_prep.evaluation.endpoint_split import Cohort
from bhx_prep.ingest import participants
from bhx_prep.shards import read

logger = logging.getLogger(__name__)


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
    in_holdout = {subject: draw.unit(seed, one) < holdout for subject, one in drawn.items()}
    split = {
        name: [subject for subject, out in in_holdout.items() if out == (name == "holdout")]
        for name in ("train", "holdout")
    }
    if not split["train"]:
        raise DataError(
            f"a holdout of {holdout} leaves none of {len(in_holdout)} subjects to train on: lower it"
        )
    left_out = [subject for subject in split["train"] if draw.unit("share", seed, drawn[subject]) >= share]
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


def main(argv: Sequence[str] | None = None) -> int:
    """Make one split file; 0 when made, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.evaluation.splits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="action", required=True)
    _pretraining_arguments(commands.add_parser("pretrain", help="train and holdout of a pretraining"))
    _endpoint_arguments(
        commands.add_parser("endpoint", help="train, val and test of an endpoint, with labels")
    )
    args = parser.parse_args(argv)
    return run_command(lambda: write_json(args.out, _split(args), canonical=True))


def _pretraining_arguments(one: argparse.ArgumentParser) -> None:
    one.add_argument("--shards", required=True, nargs="+", type=Path, help="index.json of every cohort")
    one.add_argument("--holdout", required=True, type=float, help="fraction held out, e.g. 0.1")
    one.add_argument(
        "--init-from",
        default={},
        type=json_object,
        metavar="JSON",
        help="stage to folder of weights it starts from",
    )
    one.add_argument("--share", default=1.0, type=float, help="fraction of the others to train on (1)")
    one.add_argument("--seed", required=True, type=seed_number)
    one.add_argument(
        "--families",
        type=json_file,
        default={},
        metavar="FILE",
        help="tables that name families, as a JSON file",
    )
    one.add_argument(
        "--cohorts",
        type=json_file,
        default={},
        metavar="FILE",
        help="who its cohorts are and how their tables are read, as a JSON file",
    )
    one.add_argument(
        "--exclude-test-of",
        nargs="*",
        default=[],
        type=Path,
        metavar="SPLIT",
        help="splits of endpoints whose test subjects and their relatives are excluded",
    )
    one.add_argument(
        "--exclude-validation-of",
        nargs="*",
        default=[],
        metavar="ENDPOINT",
        help="those of these endpoints whose validation subjects are excluded as well, as they are scored",
    )
    one.add_argument("--out", required=True, type=Path)


def _endpoint_arguments(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--endpoint", required=True, type=json_file, metavar="FILE", help="its section as a JSON file"
    )
    one.add_argument("--name", required=True)
    one.add_argument("--seed", required=True, type=seed_number)
    one.add_argument("--participants", required=True, type=Path)
    one.add_argument(
        "--table",
        type=json_file,
        default={},
        metavar="FILE",
        help="how it is read (TableSettings) as a JSON file",
    )
    one.add_argument("--shards", required=True, nargs="+", type=Path, help="index.json of its cohorts")
    one.add_argument(
        "--modalities", nargs="*", choices=tuple(endpoint_split.SCANS), default=tuple(endpoint_split.SCANS),
        help="what a subject needs in the shards",
    )  # fmt: skip
    one.add_argument(
        "--cohorts",
        type=json_file,
        default={},
        metavar="FILE",
        help="who its cohorts are and how their tables are read, as a JSON file",
    )
    one.add_argument(
        "--sites",
        type=json_file,
        default=[],
        metavar="FILE",
        help="sites that each split tests, as a JSON file",
    )
    one.add_argument("--out", required=True, type=Path)


def _split(args: argparse.Namespace) -> dict[str, Any]:
    split = _of_pretraining(args) if args.action == "pretrain" else _of_endpoint(args)
    for text in split.get("notes", ()):
        logger.info("%s", text)
    return split


def _of_pretraining(args: argparse.Namespace) -> dict[str, Any]:
    cohorts = read.read_cohorts(args.shards)
    with_data = {c.name: {s for m in ("bold", "t1w") for s in read.subjects(c, m)} for c in cohorts}
    known: people.People = {}
    for cohort in cohorts:
        about = people.about_cohort(cohort.name, args.cohorts.get(cohort.name, {}), with_data[cohort.name])
        known |= people.of_cohort(cohort, about)
    tested = _tested(args.exclude_test_of, args.exclude_validation_of)
    taken_out = people.shared(known, tested)
    families = read_families(args.families, with_data)
    kept = [
        f"{cohort}/{s}"
        for cohort, mine in with_data.items()
        for s in mine
        if f"{cohort}/{s}" not in taken_out
    ]
    split = split_pretraining(kept, args.holdout, args.seed, families, share=args.share)
    if args.holdout and not split["holdout"]:
        logger.warning("no subject of %d is held out", len(split["train"]))
    if taken_out:
        logger.info("%d subjects are excluded: they are tested, or related to one who is", len(taken_out))
    return {
        **split,
        "left_out": sorted({*split.get("left_out", ()), *taken_out}),
        "excluded": [
            {"subject": s, "reason": f"{people.KINDS[kind]} is tested"} for s, kind in taken_out.items()
        ],
        "people": _with_earlier(people.listed({s: known[s] for s in split["train"]}), args.init_from),
    }


def _with_earlier(listed: dict[str, list[str]], init_from: Mapping[str, str]) -> dict[str, list[str]]:
    """Keys of the current training subjects, and of those of the initial weights.

    Where these do not say it, nobody is listed: who was trained on is not known, and the guards say so.
    """
    for stage, folder in init_from.items():
        earlier = given_weights.people(Path(folder), stage)
        if earlier is None:
            logger.warning(
                "%s does not say who its weights were trained on, so that nobody can be said to be new",
                folder,
            )
            return {}
        kinds = listed.keys() | earlier.keys()
        listed = {kind: sorted({*listed.get(kind, ()), *earlier.get(kind, ())}) for kind in sorted(kinds)}
    return listed


def _tested(splits: Iterable[Path], validation_of: Collection[str]) -> dict[str, list[str]]:
    """Keys of the test subjects of some splits, by kind; of some endpoints those of the validation subjects, too."""
    found: dict[str, set[str]] = {}
    for path in splits:
        split = read_json(path, "make the split again")
        parts: tuple[guards.Part, ...] = ("test", "val") if split["endpoint"] in validation_of else ("test",)
        for own in (own for part in parts for own in guards.people_of(split, part).values()):
            for kind, value in own:
                found.setdefault(kind, set()).add(value)
    return {kind: sorted(values) for kind, values in found.items()}


def _of_endpoint(args: argparse.Namespace) -> dict[str, Any]:
    spec = read_section(EndpointSection, args.endpoint)
    packed = {c.name: c for c in map(read.read_index, args.shards)}
    if lacking := [name for name in spec.cohorts if name not in packed]:
        raise DataError(
            f"{args.shards[0]} is of cohort {next(iter(packed))}, endpoint {args.name} of {lacking[0]}"
        )
    own = {"participants": str(args.participants), "table": args.table}
    cohorts = []
    for name in spec.cohorts:
        given = {**args.cohorts.get(name, {}), **(own if name == spec.cohort else {})}
        levels = [*spec.stratify, *([spec.splits.site] if spec.splits.site else [])]
        mine = name == spec.cohort
        cohorts.append(_cohort(spec.coded_in(name), packed[name], given, levels if mine else ()))
    lists = None
    if spec.splits.file is not None:
        lists = split_lists.read(spec.splits.file, read_section(TableSettings, args.table))
    split = endpoint_split.make(
        args.name,
        spec,
        args.seed,
        cohorts[0],
        modalities=args.modalities,
        others=cohorts[1:],
        sites=args.sites,
        lists=lists,
    )
    keys = {f"{c.name}/{label}": own for c in cohorts for label, own in c.keys.items()}
    scored: dict[str, dict[str, Any]] = {key: {} for key in guards.PEOPLE_OF.values()}
    for row in split["rows"]:
        if row["split"] in guards.PEOPLE_OF:
            person = f"{row.get('cohort', spec.cohort)}/{row['subject']}"
            scored[guards.PEOPLE_OF[row["split"]]][person] = sorted(keys[person])
    return {**split, **scored}


def _cohort(
    spec: EndpointSection, packed: read.PackedCohort, given: Mapping[str, Any], levels: Sequence[str]
) -> Cohort:
    """What is known of a cohort of an endpoint, as its table codes it."""
    scans = {m: read.subjects(packed, m) for m in ("bold", "t1w")}
    settings = read_section(TableSettings, given["table"])
    needed = [spec.column, *levels, *([settings.family] if settings.family else [])]
    table = participants.read(Path(given["participants"]), settings, list(dict.fromkeys(needed)))
    about = people.about_cohort(packed.name, given, scans["bold"] | scans["t1w"])
    prefix = len(packed.name) + 1
    known = {person[prefix:]: own for person, own in people.of_cohort(packed, about).items()}
    return Cohort(packed.name, table, settings.family, scans, known)


if __name__ == "__main__":
    sys.exit(main())
