"""Outcomes of 55 patients of the STAGES trial, of which nothing is known to be predicted: every interval should hold r = 0.

    tests/real/stages [FOLDER]

Changes of symptoms (BPRS) and of functioning (SOFAS) at months 6 and 12, from connectivity at the beginning. Their authors
(Pope 2025) predicted neither. A harness that found something in so few patients would find it anywhere. Skips where
../shared/data is absent. No part of the test suite.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import real_study
import yaml
from real_study import Check

from bhx_model.command_line import run_command

COHORT = "stages"
METRIC = "pearson_r"


def checks(folder: Path, rows: dict[str, list[str]]) -> list[Check]:
    """Whether the interval of every row of every endpoint holds r = 0."""
    found = []
    for endpoint, methods in rows.items():
        for method in methods:
            r = real_study.score(folder, endpoint, method, METRIC)
            expected = f"{endpoint}, {method}: holds r = 0"
            if r.point is None:  # no r is claimed
                found.append(Check(expected, True, "undefined: predictions are constant"))
            else:
                by = f"r {r.point:+.2f} ({r.low:+.2f} to {r.high:+.2f})"
                found.append(Check(expected, real_study.holds(r, 0.0), by))
    return found


def run(folder: Path | None) -> int:
    """Run the study, print its tables and checks; 1 where an interval does not hold 0."""
    if not (real_study.DATA / "stages_schaefer400").exists():
        print(f"skipped: no {real_study.DATA / 'stages_schaefer400'}")
        return 0
    config = Path(__file__).with_name("stages.yaml")
    with tempfile.TemporaryDirectory(prefix="stages-") as name:
        folder = real_study.fresh(folder or Path(name))
        real_study.lay_out("stages_schaefer400", folder / COHORT)
        real_study.write_config(config, folder, {})
        real_study.snakemake(folder, "tables")
        endpoints = yaml.safe_load(config.read_text(encoding="utf-8"))["endpoints"]
        real_study.print_tables(folder, list(endpoints))
        rows = {endpoint: section["methods"] for endpoint, section in endpoints.items()}
        return real_study.print_checks(checks(folder, rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="tests/real/stages", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="where all is kept (a temporary folder)")
    args = parser.parse_args(argv)
    return run_command(lambda: run(args.folder), verbosity=0)


if __name__ == "__main__":
    sys.exit(main())
