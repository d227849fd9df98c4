"""``bhx run``: Snakemake with the installed pipeline and its default profile, in any folder."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bhx_prep import installation


def arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bhx run``."""
    parser.description = (
        "Run Snakemake with the installed pipeline and its default profile, in this folder. Every argument is Snakemake's; "
        f"`--profile` also accepts the shipped {', '.join(sorted(set(installation.profiles()) - {'default'}))}, too."
    )
    parser.epilog = "example: bhx run --profile slurm tables (`bhx run -- --help`: Snakemake's own help)"
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="passed to Snakemake")


def command(args: argparse.Namespace) -> int:
    """Become Snakemake: signals reach it as if it had been started itself."""
    if importlib.util.find_spec("snakemake") is None:
        raise ModuleNotFoundError("No module named 'snakemake'", name="snakemake")
    asked = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    started = words(asked)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(started[0], started)


def words(arguments: Sequence[str]) -> list[str]:
    """Command of Snakemake, the pipeline and the default profile filled in where they are not given.

    Parameters
    ----------
    arguments : sequence of str
        For Snakemake. Names of shipped profiles become their folders, unless there is one of that name here.
    """
    found = [sys.executable, "-m", "snakemake"]
    if not _has(arguments, "--snakefile", "-s"):
        found += ["--snakefile", str(installation.file("workflow/Snakefile"))]
    if not _has(arguments, "--workflow-profile"):
        own = next((f for f in (Path(), _directory(arguments)) if (f / "profiles/default").is_dir()), None)
        default = installation.profiles()["default"] if own is None else own / "profiles/default"
        found += ["--workflow-profile", str(default)]
    return found + list(_named_profiles(arguments))


def _has(arguments: Sequence[str], *names: str) -> bool:
    return any(word in names or word.startswith(tuple(f"{n}=" for n in names)) for word in arguments)


def _directory(arguments: Sequence[str]) -> Path:
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word in ("--directory", "-d"):
            return Path(following)
        if word.startswith("--directory="):
            return Path(word.partition("=")[2])
    return Path()


def _named_profiles(arguments: Sequence[str]) -> list[str]:
    """The arguments, with folders in place of the names of profiles."""
    found, before = [], ""
    for word in arguments:
        option, sign, name = word.partition("=") if word.startswith("--profile=") else ("", "", word)
        is_name = bool(sign) or before == "--profile"
        found.append(f"{option}{sign}{_profile(name, _directory(arguments))}" if is_name else word)
        before = word
    return found


def _profile(name: str, study: Path) -> str:
    """What to pass as `--profile`: the study's own folder of that name, else what Snakemake finds, else the shipped one."""
    for place in (Path(), study):
        if (place / "profiles" / name).is_dir():
            return str(place / "profiles" / name)
    known = [Path(), Path("/etc/xdg/snakemake")]
    with contextlib.suppress(RuntimeError):  # of a user without a home folder, as in some containers
        known.append(Path.home() / ".config/snakemake")
    if any((place / name).exists() for place in known):
        return name
    return str(installation.profiles().get(name, name))
