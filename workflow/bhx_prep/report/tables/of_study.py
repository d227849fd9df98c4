"""Write a table of the whole study: Table 1 or 2 of the paper, or the experiments side by side."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bhx_model.command_line import json_file, run_command
from bhx_prep.config.experiments import REFERENCE
from bhx_prep.config.paper_tables import ABLATIONS, PAPER_TABLES
from bhx_prep.report.tables import ablations, study_table
from bhx_prep.report.tables.study_sheet import study_sheet
from bhx_prep.report.tables.tidy_csv import from_csv
from bhx_prep.report.tables.write import write_sheet

logger = logging.getLogger(__name__)

#: Names of all tables of a study but those of its endpoints.
NAMES = (*PAPER_TABLES, ABLATIONS)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bhx_prep.report.tables.of_study``."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.report.tables.of_study",
        description="Write Table 1 or 2 of the paper with this run's rows, or the table of ablations, in three formats.",
        epilog="example: python -m bhx_prep.report.tables.of_study --tables results/tables/abide1.csv"
        " --out-stem results/tables/table1",
    )
    parser.add_argument(
        "--tables", required=True, nargs="+", type=Path, help="tables of the endpoints, as CSV"
    )
    parser.add_argument(
        "--experiments",
        type=json_file,
        default={},
        metavar="FILE",
        help="sections of the experiments as a JSON file, for `ablations`",
    )
    parser.add_argument(
        "--out-stem",
        required=True,
        type=Path,
        help="where to write, without the extension; its name says which table",
    )
    arguments = parser.parse_args(argv)
    name = arguments.out_stem.name
    if name.removesuffix(REFERENCE) not in NAMES:
        parser.error(
            f"--out-stem: no table {name!r}; there are {', '.join(NAMES)}, with {REFERENCE} or without"
        )
    return run_command(lambda: _write(arguments))


def _write(arguments: argparse.Namespace) -> None:
    stem = arguments.out_stem
    tables = [from_csv(path.read_text(encoding="utf-8")) for path in arguments.tables]
    name = stem.name.removesuffix(REFERENCE)
    if name == ABLATIONS:
        sheet = ablations.ablation_sheet(stem.name, tables, arguments.experiments)
        tidy = ablations.to_csv(tables, arguments.experiments)
    else:
        lines = study_table.study_lines(PAPER_TABLES[name], tables)
        sheet, tidy = study_sheet(stem.name, lines), study_table.to_csv(lines)
    write_sheet(sheet, tidy, stem)
    logger.info("%s.md, .csv, .tex: %d endpoints", stem, len(tables))


if __name__ == "__main__":
    sys.exit(main())
