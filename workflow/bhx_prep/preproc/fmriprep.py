"""Preprocess one subject with fMRIPrep, in Docker or Apptainer.

The container sees a dataset of this one subject and writes into a private folder, so jobs cannot disturb each other.
What it made is moved to the cohort's derivatives when it has ended well; the status file is written after that.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bhx_model import __version__
from bhx_model.atomic_write import write_json
from bhx_model.command_line import run_command
from bhx_model.errors import DataError
from bhx_prep.config.fmriprep_arguments import given_words, parse
from bhx_prep.io import bids_names
from bhx_prep.preproc.arguments import UsableScan, subject_parser, usable_scans
from bhx_prep.preproc.bids_view import make_view
from bhx_prep.preproc.container_process import run_container
from bhx_prep.preproc.containers import Folders, check_site, container_command
from bhx_prep.preproc.crash_files import crash_files
from bhx_prep.preproc.dataset_description import check_place
from bhx_prep.preproc.fmriprep_dataset import complete_sidecars, keep_boilerplate, write_description
from bhx_prep.preproc.one_at_a_time import only_one
from bhx_prep.preproc.outcome import Outcome, settle
from bhx_prep.preproc.publish import discard, publish
from bhx_prep.preproc.status import write_status
from bhx_prep.preproc.work_folder import open_work_folder, remove_work_folder

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m bhx_prep.preproc.fmriprep --subject 01 --cohort abide1 --root /data/abide1 \\
    --preproc preproc.json --scans .bhx/index/abide1.json \\
    --tasks rest --out results/abide1/preproc --status results/abide1/preproc/sub-01_status.json \\
    --work /scratch --threads 8 --mem-mb 24000
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 also if the subject failed and `on_failure` is exclude."""
    args = _parser().parse_args(argv)
    return run_command(lambda: _command(args))


def _command(args: argparse.Namespace) -> int:
    bids_names.check_label(args.subject, "subject")
    bids_names.check_cohort(args.cohort)
    check_place(args.out, args.root)
    with only_one(args.out, args.subject):
        return _preprocess(args)


def _preprocess(args: argparse.Namespace) -> int:
    start = time.monotonic()
    log = args.out / "logs" / f"sub-{args.subject}_fmriprep.log"
    preproc = args.preproc
    log.parent.mkdir(parents=True, exist_ok=True)
    args.status.unlink(missing_ok=True)
    work = open_work_folder(args.work, args.cohort, args.subject, args.out)
    folders = Folders.below(work)
    settled = work / "settled.json"
    try:
        check_site(preproc, [args.out, work])
        scans = usable_scans(args.scans, args.root, args.subject)
        asked = {"preproc": preproc, "scans": [str(scan) for scan in scans]}
        outcome = _read_settled(settled, asked)
        if outcome is None:
            if settled.exists():  # output was moved that fMRIPrep would not write again
                remove_work_folder(work)
                open_work_folder(args.work, args.cohort, args.subject, args.out)
            outcome = _run(args, scans, folders, log)
    except DataError as error:
        outcome = Outcome(exit_code=None, reason=str(error))
    else:
        # killed from here on, the next attempt goes on here: fMRIPrep would not write again what has been moved
        write_json(settled, {"asked": asked, "outcome": dataclasses.asdict(outcome)})
    if outcome.reason is None:
        complete_sidecars(folders.out, args.subject)
        keep_boilerplate(folders.out, args.subject)
        publish(folders.out, args.out, args.subject)
        write_description(folders.out, args.out, args.root, preproc)
    else:  # what an earlier success left is not of these data
        discard(args.out / f"sub-{args.subject}")
    write_status(
        args.status,
        subject=args.subject,
        reason=outcome.reason,
        seconds=time.monotonic() - start,
        stages={},
        versions={"bhx": __version__, "fmriprep": preproc["image"]},
        log=log,
        excluded=outcome.excluded,
        exit_code=outcome.exit_code,
    )
    if outcome.reason is None:
        remove_work_folder(work)
    else:
        settled.unlink(missing_ok=True)
    for scan in outcome.excluded:
        logger.warning("sub-%s: %s is excluded: %s", args.subject, scan["file"], scan["reason"])
    if outcome.reason is not None:
        logger.error("fMRIPrep of sub-%s: %s (log: %s)", args.subject, outcome.reason, log)
    return int(outcome.reason is not None and preproc["on_failure"] == "stop")


def _read_settled(file: Path, asked: Mapping[str, Any]) -> Outcome | None:
    """The outcome of an attempt that was killed while it moved its output, for the same scans and settings."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return Outcome(**known["outcome"]) if known["asked"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _parser() -> argparse.ArgumentParser:
    parser = subject_parser("python -m bhx_prep.preproc.fmriprep", __doc__, EXAMPLE)
    parser.add_argument(
        "--mem-mb",
        type=int,
        default=16000,
        help="memory of the job, MB (default: 16000); fMRIPrep gets an eighth, at least 2000, less",
    )
    parser.add_argument("--attempt", type=int, default=1, help="number of the attempt, for messages")
    return parser


def fmriprep_memory(job_mb: int) -> int:
    """Memory (MB) that fMRIPrep may plan with: its own processes and the container's need some of the job's."""
    return max(job_mb - max(2000, job_mb // 8), 1000)


def _run(args: argparse.Namespace, scans: Sequence[UsableScan], folders: Folders, log: Path) -> Outcome:
    preproc, root = args.preproc, args.root.absolute()
    given = [option.name for option in parse(given_words(preproc))]
    if "--derivatives" not in given and not any(bids_names.suffix(s.path.name) == "T1w" for s in scans):
        msg = "there is no usable T1w image"  # fMRIPrep would find out after minutes
        raise DataError(msg)
    make_view(root, args.subject, args.tasks, folders.view, scans)
    for folder in (folders.out, folders.scratch / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    for stale in (*crash_files(folders.out), *folders.out.glob("sourcedata/freesurfer/*/scripts/IsRunning*")):
        stale.unlink()  # of an earlier attempt, which is not at work any more
    command = container_command(preproc, args.subject, folders, args.threads, fmriprep_memory(args.mem_mb))
    logger.info("sub-%s: fMRIPrep starts; log: %s", args.subject, log)
    with log.open("w", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(command)}\n")
        file.flush()
        docker = preproc["backend"] == "fmriprep-docker"
        exit_code = run_container(command, file, folders.scratch, docker=docker)
    shown = [scan for scan in scans if (folders.view / scan.path.relative_to(root)).exists()]
    attempt = f"{args.mem_mb} MB (attempt {args.attempt})"
    return settle(exit_code, log, folders.out, args.subject, shown, preproc["image"], attempt)


if __name__ == "__main__":
    sys.exit(main())
