"""Preprocess one subject of a dataset without a study: its index and settings are made on the way."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bhx_model.atomic_write import write_json
from bhx_model.command_line import positive_number
from bhx_model.errors import ConfigError, DataError, SiteError
from bhx_prep import installation
from bhx_prep.config import config
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.preproc import PreprocSection
from bhx_prep.ingest import index
from bhx_prep.io import bids_names
from bhx_prep.preproc import fmriprep
from bhx_prep.preproc.dataset_description import check_place, other_source

logger = logging.getLogger(__name__)

#: Name of the cohort that a subject without a study belongs to.
COHORT: Final = "single"


def arguments(actions: Any) -> None:
    """Add ``bhx preproc run`` to the actions of ``bhx preproc``."""
    text = "preprocess one subject of a BIDS dataset, without a study"
    parser = actions.add_parser(
        "run",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Exit code 0 if it went well.",
        epilog="example: bhx preproc run --bids /data/ds --subject 01 --out derivatives --backend embedded",
    )
    defaults = {name: field.default for name, field in PreprocSection.model_fields.items()}
    parser.add_argument("--bids", required=True, type=Path, metavar="FOLDER", help="raw BIDS; only read")
    parser.add_argument("--subject", required=True, help="label without sub-")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FOLDER", help="for derivatives and status"
    )
    parser.add_argument(
        "--backend",
        default=defaults["backend"],
        help="embedded (default), fmriprep-docker or fmriprep-apptainer",
    )
    parser.add_argument("--tasks", nargs="+", default=["rest"], help="fMRI tasks to use (rest)")
    parser.add_argument(
        "--space", default=CohortSection.model_fields["space"].default, help="of BOLD (%(default)s)"
    )
    parser.add_argument(
        "--surfaces", default=defaults["surfaces"], help="none (default) or cat-surf; of the embedded backend"
    )
    parser.add_argument("--image", default=defaults["image"], help="fMRIPrep's container (%(default)s)")
    parser.add_argument("--fs-license", metavar="FILE", help="FreeSurfer licence, which fMRIPrep requires")
    parser.add_argument("--templateflow-home", metavar="FOLDER", help="filled TemplateFlow folder")
    parser.add_argument("--fs-subjects-dir", metavar="FOLDER", help="finished FreeSurfer subjects to use")
    parser.add_argument("--cifti-output", choices=("91k", "170k"), help="grayordinates (none)")
    parser.add_argument(
        "--subject-anatomical-reference",
        choices=("first-lex", "unbiased", "sessionwise"),
        help="reference of T1w images from several sessions (first-lex)",
    )
    parser.add_argument("--level", choices=("minimal", "resampling", "full"), help="how much to write (full)")
    parser.add_argument(
        "--fmriprep-args",
        default="",
        metavar="WORDS",
        help="more arguments, as in --fmriprep-args='--fs-no-reconall'",
    )
    job_arguments(parser)


def job_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a job gives a subject: threads, memory, folders."""
    parser.add_argument("--threads", type=positive_number, default=8, help="of the job (%(default)s)")
    parser.add_argument(
        "--mem-mb", type=positive_number, default=24000, help="memory of the job, MB (%(default)s)"
    )
    scratch = Path(os.environ.get("TMPDIR", "/tmp"))
    parser.add_argument("--work", type=Path, default=scratch, help="for work files (%(default)s)")
    parser.add_argument(
        "--templates",
        type=Path,
        default=Path("results/templates"),
        help="folder made by bhx_prep.atlas.fetch, of the embedded backend (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Preprocess one subject.

    Raises
    ------
    ConfigError
        If the settings have mistakes.
    DataError
        If the subject has no usable scan.
    SiteError
        If the machine lacks something.
    """
    subject = bids_names.check_label(args.subject.removeprefix("sub-"), "subject")
    study = _study(args, subject)
    check_place(args.out, args.bids)
    if other := other_source(args.out, args.bids):
        msg = f"{args.out} holds derivatives of {other}, not of {args.bids}: name another folder with --out"
        raise ConfigError(msg)
    cohort = study.cohorts[COHORT]
    table = index.build(COHORT, cohort, t1w_mm=study.features.t1w_resolution_mm)
    rows = table.select(["path", "status", "reason"]).to_pylist()
    for row in rows:
        if row["status"] != "ok":
            logger.warning("%s is left out: %s", row["path"] or f"sub-{subject}", row["reason"])
    scans = {name: rows for name, rows in index.usable_scans(table).items() if name == subject}
    if not scans:
        msg = f"sub-{subject} has no usable scan in {args.bids}: see the reasons above, and --tasks"
        raise DataError(msg)
    section = study.preproc.of(cohort.space, study.features.t1w_resolution_mm)
    asked = (
        args.out / "logs" / f"sub-{subject}_scans.json",
        args.out / "logs" / f"sub-{subject}_settings.json",
    )
    write_json(asked[0], {"scans": scans})
    write_json(asked[1], section.for_jobs())
    if section.backend == "embedded":
        root = args.bids.absolute()
        words = job_words(subject, COHORT, root, cohort.tasks, asked[0], asked[1], args.out, args)
        code = _run_embedded(embedded_command(words, args.templates))
    else:
        words = job_words(subject, COHORT, args.bids, cohort.tasks, asked[0], asked[1], args.out, args)
        code = fmriprep.main([*words, "--mem-mb", str(args.mem_mb)])
    runs = [row["status"] for row in rows if bids_names.suffix(Path(row["path"] or "").name) == "bold"]
    if code == 0 and runs and "ok" not in runs:
        logger.error(
            "sub-%s: no run was preprocessed, the T1w image alone: see above why they were left out", subject
        )
        return 1
    return code


def embedded_command(words: Sequence[str], templates: Path) -> list[str]:
    """Build the command of the embedded workflow, in its own environment.

    Parameters
    ----------
    words : sequence of str
        From `job_words`.
    templates : Path
        Folder of the templates.
    """
    python = str(installation.ants_python(Path.cwd()))
    return [python, "-m", "bhx_prep.preproc.embedded", *words, "--templates", str(templates)]


def job_words(
    subject: str,
    cohort: str,
    root: Path,
    tasks: Sequence[str],
    scans: Path,
    settings: Path,
    out: Path,
    job: argparse.Namespace,
) -> list[str]:
    """Arguments of a job, of either backend.

    Parameters
    ----------
    subject, cohort : str
        Labels.
    root : Path
        Raw BIDS dataset.
    tasks : sequence of str
        fMRI tasks to use.
    scans, settings : Path
        JSON files: what the index says is usable, and section `preproc`.
    out : Path
        Folder for the derivatives.
    job : Namespace
        Of `job_arguments`.
    """
    return [
        "--subject", subject, "--cohort", cohort, "--root", str(root), "--tasks", *tasks, "--scans", str(scans),
        "--preproc", str(settings), "--threads", str(job.threads), "--out", str(out),
        "--status", str(out / f"sub-{subject}_status.json"), "--work", str(job.work),
    ]  # fmt: skip


def _run_embedded(words: list[str]) -> int:
    if not Path(words[0]).exists():
        raise SiteError(f"there is no {words[0]}: {installation.how_to_get_ants()}")
    installation.link_code(Path.cwd())
    paths = [*map(str, installation.python_path(Path.cwd())), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(words, env=environment, check=False).returncode


def _study(args: argparse.Namespace, subject: str) -> config.Config:
    """A configuration of this one subject, checked as any."""
    try:
        words = shlex.split(args.fmriprep_args)
    except ValueError as error:
        msg = f"--fmriprep-args={args.fmriprep_args}: a quotation mark is not closed"
        raise ConfigError(msg) from error
    raw: dict[str, Any] = {
        "cohorts": {
            COHORT: {
                "input": "bids",
                "root": str(args.bids),
                "subjects": [subject],
                "tasks": args.tasks,
                "space": args.space,
            }
        },
        "preproc": {
            "backend": args.backend,
            "surfaces": args.surfaces,
            "image": args.image,
            "fs_license": args.fs_license,
            "templateflow_home": args.templateflow_home,
            "fs_subjects_dir": args.fs_subjects_dir,
            "cifti_output": args.cifti_output,
            "subject_anatomical_reference": args.subject_anatomical_reference,
            "fmriprep_args": [word for word in words if word != "--anat-only"],
            "on_failure": "stop",
        },
    }
    study = config.check(raw)
    # what no study takes, whose features need the whole of BOLD
    given = {"level": args.level, "fmriprep_args": tuple(words)}
    return study.model_copy(update={"preproc": study.preproc.model_copy(update=given)})
