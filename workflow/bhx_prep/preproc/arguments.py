"""Arguments of a subject's preprocessing, which both backends take."""

from __future__ import annotations

import argparse
from pathlib import Path

from bhx_model.command_line import json_file


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
    parser.add_argument("--out", required=True, type=Path, help="folder of the cohort's derivatives")
    parser.add_argument("--status", required=True, type=Path, help="status file, written last")
    parser.add_argument(
        "--work", required=True, type=Path, help="folder for work files; kept on failure to resume"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the job (default: 1)")
    return parser
