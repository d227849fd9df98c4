"""``bhx fetch``: download public data sets as their source offers them."""

from __future__ import annotations

import argparse
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import ConfigError, SiteError
from bhx_prep.config.layouts import KNOWN
from bhx_prep.ingest import abide, adhd200, layouts, roi_tables, site_tables
from bhx_prep.ingest.fcp_indi import BUCKET, Bucket, Offer, Wanted, chosen, raw_files, read_table, roi_files
from bhx_prep.io.download import Downloads, RemoteFile, Summary, in_words

logger = logging.getLogger(__name__)

#: By the name of the layout that reads it.
OFFERS: Final[dict[str, Offer]] = {**abide.OFFERS, **adhd200.OFFERS}

#: Failed files that are named one by one.
_NAMED = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bhx fetch``."""
    parser.description = (
        "Download a public data set, its terms first. Existing files are kept, incomplete downloads resumed."
    )
    parser.epilog = "example: bhx fetch abide1 --derivative rois_cc200 --subjects 20 --out data/abide1"
    rois = abide.OFFERS["abide1"].rois
    assert rois is not None
    parser.add_argument("dataset", choices=OFFERS, metavar="DATASET", help="%(choices)s")
    parser.add_argument(
        "--derivative",
        metavar="NAME",
        help=f"what to download: raw (BIDS), or for abide1 {', '.join(rois.derivatives)} (default: the first available)",
    )
    parser.add_argument(
        "--subjects",
        nargs="+",
        default=["all"],
        metavar="N|ID",
        help="a number of up to four digits: that many subjects, in the order of their ids (raw: of site, then id); or "
        "ids, such as 50003, sub-0050003 or Pitt_0050003; default: all",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder to download to")
    parser.add_argument("--pipeline", choices=rois.pipelines, default=rois.pipelines[0], help="(%(default)s)")
    parser.add_argument(
        "--strategy",
        choices=rois.strategies,
        default=rois.strategies[0],
        help="band-pass filtered or not, global signal regressed or not (%(default)s)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        default=BUCKET,
        metavar="URL",
        help="address of a copy of the bucket (%(default)s)",
    )
    parser.add_argument(
        "--jobs", type=int, default=4, metavar="N", help="downloads at a time, 1 to 16 (%(default)s)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the addresses, one per line, and download nothing"
    )


def command(args: argparse.Namespace) -> int:
    """Run ``bhx fetch``: 1 if a file could not be had, 130 if it was stopped."""
    offer = OFFERS[args.dataset]
    derivative = args.derivative or offer.derivatives[0]
    check(args.dataset, offer, derivative, args.jobs, args.source)
    show_terms(args.dataset, offer)
    downloads = Downloads()
    bucket = Bucket(args.source, downloads)
    wanted = Wanted.of(args.subjects)
    if offer.rois is None or derivative == "raw":
        files = raw_files(bucket, offer, wanted, args.out)
    else:
        table = bucket.file(f"{offer.rois.folder}/{offer.rois.table}", offer.rois.folder, args.out)
        rows = chosen(_phenotypes(table, downloads, dry_run=args.dry_run), wanted)
        _show_choice(args.dataset, rows)
        variant = (args.pipeline, args.strategy, derivative)
        files = roi_files(bucket, offer.rois, rows, variant, args.out)
        files = [table, *files] if args.dry_run else files  # else it is here by now
    if args.dry_run:
        for file in files:
            print(file.url)
        logger.info("dry run: %s would go to %s", _amount(files), args.out)
        return 0
    _check_space(files, args.out)
    logger.info("fetching %s to %s", _amount(files), args.out)
    try:
        summary = downloads.run(files, args.jobs)
    except KeyboardInterrupt:
        logger.warning("stopped: run the same command again to resume")
        return 130
    _report(summary, args.out)
    if summary.failed:
        return 1
    _show_section(args.dataset, derivative, args.out, offer)
    return 0


def check(dataset: str, offer: Offer, derivative: str, jobs: int, source: str) -> None:
    """Refuse what cannot be asked for.

    Raises
    ------
    ConfigError
        If the data set does not offer the derivative, or a number or address is none.
    """
    if derivative in offer.elsewhere:
        raise ConfigError(f"{dataset} {derivative}: {offer.elsewhere[derivative]}")
    if derivative not in offer.derivatives:
        there = ", ".join((*offer.derivatives, *offer.elsewhere))
        raise ConfigError(f"--derivative: {dataset} has no {derivative!r}; there is: {there}")
    if not 1 <= jobs <= 16:
        raise ConfigError(f"--jobs: {jobs} is not between 1 and 16")
    _check_address(source)


def _check_address(source: str) -> None:
    try:
        parts = urlsplit(source)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        is_address = False
        parts = urlsplit("")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError("--from: no password, ? or # in the address of a folder: name a public copy")
    if not is_address:
        raise ConfigError(f"--from: {source!r} is no address that begins with https:// or http://")


def show_terms(dataset: str, offer: Offer) -> None:
    """Log under which terms a data set is to be had, and what to cite."""
    known = KNOWN[dataset]
    # also with -q: nobody downloads without having seen them
    logger.warning("%s, terms: %s", known.title, known.terms)
    logger.info("for non-commercial research; read %s before use", known.documented[0])
    logger.info("cite %s", known.cite)


def _phenotypes(table: RemoteFile, downloads: Downloads, *, dry_run: bool) -> list[dict[str, str]]:
    """Rows of the table; a dry run reads it from the source where it is not here yet."""
    if dry_run and not table.path.exists():
        return read_table(downloads.read(table.url), table.path.name)
    if not dry_run:
        downloads.get(table)
    return read_table(table.path.read_bytes(), table.path.name)


def _show_choice(dataset: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Log how mixed the subjects are: the first ones are of one site, and often of one diagnosis."""
    codes = KNOWN[dataset].codes("DX_GROUP")
    sites = Counter(row.get("SITE_ID", "") for row in rows)
    groups = Counter(codes.get(row.get("DX_GROUP", ""), "unknown") for row in rows)
    text = ", ".join(f"{n} {group}" for group, n in groups.items())
    logger.info("%d subjects of %d sites: %s", len(rows), len(sites), text)
    if len(groups) == 1 and len(rows) > 1:
        logger.warning("all of one diagnosis: name ids with --subjects where both are needed")


def _check_space(files: Sequence[RemoteFile], out: Path) -> None:
    """Refuse to begin what the disk has no room for, as far as sizes are known."""
    missing = sum(file.size or 0 for file in files if not file.path.exists())
    there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if missing > free:
        raise SiteError(
            f"{in_words(missing)} are to come, {there} has {in_words(free)} free: make room first"
        )


def _amount(files: Sequence[RemoteFile]) -> str:
    known = sum(file.size or 0 for file in files)
    size = f", {in_words(known)}" if known else ""
    return f"{len(files)} files{size}"


def _report(summary: Summary, out: Path) -> None:
    for file, reason in summary.failed[:_NAMED]:
        logger.error("%s: %s", file.path.relative_to(out), reason)
    if len(summary.failed) > _NAMED:
        logger.error("and %d more", len(summary.failed) - _NAMED)
    logger.info(
        "%d files downloaded (%s), %d were there, %d failed",
        len(summary.downloaded),
        in_words(summary.received),
        len(summary.present),
        len(summary.failed),
    )
    if summary.failed:
        logger.error("the same command again asks for the %d that failed", len(summary.failed))


def _show_section(dataset: str, derivative: str, out: Path, offer: Offer) -> None:
    """Log the sections of the configuration that read what was fetched."""
    cohort = {"input": "bids" if derivative == "raw" else "timeseries", "layout": dataset, "root": str(out)}
    sections: dict[str, Any] = {"cohorts": {dataset: cohort}}
    if derivative != "raw" and offer.rois is not None:
        table: Path | None = out / offer.rois.table
        names = _write_names(out, derivative)
        if names is not None:
            label = derivative.removeprefix("rois_").upper()
            sections["atlas"] = {"name": label, "source": "files", "names": str(names)}
            sections["features"] = {"harmonics": "none"}  # the regions are volumes
    elif offer.tables:
        table = out / Path(offer.tables[0]).name
    else:
        table = site_tables.join(out, KNOWN[dataset].id_columns, layouts.load(dataset).label)
    if table is not None:
        cohort["participants"] = str(table)
    logger.info("for config.yaml:\n%s", yaml.safe_dump(sections, sort_keys=False).rstrip())


def _write_names(out: Path, derivative: str) -> Path | None:
    """The regions of the tables, one a line, as an atlas; None if there is no table or another file in its place."""
    table = next(iter(sorted(out.glob(f"Outputs/*/*/{derivative}/*_{derivative}.1D"))), None)
    names = roi_tables.region_names(table) if table is not None else []
    path, text = out / f"{derivative}_names.txt", "".join(f"{name}\n" for name in names)
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
        logger.warning("%s contains other names than the tables and is not changed", path)
        return None
    if not names:
        return None
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
