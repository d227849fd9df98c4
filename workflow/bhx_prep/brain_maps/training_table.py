"""The command line shared by per-ROI tables that are computed from an experiment's training subjects."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bhx_model.command_line import run_command
from bhx_prep.brain_maps import join
from bhx_prep.shards import read

logger = logging.getLogger(__name__)


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Arguments that gradients and normaliser share."""
    made = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--shards", required=True, nargs="+", type=Path, help="index.json of every cohort")
    made.add_argument("--split", required=True, type=Path, help="pretrain.json")
    made.add_argument("--out", required=True, type=Path, help="Parquet table")
    return made


def run(
    args: argparse.Namespace,
    compute: Callable[[Sequence[read.PackedCohort], Sequence[str]], tuple[dict[str, Any], dict[str, Any]]],
    warnings: dict[str, str],
) -> int:
    """Compute the table of the shards and the split on the command line, and write it.

    Parameters
    ----------
    args : argparse.Namespace
        Of a `parser`.
    compute : callable
        From cohorts and training subjects (``cohort/subject``) to columns and metadata.
    warnings : dict
        Key of the metadata that lists ROIs -> what is said about them where there are any.

    Returns
    -------
    int
        Exit code.
    """

    def write() -> None:
        cohorts = read.read_cohorts(args.shards)
        columns, metadata = compute(cohorts, json.loads(args.split.read_bytes())["train"])
        join.write_table(args.out, cohorts[0].index["atlas"], columns, metadata)
        for key, text in warnings.items():
            if metadata[key]:
                logger.warning("%d %s: %s", len(metadata[key]), text, ", ".join(metadata[key]))

    return run_command(write)
