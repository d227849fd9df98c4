"""``bhx explain``: trace a row of a table back to its data and code, from files alone.

An address is ``TABLE:ROW`` of an endpoint's table, or ``TABLE:ENDPOINT:ROW``, also of the tables of the whole study. Parts
may be shortened as long as they mean one thing; with parts left out, what there is is listed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bhx_model.errors import ConfigError
from bhx_prep.config import config
from bhx_prep.report import provenance
from bhx_prep.report.table_addresses import Addresses, Found


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bhx explain``."""
    parser.add_argument(
        "address",
        nargs="?",
        default="",
        metavar="TABLE:ENDPOINT:ROW",
        help="the row (default: list the tables)",
    )
    parser.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="configuration (config.yaml)"
    )


def command(args: argparse.Namespace) -> int:
    """Print where a row comes from, or what rows there are."""
    study = config.load(args.config)
    addresses = Addresses(study.results / "tables")
    found = addresses.find(args.address)
    if isinstance(found, Found):
        print("\n".join(provenance.explain(found, study, args.config)))
    elif not found:
        raise ConfigError(f"{study.results / 'tables'} has no tables yet: run `snakemake tables`")
    else:
        print("\n".join(found))
    return 0
