"""``bhx preproc``: clear failures of preprocessing, print the command of a subject, preprocess one without a study."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shlex
from pathlib import Path

from bhx_model.errors import ConfigError, DataError
from bhx_prep.config import config
from bhx_prep.config.resolved import SettingsFolder
from bhx_prep.ingest import index
from bhx_prep.io import bids_names
from bhx_prep.preproc import one_subject, template_files, work_folder
from bhx_prep.preproc.arguments import usable_scans
from bhx_prep.preproc.containers import Folders, container_command
from bhx_prep.preproc.fmriprep import fmriprep_memory
from bhx_prep.preproc.status import failure
from bhx_prep.slurm import jobs

logger = logging.getLogger(__name__)

#: How the reasons begin of runs that were excluded because a step failed, not because the index or a check refused them.
_CRASHED = re.compile(r": (?:fMRIPrep|step \w+) failed: ")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx preproc``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "clear failures, so that the next `snakemake` preprocesses these subjects again"
    retry = actions.add_parser(
        "retry",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Work files left on this machine are reused.",
        epilog="example: bhx preproc retry abide1 0051234",
    )
    _of_study(retry)
    retry.add_argument(
        "subject", metavar="SUBJECT", nargs="?", help="label without sub- (default: all that failed)"
    )
    retry.add_argument("-n", "--dry-run", action="store_true", help="only list what would be cleared")
    text = "print the exact command that preprocesses a subject, to copy and run by hand"
    printed = actions.add_parser(
        "command",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. The job makes the folders that the command names.",
        epilog="example: bhx preproc command abide1 0051234",
    )
    _of_study(printed)
    printed.add_argument("subject", metavar="SUBJECT", help="label without sub-")
    one_subject.job_arguments(printed)
    text = (
        "download the templates that fMRIPrep needs to preproc.templateflow_home, for jobs without a network"
    )
    fetched = actions.add_parser(
        "fetch",
        help=text,
        description=f"{text[0].upper()}{text[1:]}: run it where there is one. Existing files are kept.",
        epilog="example: bhx preproc fetch",
    )
    fetched.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="configuration (config.yaml)"
    )
    fetched.add_argument(
        "--from", dest="address", default=template_files.ADDRESS, help="address (%(default)s)"
    )
    fetched.add_argument("-n", "--dry-run", action="store_true", help="only list what is missing")
    one_subject.arguments(actions)


def command(args: argparse.Namespace) -> int:
    """Run ``bhx preproc``."""
    actions = {"retry": retry, "command": print_command, "fetch": fetch, "run": one_subject.run}
    return actions[args.action](args)


def fetch(args: argparse.Namespace) -> int:
    """Fill the folder of templates; prints the paths of those that were missing.

    Raises
    ------
    ConfigError
        If the study has no such folder, or does not use fMRIPrep.
    DataError
        If a file cannot be had.
    SiteError
        If the address cannot be reached.
    """
    study = config.load(args.config)
    home = study.preproc.templateflow_home
    spaces = [cohort.space for cohort in study.cohorts.values() if cohort.input == "bids"]
    if study.preproc.backend == "embedded" or not spaces:
        msg = f"no cohort of {args.config} is preprocessed by fMRIPrep: nothing is to be fetched for it"
        raise ConfigError(msg)
    if home is None:
        msg = (
            f"preproc.templateflow_home of {args.config} is not set: name the folder that the templates go to"
        )
        raise ConfigError(msg)
    sections = [study.preproc.of(space, study.features.t1w_resolution_mm) for space in dict.fromkeys(spaces)]
    absent = {
        name for section in sections for name in template_files.missing(home, section.model_dump(mode="json"))
    }
    for name in sorted(absent):
        print(home / name)
    if args.dry_run:
        return 0
    failed = template_files.fetch(home, sorted(absent), args.address)
    if failed:
        more = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
        raise DataError(f"{failed[0]}{more}")
    logger.info("%s has what fMRIPrep needs: %d files fetched", home, len(absent))
    return 0


def retry(args: argparse.Namespace) -> int:
    """Remove the status files of subjects that failed, or a run of theirs; of a subject that is named, whatever it says.

    Raises
    ------
    ConfigError
        If there is no such cohort, the subject has nothing to clear, or Snakemake is at work.
    """
    folder = _study(args).results / args.cohort / "preproc"
    jobs.refuse_while_at_work()
    if args.subject is None:
        files = [f for f in sorted(folder.glob("sub-*_status.json")) if _reason(f) is not None]
    else:
        subject = bids_names.check_label(args.subject.removeprefix("sub-"), "subject")
        files = [folder / f"sub-{subject}_status.json"]
        if not files[0].is_file():
            msg = f"there is no {files[0]}: nothing is booked to sub-{subject}, and the next `snakemake` preprocesses it"
            raise ConfigError(msg)
    for file in files:
        print(f"{file.name.removesuffix('_status.json')}: {_reason(file) or 'was ok'}")
        if not args.dry_run:
            file.unlink()
    done = "would be" if args.dry_run else "are"
    logger.info("%d subjects %s preprocessed again by `snakemake cohort_%s`", len(files), done, args.cohort)
    return 0


def print_command(args: argparse.Namespace) -> int:
    """Print the command that preprocesses a subject: that of the container, or of the embedded workflow.

    Raises
    ------
    ConfigError
        If there is no such cohort or subject.
    """
    study = _study(args)
    subject = bids_names.check_label(args.subject.removeprefix("sub-"), "subject")
    cohort = study.cohorts[args.cohort]
    root = _dataset(cohort.root.absolute(), args.cohort, subject)
    out = study.results / args.cohort / "preproc"
    section = study.preproc.of(cohort.space, study.features.t1w_resolution_mm)
    if section.backend == "embedded":
        settings = SettingsFolder(study.results / "settings", write=True)
        file = settings.file("preproc", section.for_jobs())
        job = one_subject.job_words(
            subject, args.cohort, root, cohort.tasks, index.CACHE / f"{args.cohort}.json", file, out, args
        )
        words = one_subject.embedded_command(job, args.templates)
    else:
        work = work_folder.work_folder(args.work, args.cohort, subject, out)
        words = container_command(
            section.for_jobs(),
            subject,
            Folders.below(work),
            args.threads,
            fmriprep_memory(args.mem_mb),
        )
    print(shlex.join(words))
    return 0


def _dataset(root: Path, cohort: str, subject: str) -> Path:
    """Dataset with the subject's folder: the cohort's, or that of a site of it."""
    listed = index.CACHE / f"{cohort}.json"
    if listed.is_file():
        scans = usable_scans(listed, root, subject)
        own = f"/sub-{subject}/"
        if scans and own in str(scans[0].path):
            return Path(str(scans[0].path).partition(own)[0])
    if not (root / f"sub-{subject}").is_dir():
        msg = f"there is no {root}/sub-{subject}, and no usable scan of it in the index: see `bhx index {cohort}`"
        raise ConfigError(msg)
    return root


def _of_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cohort", metavar="COHORT", help="of the configuration")
    parser.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="configuration (config.yaml)"
    )


def _study(args: argparse.Namespace) -> config.Config:
    study = config.load(args.config)
    if args.cohort not in study.cohorts:
        msg = f"no cohort {args.cohort!r} in {args.config}; there are: {', '.join(study.cohorts)}"
        raise ConfigError(msg)
    if study.cohorts[args.cohort].input != "bids":
        msg = f"cohort {args.cohort} is not preprocessed: its `input` is {study.cohorts[args.cohort].input}, not bids"
        raise ConfigError(msg)
    return study


def _reason(file: Path) -> str | None:
    """Why a subject, or some of its runs, failed; None if nothing did."""
    try:
        status = json.loads(file.read_text(encoding="utf-8"))
        if status["status"] != "ok":
            return failure(status)
        lost = [f"{scan['file']}: {scan['reason']}" for scan in status.get("excluded", ())]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{file.name} cannot be read"
    return "; ".join(line for line in lost if _CRASHED.search(line)) or None
