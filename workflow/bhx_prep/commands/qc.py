"""``bhx qc``: exclude or keep scans by hand, import decisions from the page, check their table, write pictures."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import getpass
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import ConfigError, DataError
from bhx_prep.config import config
from bhx_prep.config.mistakes import nearest
from bhx_prep.ingest import index
from bhx_prep.io import bids_names, folder_lock
from bhx_prep.review import bundle, decided, decisions
from bhx_prep.review.decisions import Decision

logger = logging.getLogger(__name__)

Row = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bhx qc``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    decide = actions.add_parser(
        "decide",
        help="exclude or keep scans of a subject, regardless of their numbers",
        epilog='example: bhx qc decide abide1 0051234 --modality bold --exclude --why "ghost in every frame"',
    )
    decide.add_argument("cohort", metavar="COHORT", help="of the configuration")
    decide.add_argument("subject", metavar="SUBJECT", help="label without sub-")
    for entity in ("session", "task", "run"):
        decide.add_argument(f"--{entity}", metavar="LABEL", help=f"only scans of this {entity}")
    decide.add_argument("--modality", choices=decisions.MODALITIES, help="only scans of this modality")
    decide.add_argument("--key", metavar="KEY", help="only the scan with this sample key, as in `bhx index`")
    what = decide.add_mutually_exclusive_group(required=True)
    what.add_argument("--exclude", action="store_const", const="exclude", dest="decision", help="do not use")
    what.add_argument(
        "--keep", action="store_const", const="keep", dest="decision", help="use it, whatever limits it fails"
    )
    what.add_argument("--clear", action="store_const", const="", dest="decision", help="revoke the decision")
    decide.add_argument("--why", default="", metavar="TEXT", help="reason, shown wherever the scan is listed")
    decide.add_argument("--who", metavar="NAME", help="who decided (the user's name on this machine)")
    merge = actions.add_parser(
        "merge",
        help="merge decisions downloaded from the page",
        epilog="example: bhx qc merge ~/Downloads/abide1_decisions.tsv",
    )
    merge.add_argument("file", type=Path, metavar="FILE", help="table downloaded from the page")
    check = actions.add_parser(
        "check", help="check the table of decisions, and count them", epilog="example: bhx qc check"
    )
    pictures = actions.add_parser(
        "pictures",
        help="write the pictures of a cohort's scans, or of one subject's, as SVG files",
        epilog="example: bhx qc pictures abide1 0051234 --out pictures",
    )
    pictures.add_argument("cohort", metavar="COHORT", help="of the configuration")
    pictures.add_argument("subject", metavar="SUBJECT", nargs="?", help="label without sub- (default: all)")
    pictures.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder, made if absent")
    for action in (decide, merge, check, pictures):
        action.add_argument(
            "--config", type=Path, default=Path("config.yaml"), help="configuration (config.yaml)"
        )


def command(args: argparse.Namespace) -> int:
    """Run an action."""
    study = config.load(args.config)
    actions = {"decide": _decide, "merge": _merge, "check": _check, "pictures": _pictures}
    return actions[args.action](args, study)


def _decide(args: argparse.Namespace, study: config.Config) -> int:
    _check_cohort(args, study)
    if args.decision and not args.why.strip():
        raise ConfigError('say why, e.g. --why "ghost in every frame": it is shown wherever the scan is')
    rows = _scans(study, args.cohort)
    chosen = _choose(rows, args)
    new = [_decision(row, rows, args) for row in chosen]
    places = {decided.place_of(row) for row in chosen}
    _replace(study, new if args.decision else (), {args.cohort: rows}, {args.cohort: places})
    for decision, row in zip(new, chosen, strict=True):
        print(f"{args.decision or 'no decision on'} {decision.named}")
        if args.decision == "keep" and row["status"] != "ok":
            logger.warning("%s cannot be kept, the index excludes it: %s", decision.named, row["reason"])
    _say_next(study, [args.cohort])
    return 0


def _replace(
    study: config.Config,
    new: Iterable[Decision],
    rows: Mapping[str, Sequence[Row]],
    places: Mapping[str, Collection[decided.Place]],
) -> int:
    """Write decisions in place of those on the same scans.

    Parameters
    ----------
    study : Config
    new : iterable of Decision
    rows : mapping
        By cohort, the scans of its index.
    places : mapping
        By cohort, the scans of which there will be no other decision.

    Returns
    -------
    int
        How many were replaced.
    """
    with folder_lock.alone(study.qc_decisions.parent):
        before = decisions.read(study.qc_decisions, study.cohorts)
        replaced = set()
        for cohort, chosen in places.items():
            found, _ = decided.find([one for one in before if one.cohort == cohort], rows[cohort])
            replaced |= {decision.line for place, decision in found.items() if place in chosen}
        decisions.write(study.qc_decisions, [*(one for one in before if one.line not in replaced), *new])
    return len(replaced)


def _check_cohort(args: argparse.Namespace, study: config.Config) -> None:
    if args.cohort not in study.cohorts:
        raise ConfigError(
            f"no cohort {args.cohort!r} in {args.config}; there are: {', '.join(study.cohorts)}"
        )


def _scans(study: config.Config, cohort: str) -> list[Row]:
    """Scans of a cohort's index."""
    resolution = study.features.t1w_resolution_mm
    table = index.load(index.CACHE, cohort, study.cohorts[cohort], t1w_mm=resolution)
    return table.select([*decided.NAMING, "status", "reason"]).to_pylist()


def _choose(rows: Sequence[Row], args: argparse.Namespace) -> list[Row]:
    """Scans that the options leave, each once."""
    subject = args.subject.removeprefix("sub-")
    mine = [row for row in rows if row["subject"] == subject]
    if not mine:
        labels = sorted({row["subject"] for row in rows})
        same = [label for label in labels if label.lstrip("0") == subject.lstrip("0")]
        hint = f"; did you mean {same[0]!r}?" if same else nearest(subject, labels[:2000])
        raise DataError(f"no subject {subject!r} in cohort {args.cohort}{hint if len(hint) < 60 else ''}")
    asked = {"session": args.session, "task": args.task, "run": args.run, "modality": args.modality}
    for name, value in asked.items():
        if value is not None:
            wanted = _label(name, value)
            left = [row for row in mine if _label(name, row[name] or "") == wanted]
            if not left:
                there = ", ".join(sorted({row[name] or "none" for row in mine}))
                raise DataError(f"sub-{subject} has no scan of {name} {value!r}; there are: {there}")
            mine = left
    if args.key is not None:
        mine = [row for row in mine if bids_names.same_scan(row["key"]) == bids_names.same_scan(args.key)]
        if not mine:
            raise DataError(f"sub-{subject} has no scan {args.key!r}: `bhx index` lists the keys")
    return list({decided.place_of(row): row for row in mine}.values())


def _label(name: str, value: str) -> str:
    value = value.removeprefix({"session": "ses-"}.get(name, f"{name}-"))
    return bids_names.unpadded({name: value})[name]


def _decision(row: Row, rows: Iterable[Row], args: argparse.Namespace) -> Decision:
    """The line of a scan; with its key where its labels are those of another one, too."""
    task = row["task"] if row["modality"] == "bold" else ""
    named = Decision(
        args.cohort,
        row["subject"],
        row["session"] or "",
        task or "",
        row["run"] or "",
        row["modality"],
        args.decision,
        args.who or _user(),
        datetime.datetime.now().astimezone().date().isoformat(),
        args.why,
    )
    mine = [one for one in rows if one["subject"] == row["subject"]]
    _, ambiguous = decided.find([named], mine)
    return dataclasses.replace(named, key=row["key"]) if ambiguous else named


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return ""


def _merge(args: argparse.Namespace, study: config.Config) -> int:
    if not args.file.is_file():
        raise ConfigError(f"there is no file {args.file}: download the decisions from the page of a cohort")
    new = decisions.read(args.file, study.cohorts)
    rows = {cohort: _scans(study, cohort) for cohort in sorted({decision.cohort for decision in new})}
    replaced = _replace(study, new, rows, _find_all(new, rows, args.file))
    print(f"decisions taken over: {len(new)}, in place of earlier ones: {replaced}")
    _say_next(study, rows)
    return 0


def _check(args: argparse.Namespace, study: config.Config) -> int:
    found = decisions.read(study.qc_decisions, study.cohorts)
    rows = {cohort: _scans(study, cohort) for cohort in sorted({decision.cohort for decision in found})}
    _find_all(found, rows, study.qc_decisions)
    for cohort in study.cohorts:
        mine = [decision.decision for decision in found if decision.cohort == cohort]
        if mine:
            print(f"{cohort}: {mine.count('exclude')} excluded, {mine.count('keep')} kept")
    print(f"{study.qc_decisions}: {len(found)} decisions, all of scans that are there")
    return 0


def _pictures(args: argparse.Namespace, study: config.Config) -> int:
    _check_cohort(args, study)
    files = sorted((study.results / args.cohort / "qc").glob("batch-?????.js"))
    if not files:
        raise DataError(
            f"cohort {args.cohort} has no pictures yet: `snakemake qc` draws what there is to draw"
        )
    label = None if args.subject is None else args.subject.removeprefix("sub-")
    n = 0
    for file in files:
        for key, modality, kind, svg in bundle.read(file):
            if label is None or bids_names.parse(key).get("sub") == label:
                with atomic_write(args.out / f"{key}_{modality}_{kind}.svg") as part:
                    part.write_text(svg, encoding="utf-8")
                n += 1
    if not n:
        raise DataError(
            f"there is no picture of sub-{label} in cohort {args.cohort}: `bhx index` lists its subjects"
        )
    print(f"{n} pictures in {args.out}")
    return 0


def _find_all(
    found: Sequence[Decision], rows: Mapping[str, Sequence[Row]], file: Path
) -> dict[str, Collection[decided.Place]]:
    """Scans that decisions name, by cohort.

    Raises
    ------
    ConfigError
        With all mistakes, where one names no scan.
    """
    places: dict[str, Collection[decided.Place]] = {}
    mistakes: list[str] = []
    for cohort, scans in rows.items():
        places[cohort], wrong = decided.find([one for one in found if one.cohort == cohort], scans)
        mistakes += wrong
    if mistakes:
        raise decisions.mistaken(file, mistakes)
    return places


def _say_next(study: config.Config, cohorts: Iterable[str]) -> None:
    targets = " ".join(f"cohort_{cohort}" for cohort in cohorts)
    logger.info("wrote %s; `snakemake %s` applies it", study.qc_decisions, targets)
