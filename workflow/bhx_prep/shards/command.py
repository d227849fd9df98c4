"""Pack features into shards, index them, verify them and show what is in them.

Examples
--------
::

    python -m bhx_prep.shards.command pack --cohort patients --batch 3 --features F --out results/patients/shards
    python -m bhx_prep.shards.command index --cohort patients --shards results/patients/shards --batches B.json --out I.json
    bhx shards verify results/patients/shards
    bhx shards ls results/patients/shards
    bhx shards cat results/patients/shards patients_sub-001_task-rest
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bhx_model.atomic_write import write_json
from bhx_model.command_line import json_file, run_command
from bhx_model.errors import ConfigError
from bhx_prep.shards import index_json, pack, verify

logger = logging.getLogger(__name__)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands of ``bhx shards``."""
    parser.description = "List and verify shards; jobs of the pipeline pack and index them."
    parser.epilog = "example: bhx shards verify results/abide1/shards"
    commands = parser.add_subparsers(dest="action", required=True, metavar="pack|index|verify|ls|cat")

    one = commands.add_parser(
        "pack",
        help="pack the features of one batch into two tar files",
        description="Pack the features of one batch into two tar files, as the rule pack_shards does.",
        epilog="example: bhx shards pack --cohort patients --batch 0 --features results/patients/features/batch-00000"
        " --out results/patients/shards",
    )
    one.add_argument("--cohort", required=True, help="name in the configuration")
    one.add_argument("--batch", required=True, type=int, help="number of the batch")
    one.add_argument("--features", required=True, type=Path, help="folder with bold.arrow and t1w.arrow")
    one.add_argument("--out", required=True, type=Path, help="folder of the shards")

    one = commands.add_parser(
        "index",
        help="write index.json of all shards of a cohort",
        description="Write index.json of all shards of a cohort, as the rule index_shards does.",
        epilog="example: bhx shards index --cohort patients --shards results/patients/shards --batches batches.json"
        " --out results/patients/shards/index.json",
    )
    one.add_argument("--cohort", required=True, help="name in the configuration")
    one.add_argument("--shards", required=True, type=Path, help="folder of the shards")
    one.add_argument(
        "--batches", required=True, type=json_file, metavar="FILE", help="JSON list of the cohort's batches"
    )
    one.add_argument("--out", required=True, type=Path, help="index.json, in the folder of the shards")

    for action, what, key in (
        ("verify", "read every sample, compare all hashes, and cross-check the modalities", ""),
        ("ls", "list the samples", ""),
        ("cat", "show one sample", " patients_sub-001_task-rest"),
    ):
        example = f"example: bhx shards {action} results/patients/shards{key}"
        one = commands.add_parser(
            action, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=example
        )
        one.add_argument("folder", type=Path, help="folder of the shards, e.g. results/patients/shards")
        if action == "cat":
            one.add_argument("key", help="e.g. patients_sub-001_task-rest")


def command(args: argparse.Namespace) -> int:
    """Run one sub-command; 1 if `verify` found an error."""
    if args.action == "pack":
        pack.pack(args.cohort, args.batch, args.features, args.out)
    elif args.action == "index":
        if args.out.resolve().parent != args.shards.resolve():
            raise ConfigError(f"index.json has to be beside its shards: --out {args.shards / 'index.json'}")
        batches = [int(batch) for batch in args.batches]
        write_json(args.out, index_json.collect(args.cohort, args.shards, batches), canonical=True)
    elif args.action == "verify":
        errors = verify.verify(args.folder)
        for error in errors:
            logger.error("%s", error)
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        print(f"{args.folder}: {count if errors else 'ok'}")
        return int(bool(errors))
    else:
        for line in (
            verify.listing(args.folder) if args.action == "ls" else verify.describe(args.folder, args.key)
        ):
            print(line)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line: see the module's text for examples."""
    parser = argparse.ArgumentParser(prog="python -m bhx_prep.shards.command")
    arguments(parser)
    args = parser.parse_args(argv)
    return run_command(lambda: command(args))


if __name__ == "__main__":
    sys.exit(main())
