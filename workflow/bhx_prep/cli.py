"""The ``bhx`` command: everything except the pipeline itself, which `snakemake` runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import bhx_model
from bhx_model.command_line import CommandParser, add_verbosity, run_command
from bhx_prep import installation

#: Command -> module with `arguments(parser)` and `command(args)`, its line of help and an example. Imported when asked for.
COMMANDS = {
    "init": (
        "bhx_prep.commands.init",
        "make a folder for a study: configuration, profiles, a README; nothing is overwritten",
        "bhx init my-study",
    ),
    "run": (
        "bhx_prep.commands.run",
        "run Snakemake with the installed pipeline and its default profile; every argument is Snakemake's",
        "bhx run --cores 4 tables",
    ),
    "app": (
        "bhx_prep.commands.app",
        "run BHX as a BIDS App: write a configuration and run Snakemake on it",
        "bhx app bids out participant --participant-label 01 02",
    ),
    "synth": ("bhx_prep.commands.synth", "make the demo's data", "bhx synth --out demo-data"),
    "ingest": (
        "bhx_prep.commands.ingest",
        "make a BIDS dataset from DICOM files with your map, without what identifies the subjects",
        "bhx ingest dicom dicom bids --map map.yaml",
    ),
    "index": (
        "bhx_prep.commands.index",
        "list the scans of cohorts: how many are usable, why the others are not, what was assumed",
        "bhx index abide1 --notes",
    ),
    "status": (
        "bhx_prep.commands.status",
        "show what is done, what failed or was excluded and why, and where the log is",
        "bhx status --failed",
    ),
    "explain": (
        "bhx_prep.commands.explain",
        "trace a row of a table: people, splits, runs, versions, weights, and the command that makes it again",
        "bhx explain table1:abide1:fusion",
    ),
    "forget": (
        "bhx_prep.commands.forget",
        "remove all data of a subject who withdrew consent",
        "bhx forget abide1 0051234",
    ),
    "preproc": (
        "bhx_prep.commands.preproc",
        "preprocess subjects: clear failures, print a subject's command, preprocess one without a study",
        "bhx preproc retry abide1",
    ),
    "qc": (
        "bhx_prep.commands.qc",
        "exclude or keep scans; the page of each cohort shows their pictures and numbers",
        'bhx qc decide abide1 0051234 --exclude --why "ghost in every frame"',
    ),
    "doctor": (
        "bhx_prep.commands.doctor",
        "check what this machine needs for the configuration, and how to get what is missing",
        "bhx doctor",
    ),
    "config": (
        "bhx_prep.commands.config",
        "check config.yaml; print its defaults, JSON schema and reference",
        "bhx config check",
    ),
    "parcellate": (
        "bhx_prep.commands.parcellate",
        "mean time series of every parcel, from one BOLD file",
        "bhx parcellate --bold run_bold.nii.gz --atlas results/templates --out run.parquet",
    ),
    "t1w": (
        "bhx_prep.commands.t1w",
        "a T1 in MNI space, masked and normalised on the grid of exported weights, for their `embed`",
        "bhx t1w sub-01_space-MNI152NLin2009cAsym_T1w.nii.gz --mask mask.nii.gz --weights export --out T1.npy",
    ),
    "embed": (
        "bhx_model.release.embed_cohort",
        "hub tokens or function tokens of every run of a cohort's shards, as a table",
        "bhx embed --weights export --cohort results/abide1/shards --out features.parquet",
    ),
    "push": (
        "bhx_prep.commands.push",
        "upload exported weights to a repository of the Hugging Face Hub",
        "bhx push results/experiments/first/export org/name --private",
    ),
    "harmonics": (
        "bhx_prep.brain_maps.harmonics",
        "geometric harmonics (Laplace-Beltrami modes) of a pair of cortical surfaces",
        "bhx harmonics --left L.surf.gii --right R.surf.gii --labels atlas.dlabel.nii --names names.txt --out H.parquet",
    ),
    "export": (
        "bhx_prep.commands.export",
        "write parcel time series as BIDS derivatives, without running the model",
        "bhx export timeseries abide1 --out derivatives/bhx",
    ),
    "boilerplate": (
        "bhx_prep.commands.boilerplate",
        "the methods of the study as a text, with the references of exactly the steps that ran",
        "bhx boilerplate abide1 --out manuscript",
    ),
    "fetch": (
        "bhx_prep.commands.fetch",
        "download a public data set (ABIDE I and II, ADHD-200), terms first",
        "bhx fetch abide1 --derivative rois_cc200 --subjects 20 --out data/abide1",
    ),
    "reproduce": (
        "bhx_prep.commands.reproduce",
        "a cohort of the paper on one page: access, cost, labels; then its configuration and its run",
        "bhx reproduce abide1 --plan",
    ),
    "simulate": (
        "bhx_prep.commands.simulate",
        "make a large cohort of empty images, to plan disk space, number of jobs and queue",
        "bhx simulate --subjects 43112 --t1w 46455 --bold 40162 --out simulated",
    ),
    "shards": (
        "bhx_prep.shards.command",
        "list and verify shards, the tar files that training reads",
        "bhx shards verify results/abide1/shards",
    ),
}

#: What most commands need; all that is missing is reported at once.
EXTRAS = ("workflow", "prep")
#: Commands that need something else.
OTHER_EXTRAS = {
    "app": ("workflow", "prep", "model"),
    "ingest": ("workflow", "prep", "dicom"),
    "init": ("workflow",),
    "run": ("workflow", "prep", "model"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; an error that the user can fix is one line on stderr and exit code 1."""
    verbosity = CommandParser(add_help=False, allow_abbrev=False)
    add_verbosity(verbosity)
    # taken out first, so that they may stand anywhere: `bhx -q shards verify F` and `bhx shards verify F -q`
    argv, passed = split_passed(sys.argv[1:] if argv is None else argv)
    common, argv = verbosity.parse_known_args(argv)
    parser = CommandParser(
        prog="bhx",
        description="From raw BIDS to the tables of BrainHarmonix. `snakemake` runs the pipeline; these commands help.",
        epilog="example: bhx status --failed",
        parents=[verbosity],
    )
    parser.add_argument("--version", action="version", version=f"bhx {bhx_model.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = next((a for a in argv if not a.startswith("-")), None)
    use_data_packages(Path.cwd())

    def run() -> int:
        for name, (module, text, example) in COMMANDS.items():
            sub = commands.add_parser(
                name, help=text, description=sentence(text), epilog=f"example: {example}", parents=[verbosity]
            )
            if name == named:
                importlib.import_module(module).arguments(sub)
        args = parser.parse_args(argv)
        if passed:
            args.arguments = passed
        return importlib.import_module(COMMANDS[args.command][0]).command(args) or 0

    extras = OTHER_EXTRAS.get(named or "", EXTRAS)
    return run_command(run, verbosity=common.verbosity, extras=extras)


def split_passed(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take apart what is ours and what is passed to Snakemake, whose options have names of ours among them.

    That is all that follows `bhx run`, and what follows `--` of `bhx app`.
    """
    at = next((i for i, word in enumerate(argv) if not word.startswith("-")), len(argv))
    ours, passed = list(argv[: at + 1]), list(argv[at + 1 :])
    if ours[-1:] == ["app"] and "--" in passed:
        end = passed.index("--")
        return [*ours, *passed[:end]], passed[end + 1 :]
    if ours[-1:] != ["run"] or passed in (["-h"], ["--help"]):
        return list(argv), []
    return ours, passed


def use_data_packages(study: Path) -> None:
    """Let Python find the packages with the demo's data that `bhx synth` has put into a study."""
    if (folder := installation.data_packages(study)).is_dir():
        sys.path.append(str(folder))


def sentence(text: str) -> str:
    """Make a line of help a sentence; acronyms stay as they are."""
    return f"{text[0].upper()}{text[1:]}."


if __name__ == "__main__":
    sys.exit(main())
