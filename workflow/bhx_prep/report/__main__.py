"""Write the page, and the methods as a text beside it: ``python -m bhx_prep.report``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bhx_model.atomic_write import atomic_write
from bhx_model.command_line import run_command
from bhx_prep.boilerplate import text
from bhx_prep.config import config

logger = logging.getLogger(__name__)

#: A larger page is slow to open, and many mail servers refuse it.
LARGEST_MB = 15


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and the methods."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.report",
        description="Write one self-contained page on the whole study; steps that have not run yet are marked as such.",
        epilog="example: python -m bhx_prep.report --config config.yaml --results results"
        " --out results/reports/index.html",
    )
    parser.add_argument(
        "--config", required=True, type=Path, help="the configuration, in YAML or JSON with all defaults"
    )
    parser.add_argument("--results", required=True, type=Path, help="folder of the results")
    parser.add_argument(
        "--out", required=True, type=Path, help="the page to write; methods.md and methods.bib come beside it"
    )
    arguments = parser.parse_args(argv)
    return run_command(lambda: _write(arguments))


def _write(arguments: argparse.Namespace) -> None:
    from bhx_prep.report import page  # after the arguments: the drawing libraries take a second

    study = config.load(arguments.config)
    text.write(text.describe(study, arguments.results), arguments.out.parent)
    html = page.render(study, arguments.results)
    with atomic_write(arguments.out) as part:
        part.write_text(html, encoding="utf-8")
    size_mb = arguments.out.stat().st_size / 1e6
    level = logging.WARNING if size_mb > LARGEST_MB else logging.INFO
    logger.log(level, "%s: %.1f MB", arguments.out, size_mb)


if __name__ == "__main__":
    sys.exit(main())
