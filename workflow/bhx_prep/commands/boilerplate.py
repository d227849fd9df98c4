"""``bhx boilerplate``: methods text of the steps of a study that ran, with their references."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from bhx_model.errors import ConfigError
from bhx_prep.boilerplate import text
from bhx_prep.config import config

logger = logging.getLogger(__name__)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx boilerplate``."""
    parser.add_argument(
        "cohorts",
        nargs="*",
        metavar="COHORT",
        help="only these cohorts, without model and prediction (default: the whole study)",
    )
    parser.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="configuration (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="for methods.md and methods.bib (`reports` in the results)"
    )


def command(args: argparse.Namespace) -> int:
    """Run ``bhx boilerplate``.

    Raises
    ------
    ConfigError
        If there is no such cohort.
    """
    study = config.load(args.config)
    for name in args.cohorts:
        if name not in study.cohorts:
            msg = f"no cohort {name!r} in {args.config}; there are: {', '.join(study.cohorts)}"
            raise ConfigError(msg)
    out = args.out or study.results / "reports"
    text.write(text.describe(study, study.results, tuple(args.cohorts)), out)
    logger.info("%s, %s", out / "methods.md", out / "methods.bib")
    return 0
