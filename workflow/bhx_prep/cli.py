"""The ``bhx`` command: what a person asks beside Snakemake."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from bhx_model.command_line import run_command

#: Command -> module with `arguments(parser)` and `command(args)`, and its line of help. Imported when asked for.
COMMANDS = {
    "synth": ("bhx_prep.commands.synth", "make the demo cohorts", "bhx synth --out demo-data"),
    "index": (
        "bhx_prep.ingest.index",
        "list the scans of cohorts and say what cannot be used, and why",
        "bhx index abide1",
    ),
    "status": (
        "bhx_prep.commands.status",
        "what is done, what failed, why, and which log tells more",
        "bhx status --failed",
    ),
    "forget": (
        "bhx_prep.commands.forget",
        "remove every trace of a person who withdrew consent",
        "bhx forget abide1 0051234",
    ),
    "doctor": ("bhx_prep.commands.doctor", "what this machine lacks and how to mend it", "bhx doctor"),
    "config": ("bhx_prep.commands.config", "defaults, schema and check of config.yaml", "bhx config check"),
    "parcellate": (
        "bhx_prep.commands.parcellate",
        "mean series per parcel of one BOLD file",
        "bhx parcellate --bold run_bold.nii.gz --atlas results/templates --out run.parquet",
    ),
    "harmonics": (
        "bhx_prep.brain_maps.harmonics",
        "geometric harmonics of a pair of surfaces",
        "bhx harmonics --left L.surf.gii --right R.surf.gii --labels atlas.dlabel.nii --names names.txt --out H.parquet",
    ),
    "export": (
        "bhx_prep.commands.export",
        "parcel series as BIDS derivatives, for whoever wants no more",
        "bhx export timeseries abide1 --out derivatives/bhx",
    ),
    "simulate": (
        "bhx_prep.commands.simulate",
        "a large cohort without images, to plan disk, jobs and queue",
        "bhx simulate --subjects 43112 --t1w 46455 --bold 40162 --out simulated",
    ),
    "shards": (
        "bhx_prep.shards.pack",
        "look into shards and verify them",
        "bhx shards verify results/abide1/shards",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; see `run_command` for how it ends."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="bhx",
        description="From raw BIDS to the tables of BrainHarmonix. The work itself is done by `snakemake`.",
        epilog="example: bhx status --failed",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = next((a for a in argv if not a.startswith("-")), None)
    for name, (module, text, example) in COMMANDS.items():
        sub = commands.add_parser(
            name, help=text, description=text.capitalize() + ".", epilog=f"example: {example}"
        )
        if name == named:
            importlib.import_module(module).arguments(sub)
    args = parser.parse_args(argv)
    module = COMMANDS[args.command][0]
    return run_command(lambda: importlib.import_module(module).command(args))


if __name__ == "__main__":
    sys.exit(main())
