"""Preprocess one subject of a raw BIDS dataset without containers.

A short nipype workflow on ANTs for machines without Docker or Apptainer. It is not a replacement for fMRIPrep: no
surfaces. Outputs carry fMRIPrep 25's names.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bhx_model import __version__
from bhx_model.atomic_write import read_json
from bhx_model.command_line import run_command
from bhx_model.errors import DataError, LimitError, SiteError
from bhx_prep.io import bids_names
from bhx_prep.io.notes import Kind, note
from bhx_prep.preproc.arguments import subject_parser, usable_scans
from bhx_prep.preproc.crash_files import Crash, read_crash
from bhx_prep.preproc.dataset_description import check_place
from bhx_prep.preproc.disks import FULL, full_disk, naming_full_disks
from bhx_prep.preproc.embedded.raw_files import RawFiles, Scan, find
from bhx_prep.preproc.embedded.step_times import StepTimes
from bhx_prep.preproc.embedded.surfaces_machine import QUALITY, check_machine
from bhx_prep.preproc.faults import recognise
from bhx_prep.preproc.one_at_a_time import only_one
from bhx_prep.preproc.publish import move
from bhx_prep.preproc.status import write_status
from bhx_prep.preproc.work_folder import open_work_folder, work_folder

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m bhx_prep.preproc.embedded --subject 01 --cohort rawbids --root demo-data/rawbids --templates results/templates \\
    --preproc preproc.json --tasks rest --scans .bhx/index/rawbids.json \\
    --out results/rawbids/preproc --status results/rawbids/preproc/sub-01_status.json --work /tmp/work
"""


#: What a step raises where its data cannot be used, as tracebacks have it.
_OF_DATA = tuple(f"{error.__module__}.{error.__qualname__}" for error in (DataError, LimitError))
#: And where the machine lacks something.
_OF_MACHINE = f"{SiteError.__module__}.{SiteError.__qualname__}"


class StepFailed(RuntimeError):
    """A step failed by a bug, not by its data: the job stops. The message has the step's traceback."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 also if the subject failed and `on_failure` is exclude."""
    args = _parser().parse_args(argv)
    return run_command(lambda: _command(args))


def _command(args: argparse.Namespace) -> int:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[name] = str(args.threads)
    os.environ["NO_ET"] = "1"  # nipype shall not ask the network for newer versions
    bids_names.check_label(args.subject, "subject")
    bids_names.check_cohort(args.cohort)
    for name in ("head_T1w.nii.gz", "head_mask.nii.gz"):
        if not (args.templates / name).is_file():
            msg = f"no {args.templates / name}: make the templates first (python -m bhx_prep.atlas.fetch)"
            raise SiteError(msg)
    if args.preproc.get("surfaces", "none") != "none":
        check_machine(args.templates)
    check_place(args.out, args.root)
    work = work_folder(args.work, args.cohort, args.subject, args.out)
    places = (work, work.parent, args.out, args.out / "logs", args.status.parent)
    with naming_full_disks(places), only_one(args.out, args.subject):
        return _preprocess(args, args.preproc)


def _parser() -> argparse.ArgumentParser:
    parser = subject_parser("python -m bhx_prep.preproc.embedded", __doc__, EXAMPLE)
    parser.add_argument("--templates", required=True, type=Path, help="folder made by bhx_prep.atlas.fetch")
    parser.add_argument(
        "--keep",
        nargs="*",
        default=[],
        metavar="FILE",
        help="names of raw images that somebody decided to keep, whatever limits of quality they fail",
    )
    return parser


def _preprocess(args: argparse.Namespace, preproc: dict[str, Any]) -> int:
    start = time.monotonic()
    args.status.unlink(missing_ok=True)
    work = open_work_folder(args.work, args.cohort, args.subject, args.out)
    log = args.out / "logs" / f"sub-{args.subject}_embedded.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    stages: dict[str, float] = {}
    excluded: list[dict[str, str]] = []
    notes: list[dict[str, str]] = []
    reason, lost = None, False
    scans = usable_scans(args.scans, args.root, args.subject)
    logger.info("sub-%s: starts; log: %s", args.subject, log)
    try:
        files = find(args.root.absolute(), args.subject, scans)
        files.keep(args.keep)
        stages["check"] = time.monotonic() - start
        _run(args, preproc, files, work, log, stages)
        excluded = files.excluded
        lost = files.asked > 0 and all(run.path.name in _names(excluded) for run in files.runs)
        scans_used = (*files.anats, *files.runs)
        notes = [{"file": scan.path.name, "note": text} for scan in scans_used for text in scan.notes]
        notes += _distortion_left(work / "derivatives", args.root, files)
        notes += _without_surfaces(work / "derivatives", args.root, files)
    except DataError as error:
        reason = str(error)
    shutil.rmtree(args.out / f"sub-{args.subject}", ignore_errors=True)
    if reason is None:
        _publish(work / "derivatives" / f"sub-{args.subject}", args.out)
        from bhx_prep.preproc.embedded.derivatives import write_description

        write_description(args.out, args.root, preproc)
        shutil.rmtree(work)
    write_status(
        args.status,
        subject=args.subject,
        reason=reason,
        seconds=time.monotonic() - start,
        stages=stages,
        versions=_versions(),
        log=log,
        excluded=excluded,
        notes=notes,
        kept=args.keep,
    )
    if reason is None:
        logger.info("sub-%s: done after %.0f s", args.subject, time.monotonic() - start)
    else:
        logger.error("sub-%s: failed: %s", args.subject, reason)
    return 1 if (reason is not None or lost) and preproc["on_failure"] == "stop" else 0


def _names(excluded: list[dict[str, str]]) -> set[str]:
    return {scan["file"] for scan in excluded}


def _publish(made: Path, out: Path) -> None:
    """Bring a finished folder to its place; the work folder may be on another disk."""
    part = out / f".{made.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    move(made, out / made.name, part)


def _run(
    args: argparse.Namespace,
    preproc: dict[str, Any],
    files: RawFiles,
    work: Path,
    log: Path,
    stages: dict[str, float],
) -> None:
    """Run the workflow; scans that fail are added to what the subject excludes.

    Where one of several T1w images fails, its runs are brought to another one of the subject.

    Raises
    ------
    DataError
        If every T1w image, or every scan that was asked for, failed by its data.
    SiteError
        If the disk is full.
    StepFailed
        If a step failed by anything else.
    """
    base, temporary = work / "derivatives", work / "temporary"
    for folder in (base, temporary):
        shutil.rmtree(folder, ignore_errors=True)
    temporary.mkdir()
    tempfile.tempdir = str(temporary)  # ANTs leaves images in it
    failures = _execute(args, preproc, files, work, log, stages)
    failed = [scan for scan in files.anats if not _saved(base, args.root, scan)]
    if len(failed) == len(files.anats):
        text = "; ".join(dict.fromkeys(failures.values())) or "see the log"
        msg = f"{text} (work files are kept in {work})"
        raise DataError(msg)
    for scan in failed:
        files.anats.remove(scan)
        files.exclude(scan.path, _why(scan, failures))
    if failed and files.runs:
        failures = _execute(args, preproc, files, work, log, stages)  # what is done is not done again
    for scan in files.runs:
        if not _saved(base, args.root, scan):
            files.exclude(scan.path, _why(scan, failures))
    for excluded in files.excluded:
        logger.warning("sub-%s: %s is excluded: %s", args.subject, excluded["file"], excluded["reason"])


def _execute(
    args: argparse.Namespace,
    preproc: dict[str, Any],
    files: RawFiles,
    work: Path,
    log: Path,
    stages: dict[str, float],
) -> dict[str, str]:
    """Run the workflow once; gives why steps failed by their data, by the names of their crash files."""
    # slow imports: not before the data are known to be good
    from nipype import config
    from nipype import logging as nipype_logging

    crashes = work / "crashes"
    shutil.rmtree(crashes, ignore_errors=True)  # those of an earlier try
    crashes.mkdir()
    config.update_config(
        {
            "logging": {"log_to_file": "false"},
            "execution": {
                "stop_on_first_crash": "false",  # one bad run shall not stop the others
                "crashfile_format": "txt",
                "crashdump_dir": str(crashes),
                "hash_method": "timestamp",
                "check_version": "false",
            },
        }
    )
    nipype_logging.update_logging(config)
    from bhx_prep.preproc.embedded.workflow import build

    workflow = build(
        files,
        args.root.absolute(),
        args.templates.absolute(),
        work / "derivatives",
        work,
        float(preproc["embedded_resolution_mm"]),
        preproc.get("surfaces", "none"),
    )
    stopped = None
    with _quietly(log):
        try:
            workflow.run(plugin="Linear", plugin_args={"status_callback": StepTimes(args.subject, stages)})
        except Exception as error:  # the first of perhaps several; the crash files have them all, and decide
            logging.getLogger("nipype.workflow").exception("the workflow failed")
            stopped = error
    texts = {path.name: path.read_text(errors="replace") for path in sorted(crashes.glob("crash-*.txt"))}
    if (stopped is not None or texts) and (full := full_disk([work, log.parent])) is not None:
        raise SiteError(f"{full} (sub-{args.subject} is not excluded)")
    if isinstance(stopped, OSError) and stopped.errno in FULL:  # nipype's own files
        raise stopped
    _raise_fault_of_machine(args.subject, [read_crash(crashes / name) for name in texts], log)
    if stopped is not None and not texts:
        raise stopped
    return {name: reason_of(name, text) for name, text in texts.items()}


def _why(scan: Scan, failures: dict[str, str]) -> str:
    """Why a scan was not written; names of crash files have the node's name, ``step_stem``, before an id."""
    mine = [text for name, text in failures.items() if f"_{scan.stem}-" in name]
    return "; ".join(mine) or "see the log"


def _raise_fault_of_machine(subject: str, crashed: list[Crash], log: Path) -> None:
    """Stop where a step failed by the machine: a lack of memory that ANTs reports is no fault of the image either."""
    known = (*_OF_DATA, _OF_MACHINE)  # whose sentences say more than the table of faults
    others = [crash for crash in crashed if not any(f"{name}: " in crash.text for name in known)]
    for kind, crashes in (("site", others), ("memory", crashed)):
        fault = recognise(1, "", crashes, "")
        if fault.kind == kind:
            msg = f"{fault.sentence} (sub-{subject} is not excluded; log: {log})"
            raise SiteError(msg)


def _distortion_left(base: Path, root: Path, files: RawFiles) -> list[dict[str, str]]:
    """Notes of runs whose field map was found not to be theirs when it was used."""
    notes = []
    for run in files.runs:
        folder = base / run.path.parent.relative_to(root.absolute())
        for sidecar in folder.glob(f"{run.stem}_space-*_desc-preproc_bold.json"):
            said = read_json(sidecar, "start the subject again").get("DistortionNote")
            if said and said not in run.notes:
                notes.append({"file": run.path.name, "note": said})
    return notes


def _without_surfaces(base: Path, root: Path, files: RawFiles) -> list[dict[str, str]]:
    """Notes of scans that should have surfaces and have none: the T1w image's reason holds for its runs, too."""
    notes = []
    for scan in (*files.anats, *files.runs):
        anat = scan if scan in files.anats else files.anat_of(scan)
        written = base / anat.path.parent.relative_to(root.absolute()) / f"{anat.stem}_{QUALITY}"
        if written.is_file() and (reason := read_json(written, "start the subject again")["reason"]):
            notes.append({"file": scan.path.name, "note": note(Kind.SURFACES, reason)})
            logger.warning("%s: no surfaces: %s", scan.stem, reason)
    return notes


def _saved(base: Path, root: Path, scan: Scan) -> bool:
    folder = base / scan.path.parent.relative_to(root.absolute())
    return any(folder.glob(f"{scan.stem}_space-*_desc-preproc_*.nii.gz"))


def reason_of(name: str, crash: str) -> str:
    """Why a step could not use its data, from its crash file.

    Parameters
    ----------
    name, crash : str
        Name and content of a crash file of nipype's, which ends with the traceback.

    Raises
    ------
    SiteError
        If the step says that the machine lacks something.
    StepFailed
        If the step ended with another exception than a `DataError`.
    """
    lines = [line.strip() for line in crash.splitlines() if line.strip()]
    node = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("Node:")), name)
    step = node.rsplit(".", 1)[-1].split("_", 1)[0]
    exception, _, sentence = lines[-1].partition(": ")
    if exception == _OF_MACHINE:
        raise SiteError(sentence)
    if exception not in _OF_DATA:
        msg = f"step {step} failed by a bug of BHX, not by its data:\n{crash}"
        raise StepFailed(msg)
    return f"step {step} failed: {sentence}"


class _quietly:
    """Redirect output of ANTs, ITK and nipype to the log file, not to standard error."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __enter__(self) -> None:
        sys.stdout.flush()
        self.file = self.log.open("w")
        self.kept = os.dup(1)
        os.dup2(self.file.fileno(), 1)
        self.handler = logging.StreamHandler(self.file)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        self.loggers = [logging.getLogger(n) for n in ("nipype.workflow", "nipype.interface", "nipype.utils")]
        for logger in self.loggers:
            logger.handlers = [self.handler]
            logger.propagate = False

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()
        for logger in self.loggers:
            logger.removeHandler(self.handler)
        os.dup2(self.kept, 1)
        os.close(self.kept)
        self.file.close()


def _versions() -> dict[str, str]:
    found = {"bhx": __version__}
    for name in ("nipype", "antspyx", "deepbet", "torch", "nibabel", "numpy", "scipy", "cat-surf"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
