"""``bhx forget COHORT SUBJECT``: remove every trace of a subject who withdrew consent.

The cohort's own folder is never written, so the subject has to be taken out of it first; here goes everything that was
made of them: their derivatives, the batch they were in (which is made again without them), tokens, splits,
predictions, logs, and what Snakemake remembers. Weights cannot forget: those that have seen the subject are named.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bhx_model.data import npz
from bhx_model.errors import ConfigError
from bhx_model.evaluation import prediction_file
from bhx_model.file_hash import file_sha256
from bhx_prep.commands import run as snakemake
from bhx_prep.config import config
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.evaluation import people
from bhx_prep.ingest import batches, index, participants
from bhx_prep.io import bids_names, folder_lock
from bhx_prep.preproc import work_folder
from bhx_prep.review import decisions
from bhx_prep.slurm import jobs

logger = logging.getLogger(__name__)

#: Suffixes of files that are searched for the subject's label; pictures and arrays carry none.
TEXT = frozenset({".csv", ".html", ".json", ".jsonl", ".log", ".md", ".rst", ".tex", ".tsv", ".txt", ".yaml"})


@dataclass(frozen=True)
class Weights:
    """A trained stage that has read the shards the subject was in, and how it used the subject."""

    run: Path
    stage: str
    use: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bhx forget``."""
    parser.add_argument("cohort", metavar="COHORT", help="of the configuration")
    parser.add_argument("subject", metavar="SUBJECT", help="label without sub-")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only list what would be removed")
    parser.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="configuration (config.yaml)"
    )


def command(args: argparse.Namespace) -> int:
    """List and remove a subject's files, make their batch again, and name the weights that have seen them."""
    study = config.load(args.config)
    if args.cohort not in study.cohorts:
        msg = f"no cohort {args.cohort!r} in {args.config}; there are: {', '.join(study.cohorts)}"
        raise ConfigError(msg)
    subject = bids_names.check_label(args.subject.removeprefix("sub-"), "subject")
    jobs.refuse_while_at_work()
    remaining = _refuse_while_in_data(study.cohorts[args.cohort], args.cohort, subject)
    if not _is_known(study, args.cohort, subject):
        msg = (
            f"{args.cohort} has no sub-{subject}, and nothing that was made of it names them: check the label"
        )
        raise ConfigError(msg)
    paths = list(traces(study, args.cohort, subject))
    seen = weights(study, args.cohort, subject)
    indexed = (study.results / args.cohort / "shards" / "index.json").exists()
    decisions.read(
        study.qc_decisions, study.cohorts
    )  # a table with mistakes stops here, before anything is removed
    for path in paths:
        print(f"{'would remove' if args.dry_run else 'removed'} {path}{'/' if path.is_dir() else ''}")
        if not args.dry_run:
            _remove(path)
    print(
        f"{len(paths)} files and folders of sub-{subject}"
        + (" (nothing was removed)" if args.dry_run else "")
    )
    _forget_decisions(study, args, subject)
    if seen:
        print("\nweights that have seen sub-" + subject + ", which no deletion can undo:")
        for one in seen:
            print(f"  {one.run}  ({one.stage}): {one.use}")
        print("Remove these folders and their copies, exports too, if the consent covered the training;")
        print("the next `snakemake` trains again without the subject.")
    if study.cohorts[args.cohort].input == "bids":
        name = _work_folder(study, args.cohort, subject).name
        print(f"\nWhere preprocessing failed, scratch disks of nodes may hold {name}: remove it there.")
    print("\nCopies in other places (`bhx export`, backups) are not found: remove them yourself.")
    if not args.dry_run and paths and indexed:
        return _make_again(study, args, subject, remaining)
    return 0


def _forget_decisions(study: config.Config, args: argparse.Namespace, subject: str) -> None:
    """Take the subject's lines out of the table of decisions."""
    with folder_lock.alone(study.qc_decisions.parent):
        before = decisions.read(study.qc_decisions, study.cohorts)
        others = [one for one in before if (one.cohort, one.subject) != (args.cohort, subject)]
        if n := len(before) - len(others):
            print(f"{n} lines of {study.qc_decisions}{' (not removed)' if args.dry_run else ''}")
            if not args.dry_run:
                decisions.write(study.qc_decisions, others)


def traces(study: config.Config, cohort: str, subject: str) -> Iterator[Path]:
    """Files and folders that hold something of a subject, each once; nothing inside a folder that is named.

    Parameters
    ----------
    study : Config
    cohort : str
    subject : str
        Label without ``sub-``.
    """
    kinds = (_named, _shared, _mentioning, _evaluated, _listing)
    found = sorted({path for kind in kinds for path in kind(study, cohort, subject)})
    folders = {path for path in found if path.is_dir()}
    for path in found:
        if not folders.intersection(path.parents):
            yield path


def weights(study: config.Config, cohort: str, subject: str) -> list[Weights]:
    """Runs below ``results/runs`` that read shards with the subject: trained on them, held out, or unknown.

    A run says by hashes what it read. It has seen the subject if it read a cohort's shards while the subject was in
    them, which today's shards tell only of today's runs: older ones are named too, for they cannot be excluded.
    """
    splits = {}
    for file in study.results.glob("encoders/*/pretrain.json"):
        split = json.loads(file.read_text(encoding="utf-8"))
        used = next((part for part in ("train", "holdout") if f"{cohort}/{subject}" in split[part]), None)
        splits[file_sha256(file)] = used
    uses = {
        "train": "trained on the subject",
        "holdout": "the subject was held out, only losses were computed",
        None: "read the cohort; the subject was in neither part of its split",
    }
    seen = []
    for made_of in sorted(study.results.glob("runs/*/made_of.json")):
        metadata: dict[str, Any] = json.loads(made_of.read_text(encoding="utf-8"))
        inputs = metadata["inputs"]
        if cohort not in {name for name, _ in [*inputs["shards"], *inputs.get("tokens", [])]}:
            continue
        if inputs["split"] not in splits:
            use = "may have seen the subject: its split is gone"
        elif (part := splits[inputs["split"]]) is None:
            continue
        else:
            use = uses[part]
        seen.append(Weights(made_of.parent, metadata["config"]["stage"], use))
    return seen


def _named(study: config.Config, cohort: str, subject: str) -> Iterator[Path]:
    """The subject's own files and folders, which carry the label."""
    results, named = study.results, re.compile(rf"sub-{re.escape(subject)}(?![A-Za-z0-9+])")
    for place in (results / cohort / "preproc", *results.glob(f"*/*/{cohort}")):
        if place.is_dir():
            yield from (path for path in place.rglob("*sub-*") if named.search(path.name))
    work = _work_folder(study, cohort, subject)
    yield from (folder for folder in (work, work_folder.done_with(work)) if folder.exists())


def _shared(study: config.Config, cohort: str, subject: str) -> Iterator[Path]:
    """What holds the subject among others, if they were there: files of their batch and of the cohort."""
    results = study.results
    yield from index.CACHE.glob(f"{cohort}.*")
    yield from index.CACHE.glob(f".{cohort}-*")  # where indexing was killed
    yield from results.glob(f"{cohort}/index.parquet")
    if study.report_scans == "all":  # the page may show one of the subject's scans, without the label
        yield from results.glob("reports/index.html")
    batch = _batch(study, cohort, subject)
    if batch is not None:
        yield from results.glob(f"{cohort}/features/batch-{batch}")
        yield from results.glob(f"{cohort}/shards/*-{batch}.*")
        yield from results.glob(f"{cohort}/qc/batch-{batch}.*")
        yield from results.glob(f"{cohort}/qc.parquet")
        yield from results.glob(f"{cohort}/qc/index.html")
        yield from results.glob(f"{cohort}/shards/index.json")
        yield from results.glob(f"*/*/{cohort}/batch-{batch}.*")  # logs and benchmarks
        yield from results.glob(f"encoders/*/tokens-*/{cohort}/*-{batch}.*")
        yield from results.glob(f"encoders/*/tokens-*/{cohort}/index.json")
        yield from results.glob(f"encoders/*/*/*_tokens/{cohort}.npz")
        yield from results.glob(f"{cohort}/connectivity/*.npz")
        yield from results.glob(f"{cohort}/covariates.parquet")
        yield from results.glob(f"{cohort}/volumes.npz")
        yield from results.glob(f"encoders/*/*/*_tokens/.*.{cohort}.npz")  # where reading was killed


def _is_known(study: config.Config, cohort: str, subject: str) -> bool:
    """Whether any file, table, decision or list of hashes names the subject; a table that cannot be read may do so."""
    naming = (_named, _listing, _mentioning, _evaluated)
    if any(True for kind in naming for _ in kind(study, cohort, subject)):
        return True
    decided = decisions.read(study.qc_decisions, study.cohorts)
    if any((one.cohort, one.subject) == (cohort, subject) for one in decided):
        return True
    tables = [*index.CACHE.glob(f"{cohort}.parquet"), *study.results.glob(f"{cohort}/index.parquet")]
    if (batch := _batch(study, cohort, subject)) is not None:
        tables += study.results.glob(f"{cohort}/features/batch-{batch}/qc.parquet")
    if any(_may_hold(table, subject) for table in tables):
        return True
    hashed = people.hashed("subject", f"{cohort}/{subject}")
    lists = (path for path in study.results.rglob("*.json") if path.is_file())
    return any(hashed in path.read_text(encoding="utf-8", errors="replace") for path in lists)


def _may_hold(table: Path, subject: str) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return subject in pq.read_table(table, columns=["subject"]).column("subject").to_pylist()
    except (OSError, KeyError, pa.ArrowException):
        return True


def _mentioning(study: config.Config, cohort: str, subject: str) -> Iterator[Path]:
    """Texts in which the subject is named, of results and of Snakemake's memory."""
    label = re.escape(subject)
    anywhere = re.compile(
        rf"sub-{label}(?![A-Za-z0-9+])|(?<![A-Za-z0-9]){cohort}/{label}(?![A-Za-z0-9+])"
        rf"|--subjects (?:\S*,)?{label}(?![A-Za-z0-9+])|'subjects': '(?:[^']*,)?{label}(?![A-Za-z0-9+])"
    )
    others = {study.results / name for name in study.cohorts if name != cohort}
    files = (path for path in study.results.rglob("*") if path.suffix in TEXT and path.is_file())
    texts = [path for path in files if not path.is_symlink()]  # of an experiment, to what it shares
    for path in [path for path in texts if not others.intersection(path.parents)]:
        if anywhere.search(path.read_text(encoding="utf-8", errors="replace")):
            yield path
    for path in Path(".snakemake").glob("log/*"):
        if anywhere.search(path.read_text(encoding="utf-8", errors="replace")):
            yield path
    for path in Path(".snakemake/iocache").glob("*"):
        if anywhere.search(path.read_text(encoding="latin-1")):
            yield path
    for path in Path(".snakemake/incomplete").rglob("*"):  # named after the output, in base64
        if path.is_file() and anywhere.search(_decoded(path.name)):
            yield path
    remembered = re.compile(rf"{anywhere.pattern}|\"'?(?:[A-Za-z0-9+]+,)*{label}(?:,[A-Za-z0-9+]+)*'?\"")
    for path in Path(".snakemake/metadata").rglob("*"):
        if path.is_file() and remembered.search(path.read_text(encoding="utf-8", errors="replace")):
            yield path


def _evaluated(study: config.Config, cohort: str, subject: str) -> Iterator[Path]:
    """Splits, predictions and looks inside that hold the subject, who is a bare label in them."""
    results = study.results
    for name, endpoint in study.endpoints.items():
        if cohort in endpoint.cohorts:
            for file in results.glob(f"endpoints/{name}/seed-*.json"):
                if _in_split(file, endpoint.cohort == cohort, cohort, subject):
                    yield file
    for file in [
        *results.glob("endpoints/*/*/predictions.parquet"),
        *results.glob("experiments/*/endpoints/*/*/predictions.parquet"),
    ]:
        if f"{cohort}/{subject}" in prediction_file.read(file).people:
            yield file.parent
    for file in results.glob("experiments/*/inspection/*.npz"):
        arrays = npz.read(file, "remove it", ("about", "subjects"))
        if json.loads(str(arrays["about"]))["cohort"] == cohort and subject in arrays["subjects"]:
            yield file


def _in_split(file: Path, own: bool, cohort: str, subject: str) -> bool:
    """Whether a split names the subject: anywhere if it is of the subject's cohort, else in a row of that cohort."""
    text = file.read_text(encoding="utf-8")
    if own or f'"{subject}"' not in text:
        return f'"{subject}"' in text
    split = json.loads(text)
    rows = [*split["rows"], *split["excluded"]]
    return any(row["subject"] == subject and row.get("cohort") == cohort for row in rows)


def _listing(study: config.Config, cohort: str, subject: str) -> Iterator[Path]:
    """Settings of jobs that list the subject: bare labels, which another cohort may have, too."""
    settings = study.results / "settings"
    for file in settings.glob(f"{cohort}/batch-*.json"):
        if subject in json.loads(file.read_text(encoding="utf-8")):
            yield file
    decided = settings / "qc_decisions.json"
    rows = json.loads(decided.read_text(encoding="utf-8")) if decided.exists() else []
    if any((row["cohort"], row["subject"]) == (cohort, subject) for row in rows):
        yield decided
    for file in [*study.results.glob("config.resolved.json"), *settings.glob("config-*.json")]:
        section = json.loads(file.read_text(encoding="utf-8"))["cohorts"].get(cohort, {})
        if subject in (section.get("subjects") or ()):
            yield file


def _work_folder(study: config.Config, cohort: str, subject: str) -> Path:
    """What preprocessing that failed leaves on the scratch disk of this machine."""
    scratch = Path(os.environ.get("TMPDIR", "/tmp"))
    return work_folder.work_folder(scratch, cohort, subject, study.results / cohort / "preproc")


def _decoded(name: str) -> str:
    try:
        return base64.b64decode(name).decode("utf-8", errors="replace")
    except ValueError:
        return ""


def _batch(study: config.Config, cohort: str, subject: str) -> str | None:
    if not (study.results / cohort / "plan.json").exists():
        return None
    n = batches.n_batches(study.results, cohort, 1, study.batch_size)
    return f"{batches.batch_of(cohort, subject, n):05d}"


def _refuse_while_in_data(section: CohortSection, cohort: str, subject: str) -> set[str]:
    """Subjects who stay; an error if the subject is one of them."""
    present = set(index.build(cohort, section).column("subject").to_pylist())
    if subject in present:
        msg = (
            f"sub-{subject} is still in {section.root}, which BHX never writes to: remove their files there (or name all "
            f"others in cohorts.{cohort}.subjects), then run this again"
        )
        raise ConfigError(msg)
    table = section.phenotypes
    if table.exists() and participants.has_row(table, subject, section.table):
        msg = f"sub-{subject} still has a row in {table}: remove it, then run this again"
        raise ConfigError(msg)
    return present


def _make_again(study: config.Config, args: argparse.Namespace, subject: str, remaining: set[str]) -> int:
    """Run Snakemake for the shards of the batch that the subject was in."""
    batch = _batch(study, args.cohort, subject)
    n = batches.n_batches(study.results, args.cohort, 1, study.batch_size)
    shards = study.results / args.cohort / "shards"
    targets = [str(shards / "index.json")]
    if any(f"{batches.batch_of(args.cohort, other, n):05d}" == batch for other in remaining):
        targets.append(str(shards / f"bold-{batch}.tar"))
    logger.info("making batch %s of %s again", batch, args.cohort)
    words = ["--cores", "1", "--configfile", str(args.config)]
    words += ["--quiet", "progress", "host", "reason", "rules", "--", *targets]
    done = subprocess.run(snakemake.words(words), check=False)
    if done.returncode == 0:
        logger.info("batch %s of %s is made again", batch, args.cohort)
    else:
        logger.error(
            "the batch was not made again: fix what Snakemake reports above, then run `snakemake cohort_%s`",
            args.cohort,
        )
    return done.returncode


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
