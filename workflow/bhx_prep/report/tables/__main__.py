"""Write the table of an endpoint: the paper's published numbers where known, then this run's rows.

Three formats with the same content: Markdown, tidy CSV (one line per row and metric) and LaTeX (booktabs, graphicx).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bhx_model.atomic_write import write_json
from bhx_model.command_line import json_file, run_command
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.section import read_section
from bhx_prep.evaluation.baselines import covariates
from bhx_prep.report.tables import scores
from bhx_prep.report.tables.build import build
from bhx_prep.report.tables.made_of import made_of
from bhx_prep.report.tables.write import write

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bhx_prep.report.tables``."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.report.tables",
        description="Write the table of an endpoint as Markdown, tidy CSV and LaTeX.",
        epilog="example: python -m bhx_prep.report.tables --endpoint-name diagnosis --endpoint diagnosis.json"
        " --metrics results/endpoints/diagnosis/fc_seed-*/metrics.json --out-stem results/tables/diagnosis",
    )
    parser.add_argument("--endpoint-name", required=True, help="name of the endpoint")
    parser.add_argument(
        "--endpoint", required=True, type=json_file, metavar="FILE", help="its section as a JSON file"
    )
    parser.add_argument(
        "--metrics", required=True, nargs="+", type=Path, help="metrics.json files, all rows and seeds"
    )
    parser.add_argument(
        "--planted",
        type=json_file,
        default={},
        metavar="FILE",
        help="planted.json of synthetic subjects",
    )
    parser.add_argument(
        "--covariates",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help="covariates.parquet of its cohorts",
    )
    parser.add_argument("--out-stem", required=True, type=Path, help="where to write, without the extension")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _collect(arguments))


def _collect(arguments: argparse.Namespace) -> None:
    endpoint = read_section(EndpointSection, arguments.endpoint)
    planted = arguments.planted.get(endpoint.column, {}).get("said", "")
    found = [scores.read(path) for path in arguments.metrics]
    known = {p: row for file in arguments.covariates for p, row in covariates.read(file).rows.items()}
    table = build(arguments.endpoint_name, endpoint, found, planted, known)
    stem = arguments.out_stem
    write(table, stem)
    write_json(stem.parent / f"{stem.name}.json", made_of(table, endpoint, found, stem.parents[1]))
    logger.info("%s.md, .csv, .tex: %d metrics files", arguments.out_stem, len(arguments.metrics))


if __name__ == "__main__":
    sys.exit(main())
