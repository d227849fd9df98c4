"""``bhx config``: the shipped defaults, the schema, the reference page, and whether a file is right."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bhx_model.errors import ConfigError
from bhx_prep.config import config, pages


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx config``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str, example: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name,
            help=text,
            description=text.capitalize() + ".",
            epilog=f"example: bhx config {name} {example}",
        )

    add("defaults", "print the shipped config.yaml", "> config.yaml")
    add("schema", "print the JSON schema, for editors", "> config.schema.json")
    add("reference", "print the reference page in Markdown", "| less")
    checking = add("check", "say whether a file is right, and every mistake if not", "config.yaml")
    checking.add_argument("file", type=Path, nargs="?", default=Path("config.yaml"))
    writing = add("write", "write the generated files of the checkout again", ".")
    writing.add_argument("folder", type=Path, nargs="?", default=Path(), help="the checkout")


def command(args: argparse.Namespace) -> int:
    """Run ``bhx config``."""
    printed = {
        "defaults": pages.default_yaml,
        "schema": pages.json_schema,
        "reference": pages.reference_page,
    }
    if args.action in printed:
        sys.stdout.write(printed[args.action]())
    elif args.action == "write":
        for path, text in pages.GENERATED.items():
            (args.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (args.folder / path).write_text(text(), encoding="utf-8")
    else:
        from bhx_prep.atlas import templates
        from bhx_prep.ingest import participants

        checked = config.load(args.file)
        for what, wrong in (
            ("the atlas does not have", templates.mistakes(checked)),
            ("the tables of phenotypes do not have", participants.mistakes(checked)),
        ):
            if wrong:
                raise ConfigError("\n".join([f"{what} what is asked of it:", *(f"  {w}" for w in wrong)]))
        missing = [name for name, cohort in checked.cohorts.items() if not cohort.root.is_dir()]
        print(
            f"{args.file} is right. Cohorts: {', '.join(checked.cohorts)}."
            f" Experiments: {', '.join(checked.experiments) or 'none'}. Endpoints: {', '.join(checked.endpoints) or 'none'}."
        )
        for name in missing:
            print(f"  cohorts.{name}.root: no folder {checked.cohorts[name].root} (yet)")
    return 0
