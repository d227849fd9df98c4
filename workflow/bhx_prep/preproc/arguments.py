"""Command-line arguments of a subject's preprocessing, shared by both backends."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

from bhx_model.command_line import json_file, positive_number
from bhx_model.errors import SiteError


def subject_parser(prog: str, description: str | None, epilog: str) -> argparse.ArgumentParser:
    """Parser of a command that preprocesses one subject."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--subject", required=True, help="label without sub-")
    parser.add_argument("--cohort", required=True, help="name of the cohort, for the work folder")
    parser.add_argument("--root", required=True, type=Path, help="raw BIDS dataset; only read")
    parser.add_argument(
        "--preproc", required=True, type=json_file, metavar="FILE", help="section `preproc` as a JSON file"
    )
    parser.add_argument("--tasks", required=True, nargs="+", help="fMRI tasks to use")
    parser.add_argument(
        "--scans",
        required=True,
        type=Path,
        metavar="FILE",
        help="what the index says of the cohort: .bhx/index/COHORT.json, of which the usable scans are preprocessed",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the cohort's derivatives")
    parser.add_argument("--status", required=True, type=Path, help="status file, written last")
    parser.add_argument(
        "--work", required=True, type=Path, help="folder for work files; kept on failure to resume"
    )
    parser.add_argument("--threads", type=positive_number, default=1, help="threads of the job (default: 1)")
    return parser


@dataclass(frozen=True)
class UsableScan:
    """A scan of the subject that the index calls usable: a T1w image or a run.

    Attributes
    ----------
    path : Path
        Of its image, of the first echo where there are several.
    tr_s : float or None
        Repetition time (s) as the index decided; None for a T1w image.
    echoes : int or None
        Echoes that belong to it; None where there is one only.
    """

    path: Path
    tr_s: float | None = None
    echoes: int | None = None


def usable_scans(file: Path, root: Path, subject: str) -> list[UsableScan]:
    """The scans of a subject that the index calls usable: nothing else is preprocessed.

    Parameters
    ----------
    file : Path
        ``.bhx/index/<cohort>.json``.
    root : Path
        Of the dataset.
    subject : str
        Without ``sub-``.

    Raises
    ------
    SiteError
        If the file is absent, no index, or names a file that does not lie in the dataset.
    """
    try:
        scans = json.loads(file.read_text(encoding="utf-8"))["scans"].get(subject, [])
        found = [UsableScan(root.absolute() / path, tr_s, echoes) for path, tr_s, echoes in scans]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{file} cannot be read as the index of the cohort ({type(error).__name__}): make it with `bhx index`"
        raise SiteError(msg) from error
    for scan in found:
        if not Path(os.path.normpath(scan.path)).is_relative_to(os.path.normpath(root.absolute())):
            raise SiteError(
                f"{file} names {scan.path}, which does not lie in {root}: make it again with `bhx index`"
            )
    return found
