"""``bhx app``: the command line of a BIDS App. It writes a configuration and runs Snakemake; the work is the DAG's."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

import bhx_model
from bhx_model import home_folder
from bhx_model.atomic_write import atomic_write
from bhx_model.errors import ConfigError, DataError
from bhx_prep.commands import run
from bhx_prep.config import config
from bhx_prep.config.preproc import is_image_file
from bhx_prep.io import bids_names
from bhx_prep.preproc.status import failure

logger = logging.getLogger(__name__)

#: First line of a configuration that this command wrote, with a hash of what follows.
_HEADER: Final = "# Written by `bhx app`; it replaces this file unless somebody has edited it. "
#: Arguments of Snakemake that say on how many cores, or where, jobs run.
_CORES: Final = ("--cores", "-c", "--jobs", "-j", "--profile", "--executor", "-e")
_SCHAEFER: Final = re.compile(r"Schaefer(?:(?P<networks>7|17)n)?(?P<parcels>\d+)p?")
_LEVELS: Final = """\
analysis levels:
  participant  preprocess subjects from raw BIDS, each as a separate job. With --participant-label, nothing else is
               computed, and the exit code is 1 if one of those subjects failed. Without it, the parcel series, T1 volumes
               and quality numbers of all subjects are computed too (`snakemake features`).
  group        process the rest of the cohort: checks across subjects, the shards, and their index (`snakemake
               cohort_NAME`). Subjects that are not preprocessed yet are preprocessed first. With --participant-label, the
               cohort contains only these subjects.

Everything after `--` goes to Snakemake, which works in OUT: `-- -n` shows what would run, `-- --profile slurm` submits
jobs. OUT becomes a study with a configuration, in which `bhx run`, `bhx status` and `bhx preproc retry` work. Only one call
at a time may run in it: name all subjects at once, and Snakemake runs them in parallel.

exit codes: 0 everything was computed; 1 something failed or cannot be used; 2 the arguments cannot be read.

example: bhx app bids out participant --participant-label 01 02 --backend fmriprep-docker --fs-license-file license.txt"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bhx app``."""
    parser.description = (
        "Run BHX as a BIDS App. It writes a configuration and runs Snakemake, and does nothing more than `bhx run` with "
        "that configuration."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _LEVELS
    add = parser.add_argument
    add("bids_dir", type=Path, metavar="BIDS", help="raw BIDS dataset; only read")
    add("output_dir", type=Path, metavar="OUT", help="folder for all outputs, outside of BIDS")
    add("analysis_level", choices=("participant", "group"), help="what is computed, see below")
    add("--version", action="version", version=f"bhx {bhx_model.__version__}")
    _add_data(parser)
    _add_jobs(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Arguments that say what of the dataset is used, and on which atlas."""
    add = parser.add_argument
    several: dict[str, Any] = {"nargs": "+", "default": [], "metavar": "LABEL"}
    add(
        "--participant-label",
        "--participant_label",
        **several,
        help="subjects, with or without sub- (default: all)",
    )
    add(
        "--session-label",
        "--session_label",
        **several,
        help="sessions to use, with or without ses- (default: all)",
    )
    add(
        "--task-id",
        "--task_id",
        "-t",
        **{**several, "default": ["rest"]},
        help="tasks to use, without task- (rest)",
    )
    add(
        "--atlas",
        default="Schaefer17n400p",
        help="Schaefer's by networks and parcels (%(default)s), or a label image in MNI space, with --atlas-names",
    )
    add(
        "--atlas-names",
        type=Path,
        metavar="FILE",
        help="ROI names of a label image, one per line, or a lookup table",
    )
    add(
        "--atlas-source",
        choices=("packages", "templateflow"),
        default="packages",
        help="where Schaefer's atlas comes from (%(default)s)",
    )


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    """Arguments that say what preprocesses, where and on how much."""
    add = parser.add_argument
    add(
        "--backend",
        choices=("embedded", "fmriprep-docker", "fmriprep-apptainer"),
        default="embedded",
        help="software that preprocesses (%(default)s; embedded does not replace fMRIPrep)",
    )
    add("--image", help="fMRIPrep's container, if not the default one")
    add(
        "--fs-license-file",
        "--fs_license_file",
        type=Path,
        metavar="FILE",
        help="FreeSurfer's licence, which fMRIPrep requires (default: $FS_LICENSE)",
    )
    add(
        "--cohort",
        metavar="NAME",
        help="name of the cohort in tables and shards (default: derived from the name of BIDS)",
    )
    add(
        "--work-dir",
        "--work_dir",
        "-w",
        type=Path,
        metavar="DIR",
        help="where configuration and states are kept (OUT)",
    )
    add("--n-cpus", "--n_cpus", "--nprocs", type=int, metavar="N", help="cores to use (default: all)")
    add(
        "--skip-bids-validator",
        "--skip_bids_validator",
        action="store_true",
        help="ignored: BHX does not run the validator",
    )


def command(args: argparse.Namespace) -> int:
    """Run ``bhx app``.

    Returns
    -------
    int
        Snakemake's exit code; 1 if it is 0 and a subject that was named has failed.

    Raises
    ------
    ConfigError
        If the arguments contradict the dataset or each other.
    DataError
        If a subject has no usable scan.
    """
    bids, out = args.bids_dir.absolute(), args.output_dir.absolute()
    _check_dataset(bids, out)
    labels = _labels(args.participant_label, "sub-")
    _check_labels(bids, labels)
    _check_sessions(bids, _labels(args.session_label, "ses-"))
    settings = settings_of(args, bids, out, labels)
    config.check(settings)
    work = (args.work_dir or out).absolute()
    _check_apart(bids, work, "--work-dir")
    write_config(work / "config.yaml", settings)
    (name,) = settings["cohorts"]
    os.chdir(work)  # where Snakemake keeps its states, and its index is looked for
    statuses = _statuses(settings, name, labels) if args.analysis_level == "participant" and labels else []
    targets = statuses or (["features"] if args.analysis_level == "participant" else [f"cohort_{name}"])
    words = run.words(snakemake_arguments(targets, getattr(args, "arguments", []), args.n_cpus))
    logger.info("running %s", " ".join(words))
    return _run(words) or _failures([Path(file) for file in statuses])


def snakemake_arguments(targets: Sequence[str], passed: Sequence[str], n_cpus: int | None) -> list[str]:
    """Arguments of Snakemake: what to make, on how many cores unless that is given, and what the user passes.

    Raises
    ------
    ConfigError
        If the number of cores is none, or is given twice.
    """
    given = any(
        word in _CORES or word.startswith(tuple(f"{o}=" for o in _CORES if o[1] == "-")) for word in passed
    )
    given = given or any(re.fullmatch(r"-[cj]\d+", word) for word in passed)
    if n_cpus is not None and (given or n_cpus < 1):
        raise ConfigError("--n-cpus: name a number of cores from 1, and none after `--`")
    # targets first: options of Snakemake's take as many words as follow
    return [*targets, *([] if given else ["--cores", str(n_cpus or "all")]), *passed]


def _check_dataset(bids: Path, out: Path) -> None:
    if not bids.is_dir():
        raise ConfigError(f"there is no folder {bids}: name the BIDS dataset")
    described = bids / "dataset_description.json"
    try:
        kind = json.loads(described.read_text(encoding="utf-8-sig")).get("DatasetType", "raw")
    except FileNotFoundError:
        raise ConfigError(
            f"{bids} has no dataset_description.json: name the top folder of a BIDS dataset"
        ) from None
    except (ValueError, AttributeError):
        raise ConfigError(f"{described} is not a JSON object: correct it") from None
    if kind not in ("raw", None):
        raise ConfigError(
            f"{bids} is a dataset of type {kind}: name the raw one, or use `input: fmriprep` in a study"
        )
    _check_apart(bids, out, "OUT")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file: name a folder")


def _check_apart(bids: Path, folder: Path, what: str) -> None:
    inner, outer = folder.resolve(), bids.resolve()
    if inner == outer or outer in inner.parents:
        raise ConfigError(
            f"{what} {folder} lies in the BIDS dataset, which is only read: name a folder outside of it"
        )
    if inner in outer.parents and (folder / "dataset_description.json").exists():
        raise ConfigError(f"{what} {folder} is itself a dataset, around BIDS: name another folder")


def _labels(given: Sequence[str], prefix: str) -> list[str]:
    labels = [label.removeprefix(prefix) for label in given]
    for label in labels:
        try:
            bids_names.check_label(label, prefix.rstrip("-"))
        except DataError as error:
            raise ConfigError(str(error)) from None
    return sorted(set(labels))


def _check_labels(bids: Path, labels: Sequence[str]) -> None:
    there = sorted(path.name.removeprefix("sub-") for path in bids.glob("sub-*") if path.is_dir())
    if not there:
        raise ConfigError(f"{bids} has no folder sub-*: name the top folder of a BIDS dataset")
    if wrong := [label for label in labels if label not in there]:
        msg = f"--participant-label: {bids} has no sub-{wrong[0]}; it has {len(there)} subjects, e.g. sub-{there[0]}"
        raise ConfigError(msg)


def _check_sessions(bids: Path, labels: Sequence[str]) -> None:
    there = sorted({path.name.removeprefix("ses-") for path in bids.glob("sub-*/ses-*") if path.is_dir()})
    if wrong := [label for label in labels if label not in there]:
        some = f"it has {len(there)} sessions, e.g. ses-{there[0]}" if there else "it has no sessions"
        raise ConfigError(f"--session-label: {bids} has no ses-{wrong[0]}; {some}")


def settings_of(args: argparse.Namespace, bids: Path, out: Path, labels: Sequence[str]) -> dict[str, Any]:
    """The configuration that corresponds to the arguments.

    Raises
    ------
    ConfigError
        If the atlas, the licence or the cohort's name cannot be used.
    """
    name = args.cohort or re.sub(r"[^a-z0-9]", "", bids.name.lower()).lstrip("0123456789") or "cohort"
    cohort: dict[str, Any] = {
        "input": "bids",
        "root": str(bids),
        "tasks": _labels(args.task_id, "task-"),
    }
    if sessions := _labels(args.session_label, "ses-"):
        cohort["select"] = {"ses": sessions}
    if labels and args.analysis_level == "group":
        # at the level of participants the plan is that of the whole cohort, whichever participants are named
        cohort["subjects"] = list(labels)
    preproc: dict[str, Any] = {"backend": args.backend}
    if args.image:
        image = args.image  # jobs work in another folder than this command
        preproc["image"] = str(home_folder.expanded(image).absolute()) if is_image_file(image) else image
    if (licence := _licence(args)) is not None:
        preproc["fs_license"] = str(licence)
    atlas = _atlas(args)
    settings = {
        "results": str(out / "results"),
        "cohorts": {bids_names.check_cohort(name): cohort},
        "preproc": preproc,
        "atlas": atlas,
    }
    if "volume" in atlas:
        settings["features"] = {"harmonics": "none"}  # a volume has no surface
    return settings


def _licence(args: argparse.Namespace) -> Path | None:
    named = args.fs_license_file or (Path(found) if (found := os.environ.get("FS_LICENSE")) else None)
    if named is None:
        if args.backend != "embedded":
            raise ConfigError(
                "fMRIPrep asks for FreeSurfer's licence: give --fs-license-file, or set FS_LICENSE"
            )
        return None
    path = home_folder.expanded(named).absolute()
    if not path.is_file():
        raise ConfigError(f"there is no licence {path}: it is free, and FreeSurfer's site sends it to you")
    return path if args.backend != "embedded" else None


def _atlas(args: argparse.Namespace) -> dict[str, Any]:
    if match := _SCHAEFER.fullmatch(args.atlas):
        if args.atlas_names is not None:
            raise ConfigError("--atlas-names are those of a label image: name the image as --atlas")
        sizes = {"networks": int(match["networks"] or 17), "parcels": int(match["parcels"])}
        return {**sizes, "source": args.atlas_source}
    image = home_folder.expanded(args.atlas).absolute()
    if not image.is_file():
        msg = f"--atlas {args.atlas}: no such file, and no name as Schaefer17n400p, by networks (7, 17) and parcels"
        raise ConfigError(msg)
    if args.atlas_names is None or not args.atlas_names.is_file():
        raise ConfigError(f"--atlas-names: name a file with the ROI names of {image.name}, one a line")
    stem = bids_names.parse(image.name).get("atlas") or re.sub(r"[^A-Za-z0-9]", "", image.name.split(".")[0])
    return {
        "source": "files",
        "name": stem,
        "volume": str(image),
        "names": str(args.atlas_names.absolute()),
    }


def write_config(path: Path, settings: dict[str, Any]) -> None:
    """Write the configuration in place of one that this command wrote.

    Raises
    ------
    ConfigError
        If there is another one, or this one was edited.
    """
    text = yaml.safe_dump(settings, sort_keys=False)
    if path.exists() and not _is_ours(path.read_text(encoding="utf-8")):
        msg = (
            f"{path} was not written by `bhx app`, or was edited: use `bhx run` there, or name another folder"
        )
        raise ConfigError(msg)
    content = f"{_HEADER}({_hash(text)})\n{text}"
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        with atomic_write(path) as part:
            part.write_text(content, encoding="utf-8")


def _is_ours(content: str) -> bool:
    first, _, rest = content.partition("\n")
    return first == f"{_HEADER}({_hash(rest)})"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _statuses(settings: dict[str, Any], name: str, labels: Sequence[str]) -> list[str]:
    """Status files of the subjects, which Snakemake makes.

    Raises
    ------
    DataError
        If the index has no usable scan of one.
    """
    from bhx_prep.study import Study

    usable = Study(settings, build=True).cohorts[name].to_preprocess()
    if without := [label for label in labels if label not in usable]:
        msg = f"sub-{without[0]} has no scan that can be used: `bhx index {name}` in {Path.cwd()} says why"
        raise DataError(msg)
    return [f"{settings['results']}/{name}/preproc/sub-{label}_status.json" for label in labels]


def _run(words: Sequence[str]) -> int:
    """Run Snakemake; it gets the signals that would end this process, and ends its jobs itself."""
    with subprocess.Popen(words) as process:
        before = signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
        try:
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:  # the terminal has sent it to both
                    continue
        finally:
            signal.signal(signal.SIGTERM, before)


def _failures(statuses: Sequence[Path]) -> int:
    """Log which subjects failed; 1 if one did."""
    failed = 0
    for path in statuses:
        if not path.is_file():  # a plan that was only shown
            continue
        status = json.loads(path.read_text(encoding="utf-8"))
        if status["status"] != "ok":
            failed = 1
            logger.error("sub-%s: %s", status["subject"], failure(status))
    if failed:
        logger.error("`bhx preproc retry` lets the next call try again")
    return failed
