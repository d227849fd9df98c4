"""Evaluate a run of fMRIPrep: which of its output is kept, and why the rest is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bhx_model.errors import SiteError
from bhx_prep.io import bids_names
from bhx_prep.preproc.arguments import UsableScan
from bhx_prep.preproc.crash_files import Crash, crash_files, read_crash, workflow_of
from bhx_prep.preproc.disks import full_disk
from bhx_prep.preproc.faults import recognise

#: Entities by which runs of a subject differ in the names of raw data and of outputs alike.
_RUN = ("ses", "task", "acq", "ce", "rec", "dir", "run")
#: What fMRIPrep writes of a finished run besides its confounds.
_BOLD: Final = ("_desc-preproc_bold.nii.gz", "_bold.dtseries.nii", "_bold.func.gii")
_CONFOUNDS: Final = ("_desc-confounds_timeseries.tsv", "_desc-confounds_regressors.tsv")


@dataclass
class Outcome:
    """How fMRIPrep ended.

    Attributes
    ----------
    exit_code : int or None
        Of the container; None where none was started.
    reason : str or None
        Why nothing can be used; None where the output can.
    excluded : list of dict
        Runs that are not in it: ``{"file": .., "reason": ..}``.
    """

    exit_code: int | None
    reason: str | None = None
    excluded: list[dict[str, str]] = field(default_factory=list)


def settle(
    exit_code: int, log: Path, out: Path, subject: str, scans: Sequence[UsableScan], image: str, attempt: str
) -> Outcome:
    """Decide what an end means. Output of runs that crashed is removed from `out`.

    Parameters
    ----------
    exit_code : int
        Of the container.
    log : Path
        What was printed.
    out : Path
        What fMRIPrep wrote, with the crash files of this attempt alone.
    subject : str
        Without ``sub-``.
    scans : sequence of UsableScan
        What it was given.
    image : str
        Of the container.
    attempt : str
        What the attempt was given, for messages on memory.

    Raises
    ------
    SiteError
        If the end is not the subject's fault, or nobody's that is known: the job has to end.
    """
    printed = log.read_text(encoding="utf-8", errors="replace")
    made = any((out / f"sub-{subject}").rglob("*_desc-preproc_*"))
    reports = "finished successfully!" in printed and "Report generation was not successful" in printed
    if exit_code == 0 or reports:
        if made:
            return Outcome(exit_code)
        msg = f"fMRIPrep ended with exit code {exit_code} but wrote no preprocessed image: see {log}"
        raise SiteError(msg)
    crashes = [read_crash(path) for path in crash_files(out)]
    fault = recognise(exit_code, printed, crashes, image)
    if fault.kind != "site" and (full := full_disk([out, log.parent])) is not None:
        raise SiteError(f"{full} (sub-{subject} is not excluded)")
    if fault.kind == "site":
        msg = f"{fault.sentence} (sub-{subject} is not excluded; log: {log})"
        raise SiteError(msg)
    if fault.kind == "memory":
        msg = f"{fault.sentence} with {attempt}: if no attempt follows, raise mem_mb of run_fmriprep (log: {log})"
        raise SiteError(msg)
    if fault.kind == "unknown":
        msg = f"{fault.sentence}. Nobody is excluded for what is unknown: see {log}, or name the scans in `exclude`"
        raise SiteError(msg)
    runs = [scan for scan in scans if bids_names.suffix(scan.path.name) == "bold"]
    lost = _lost(runs, crashes, out / f"sub-{subject}")
    if not crashes or any(crash.shared for crash in crashes) or not made or len(lost) == len(runs):
        return Outcome(exit_code, fault.sentence)
    for scan in runs:
        if scan.path in lost:
            _remove(out / f"sub-{subject}", scan.path.name)
    return Outcome(
        exit_code, excluded=[{"file": path.name, "reason": reason} for path, reason in lost.items()]
    )


def _lost(runs: Sequence[UsableScan], crashes: Sequence[Crash], folder: Path) -> dict[Path, str]:
    """Runs that crashed or were not finished, with the reason."""
    lost = {}
    for scan in runs:
        own = [crash for crash in crashes if crash.run == workflow_of(scan.path.name)]
        if own or not _is_finished(folder, scan.path.name):
            names = own or [crash for crash in crashes if crash.run is None]
            text = "; ".join(dict.fromkeys(crash.sentence for crash in names))
            lost[scan.path] = f"fMRIPrep failed: {text or 'it wrote no output of this run'}"
    return lost


def _is_finished(folder: Path, bold: str) -> bool:
    names = [path.name for path in _outputs(folder, bold)]
    return any(n.endswith(_BOLD) for n in names) and any(n.endswith(_CONFOUNDS) for n in names)


def _outputs(folder: Path, bold: str) -> list[Path]:
    """Files in the subject's output that are made of a run."""
    run = _run_of(bold)
    return [path for path in folder.glob("**/func/*") if _run_of(path.name) == run]


def _run_of(name: str) -> dict[str, str]:
    entities = bids_names.unpadded(bids_names.parse(name))
    return {key: entities[key] for key in _RUN if key in entities}


def _remove(folder: Path, bold: str) -> None:
    for path in _outputs(folder, bold):
        path.unlink()
