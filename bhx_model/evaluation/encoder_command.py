"""The command line that encodes the scans of a cohort, shared by both encoders."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from bhx_model.command_line import run_command
from bhx_model.remote.urls import Place, place


def run(
    stage: str,
    description: str | None,
    write: Callable[[Path, Place, Path], None],
    argv: Sequence[str] | None,
) -> int:
    """Run the command line of an encoder; 0 when the file is written, 1 on an error.

    Parameters
    ----------
    stage : str
        ``structure`` or ``function``.
    description : str
        Of the module, for ``--help``.
    write : callable
        Encodes: of the folder of the trained stage, the index of the cohort and the file.
    argv : sequence of str, optional
        The process's own when None.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m bhx_model.evaluation.{stage}_tokens",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(f"--{stage}", dest="trained", type=Path, required=True, help=f"folder of the trained {stage} stage")
    add("--shards", type=place, required=True, help="index.json of the cohort's shards, or its URL")
    add("--out", type=Path, required=True, help=".npz to write")
    a = parser.parse_args(argv)
    return run_command(lambda: write(a.trained, a.shards, a.out))
