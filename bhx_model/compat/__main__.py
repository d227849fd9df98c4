"""Weights and numbers of the published BrainHarmonix code: load its checkpoints, and check that we compute the same.

::

    python -m bhx_model.compat check GOLDEN_FOLDER
    python -m bhx_model.compat load --function harmonix-f/model.pth --harmonics modes.csv --gradients gradients.csv \
        --rois rois.npz --structure harmonix-s/model.pth --fusion model.pth --out FOLDER
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bhx_model.command_line import run_command
from bhx_model.compat.convert import Converted, Sizes
from bhx_model.compat.golden import TOLERANCE, Case, check
from bhx_model.compat.released import Released, load
from bhx_model.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if all is well, 1 after an error of the user's or a case that fails."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.compat", description="Check against, or load, the published BrainHarmonix code.",
        epilog="example: python -m bhx_model.compat check golden/",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="compare every case of a golden folder; fails above 1e-5")
    checking.add_argument("folder", type=Path)
    loading = commands.add_parser("load", help="convert released .pth files into stage folders")
    for field in dataclasses.fields(Released):
        if field.name != "harmonics_order":
            loading.add_argument(f"--{field.name}", type=Path)
    loading.add_argument(
        "--harmonics-order",
        type=int,
        choices=[7],
        help="the CSV of harmonics is in Schaefer's 7-network order, as the released one: bring it into the order of"
        " 17 networks, that of series and gradients; without it rows are taken as they are",
    )
    usual = Sizes()
    loading.add_argument("--grid", type=int, nargs=3, default=usual.grid, help="voxels of a T1 (160 192 160)")
    loading.add_argument("--n-rois", type=int, default=usual.rois, help="if there are no CSVs (400)")
    loading.add_argument("--time-patches", type=int, default=usual.time_patches, help="of a series (18)")
    loading.add_argument(
        "--heads", type=int, default=usual.heads, help="attention heads of the encoders (12)"
    )
    loading.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "check":
        return _print_cases(check(arguments.folder))
    released = Released(**{f.name: getattr(arguments, f.name) for f in dataclasses.fields(Released)})
    if not (released.structure or released.function or released.fusion):
        msg = "nothing to load: name a .pth file with --structure, --function or --fusion"
        raise ConfigError(msg)
    known = Sizes(
        grid=tuple(arguments.grid), rois=arguments.n_rois, time_patches=arguments.time_patches,
        heads=arguments.heads,
    )  # fmt: skip
    for line in report(load(released, arguments.out, known)):
        print(line)
    return 0


def _print_cases(cases: Iterator[Case]) -> int:
    """Print a line per case, and in the end how many pass."""
    n = failed = 0
    print(f"{'case':44s} {'largest difference':>18s}  relative")
    for case in cases:
        n += 1
        failed += not case.passes
        relative = case.difference / case.largest if case.largest else case.difference
        verdict = "" if case.passes else "  FAILS"
        print(f"{case.name:44s} {case.difference:18.2e}  {relative:.2e}{verdict}", flush=True)
    print(f"{n - failed} of {n} cases within {TOLERANCE:g} of their largest value")
    return 1 if failed else 0


def report(done: Mapping[str, Converted]) -> Iterator[str]:
    """List key by key what was used, renamed, dropped, and what a checkpoint lacks."""
    for stage, converted in done.items():
        for line in converted.lines:
            keys = " -> ".join(key for key in (line.theirs, line.ours) if key)
            yield f"{stage:10s}{line.action:8s} {keys}" + (f"  ({line.note})" if line.note else "")
        counts = Counter(line.action for line in converted.lines)
        yield f"{stage}: " + ", ".join(f"{n} {action}" for action, n in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
