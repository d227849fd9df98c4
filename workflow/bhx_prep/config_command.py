"""``bhx config``: the shipped defaults, the schema, the reference page, and whether a file is right."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bhx_prep import config, config_pages

EXAMPLE = "example: bhx config check config.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx config``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("defaults", help="print the shipped config.yaml")
    actions.add_parser("schema", help="print the JSON schema, for editors")
    actions.add_parser("reference", help="print the reference page in Markdown")
    checking = actions.add_parser("check", help="say whether a file is right, and every mistake if not")
    checking.add_argument("file", type=Path, nargs="?", default=Path("config.yaml"))
    writing = actions.add_parser("write", help="write the generated files of the checkout again")
    writing.add_argument("folder", type=Path, nargs="?", default=Path(), help="the checkout")


def command(args: argparse.Namespace) -> int:
    """Run ``bhx config``."""
    printed = {
        "defaults": config_pages.default_yaml,
        "schema": config_pages.json_schema,
        "reference": config_pages.reference_page,
    }
    if args.action in printed:
        sys.stdout.write(printed[args.action]())
    elif args.action == "write":
        for path, text in config_pages.GENERATED.items():
            (args.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (args.folder / path).write_text(text(), encoding="utf-8")
    else:
        checked = config.load(args.file)
        missing = [name for name, cohort in checked.cohorts.items() if not cohort.root.is_dir()]
        print(
            f"{args.file} is right. Cohorts: {', '.join(checked.cohorts)}."
            f" Experiments: {', '.join(checked.experiments) or 'none'}. Endpoints: {', '.join(checked.endpoints) or 'none'}."
        )
        for name in missing:
            print(f"  cohorts.{name}.root: no folder {checked.cohorts[name].root} (yet)")
    return 0
