"""``bhx reproduce``: describe a cohort of the paper on one page, write its configuration, run it."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from pathlib import Path

import yaml

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import ConfigError
from bhx_prep.commands import run as snakemake
from bhx_prep.config import recipes
from bhx_prep.reproduction import page, plan

logger = logging.getLogger(__name__)

_HEADER = "# Written by `bhx reproduce {cohort}`; it is not overwritten if you edit it.\n"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bhx reproduce``."""
    parser.description = (
        "Print what a cohort of the paper needs: access, downloads, folder, cost, labels, and what is not known. If the "
        "data are in their folder, write its configuration and run it; otherwise print what is missing."
    )
    parser.epilog = "example: bhx reproduce abide1 --data data/abide1 --plan"
    parser.add_argument(
        "cohort", nargs="?", metavar="COHORT", help=f"{', '.join(recipes.names())} (default: list them)"
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of the data (data/COHORT)")
    parser.add_argument("--input", metavar="INPUT", help="bids, fmriprep or timeseries (the recipe's first)")
    parser.add_argument(
        "--column", metavar="NAME", help="column of the endpoint, if your table spells it differently"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the configuration to write (reproduce-COHORT.yaml)"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="exported weights, whose model gets rows too"
    )
    parser.add_argument("--cores", type=int, default=2, metavar="N", help="cores for Snakemake (%(default)s)")
    parser.add_argument(
        "--plan", action="store_true", help="write the configuration even without the data, and run nothing"
    )


def command(args: argparse.Namespace) -> int:
    """Run ``bhx reproduce``; the status of Snakemake."""
    if args.cohort is None:
        for name in recipes.names():
            recipe = recipes.load(name)
            print(f"{name:8}  {recipe.title}: {recipe.paper.role}, access {recipe.access.cost}")
        return 0
    chosen = plan.make(args.cohort, args.data, args.input, args.column, args.weights)
    lacking = plan.missing(chosen)
    sys.stdout.write(page.text(chosen, lacking))
    sys.stdout.flush()
    if not args.plan:
        plan.refuse_missing(chosen, lacking)
    file = args.config or Path(f"reproduce-{args.cohort}.yaml")
    write(chosen, file)
    if args.plan:
        logger.info(
            "to run it: bhx reproduce %s, or snakemake --configfile %s --cores %d",
            args.cohort,
            file,
            args.cores,
        )
        return 0
    return run(file, args.cores)


def write(chosen: plan.Plan, file: Path) -> None:
    """Write the configuration, unless it exists and was edited.

    Raises
    ------
    ConfigError
        If the file is of another cohort, or not of this command.
    """
    header = _HEADER.format(cohort=chosen.cohort)
    text = header + yaml.safe_dump(plan.sections(chosen), sort_keys=False, allow_unicode=True, width=110)
    if file.exists():
        there = file.read_text(encoding="utf-8")
        if not there.startswith(header):
            raise ConfigError(f"{file} is not of `bhx reproduce {chosen.cohort}`: name another with --config")
        if there != text:
            logger.info("%s differs from what would be written and is not changed", file)
        return
    with atomic_write(file) as part:
        part.write_text(text, encoding="utf-8")
    logger.info("wrote %s", file)


def run(file: Path, cores: int) -> int:
    """Run Snakemake on a configuration, here; its status."""
    asked = ["--configfile", str(file), "--cores", str(cores)]
    return subprocess.run(snakemake.words(asked), check=False).returncode
