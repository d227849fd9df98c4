"""Cost of UK Biobank and ABCD, simulated: indexing, parsing, planning, the time of every step, and disk space.

    python tests/benchmarks/scale.py --templates results/templates            (some 15 minutes, 2 GB of /tmp)
    python tests/benchmarks/scale.py --templates results/templates --fraction 0.1

The cohorts are those of `bhx simulate` in the sizes the paper gives. Costs of a scan are those of the real commands on
simulated images of full size (490 frames on the 2 mm grid, T1 at 1 mm): a batch of three subjects less a batch of one,
halved.
Everything is a process of its own; CPU seconds and peak memory are what it and its children used. No part of the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml
from parcellation import write_run

from bhx_prep.config.config import Config

ROOT = Path(__file__).resolve().parents[2]
BHX = [sys.executable, "-m", "bhx_prep.cli"]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")]

#: Paper, appendix on data: subjects, T1 volumes, BOLD runs, repetition time (s), frames.
COHORTS = {"ukb": (43112, 46455, 40162, 0.735, 490), "abcd": (11221, 18139, 30771, 0.8, 383)}


@dataclass
class Used:
    """What a command took: seconds, CPU seconds, peak memory of its largest process (MB), and what it printed."""

    wall: float
    cpu: float
    mb: float
    output: str


def run(words: list[str], folder: Path) -> Used:
    """Run a command in `folder` and account for it."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'workflow'}"}
    with tempfile.TemporaryFile("w+") as log:
        began = time.perf_counter()
        child = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        log.seek(0)
        output = log.read()
    if status:
        sys.exit(f"{' '.join(words)}:\n{output[-2000:]}")
    return Used(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def row(what: str, used: Used, goal: str) -> None:
    """Print one line of the table."""
    print(f"| {what} | {used.wall:.1f} | {used.cpu:.1f} | {used.mb:.0f} | {goal} |", flush=True)


def jobs(output: str) -> dict[str, int]:
    """Jobs by rule, from what a dry run prints."""
    pairs = (line.split() for line in output.split("Job stats:")[1].splitlines())
    return {words[0]: int(words[1]) for words in pairs if len(words) == 2 and words[1].isdigit()}


def study(folder: Path, input: str, fraction: float) -> None:
    """Simulate both cohorts at a input, and add a training and an endpoint."""
    for name, (subjects, t1w, bold, tr_s, frames) in COHORTS.items():
        n = [str(max(1, round(fraction * number))) for number in (subjects, t1w, bold)]
        words = [
            "--subjects",
            n[0],
            "--t1w",
            n[1],
            "--bold",
            n[2],
            "--tr-s",
            str(tr_s),
            "--frames",
            str(frames),
        ]
        used = run([*BHX, "simulate", *words, "--name", name, "--input", input, "--out", "."], folder)
        row(f"simulate {name}, input {input}", used, "")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["experiments"] = {"first": {"cohorts": list(COHORTS), "preset": "base", "gpus": 8}}
    settings["endpoints"] = {
        "sex": {"cohort": "ukb", "column": "sex", "kind": "binary", "classes": ["F", "M"]}
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))


def plans(folder: Path, fraction: float) -> None:
    """Index, parse and plan with two inputs."""
    print("| what | wall s | CPU s | peak MB | goal |\n| --- | --- | --- | --- | --- |")
    counted = {}
    for input, seconds in (("fmriprep", 20), ("bids", 120)):
        place = folder / input
        place.mkdir()
        study(place, input, fraction)
        row(f"index, input {input}", run([*BHX, "index"], place), "300 s, 2000 MB")
        if input == "fmriprep":
            row("parse", run([*SNAKEMAKE, "--list-rules"], place), "3 s")
            (folder / "empty").touch()
            empty = [*SNAKEMAKE[:-1], str(folder / "empty"), "--list-rules"]
            row("parse an empty Snakefile", run(empty, place), "Snakemake itself")
        limit = f"{seconds} s" + (", 4000 MB" if input == "bids" else "")
        used = run([*SNAKEMAKE, "-n", "--quiet", "rules"], place)
        counted[input] = jobs(used.output)
        row(f"plan everything, input {input}", used, limit)
        row(
            f"plan cohort_abcd, input {input}",
            run([*SNAKEMAKE, "cohort_abcd", "-n", "--quiet", "rules"], place),
            "10 s",
        )
    for input, numbers in counted.items():
        print(f"\njobs, input {input}: " + ", ".join(f"{n} {rule}" for rule, n in numbers.items()))


def subjects_of_full_size(folder: Path, n: int, templates: Path) -> None:
    """Derivatives with real numbers of voxels for `n` subjects; the images are links to one."""
    from nilearn import datasets

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    write_run(folder / "bold.nii.gz", "float32", 490, templates)
    head, mask = datasets.load_mni152_template(resolution=1), datasets.load_mni152_brain_mask(resolution=1)
    inside = np.asarray(mask.dataobj) > 0
    noise = 20 * rng.standard_normal(head.shape, np.float32)
    brain = np.where(inside, 700 * head.get_fdata(dtype=np.float32) + noise, 0)
    nib.save(nib.Nifti1Image(brain.astype(np.float32), head.affine), folder / "T1w.nii.gz")
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), head.affine), folder / "mask.nii.gz")
    columns = ["global_signal", "white_matter", "csf", *(f"{k}_{a}" for k in ("trans", "rot") for a in "xyz")]
    columns += [f"{name}_derivative1" for name in columns]
    values = 0.001 * rng.standard_normal((490, len(columns)))
    np.savetxt(folder / "confounds.tsv", values, delimiter="\t", header="\t".join(columns), comments="")
    (folder / "bold.json").write_text(json.dumps({"RepetitionTime": 0.735, "Synthetic": True}))
    space = "space-MNI152NLin2009cAsym"
    for subject in range(n):
        stem = f"sub-p{subject}"
        for source, name in (
            ("bold.nii.gz", f"func/{stem}_task-rest_{space}_desc-preproc_bold.nii.gz"),
            ("bold.json", f"func/{stem}_task-rest_{space}_desc-preproc_bold.json"),
            ("confounds.tsv", f"func/{stem}_task-rest_desc-confounds_timeseries.tsv"),
            ("T1w.nii.gz", f"anat/{stem}_{space}_desc-preproc_T1w.nii.gz"),
            ("mask.nii.gz", f"anat/{stem}_{space}_desc-brain_mask.nii.gz"),
        ):
            link = folder / "data" / stem / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(folder / source)


def costs(folder: Path, templates: Path, fraction: float) -> None:
    """CPU seconds and bytes of a scan in the steps up to shards, and of all scans together."""
    subjects_of_full_size(folder / "simulated", 3, templates)
    config = {
        "cohorts": {
            "simulated": {"input": "fmriprep", "root": str(folder / "simulated/data"), "synthetic": True}
        }
    }
    (folder / "simulated/config.yaml").write_text(yaml.safe_dump(config))
    run([*BHX, "index"], folder / "simulated")
    seconds, sizes = {}, {}
    for n in (1, 3):
        out, shards = folder / f"features{n}", folder / f"shards{n}"
        labels, features = folder / "subjects.json", folder / "features.json"
        labels.write_text(json.dumps([f"p{i}" for i in range(n)]))
        features.write_text("{}")
        words = [
            "--cohort",
            "simulated",
            "--batch",
            "0",
            "--subjects",
            str(labels.absolute()),
            "--index",
            ".bhx/index/simulated.parquet",
        ]
        words += [
            "--templates",
            str(templates.absolute()),
            "--features",
            str(features.absolute()),
            "--space",
            "MNI152NLin2009cAsym",
        ]
        module = [sys.executable, "-m"]
        extract = run([*module, "bhx_prep.features.extract", *words, "--out", str(out)], folder / "simulated")
        if ", 0 excluded" not in extract.output:
            import pyarrow.parquet as pq

            reasons = pq.read_table(out / "qc.parquet")["reason"].drop_null().to_pylist()
            sys.exit(f"simulated scans were excluded: {reasons}")
        words = ["--cohort", "simulated", "--batch", "0", "--features", str(out), "--out", str(shards)]
        packs = [run([*module, "bhx_prep.shards.command", "pack", *words], folder).cpu for _ in range(5)]
        seconds[n] = np.array([extract.cpu, np.median(packs)])
        sizes[n] = np.array([sum(p.stat().st_size for p in place.iterdir()) for place in (out, shards)])
        peak = extract.mb
    batch = Config.model_fields["batch_size"].default
    each, size = (seconds[3] - seconds[1]) / 2, (sizes[3] - sizes[1]) / 2
    start = seconds[1] - each
    n_subjects, n_bold = (fraction * sum(c[i] for c in COHORTS.values()) for i in (0, 2))
    print(f"\nof a subject with one T1 and one run of 490 frames (float32); peak of a job {peak:.0f} MB")
    print(
        "| step | CPU s a subject | CPU s a job beside it | MB a subject | core-hours, all scans | TB, all scans |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for step, one, beside, n_bytes in zip(("features", "shards"), each, start, size, strict=True):
        # a difference of a few hundredths is the start of the process, not the subject
        shown, one = (f"{one:.2f}", one) if one > 0.05 else ("< 0.05", 0.0)
        hours, total = (n_bold * one + n_subjects / batch * beside) / 3600, n_bold * n_bytes / 1e12
        print(f"| {step} | {shown} | {beside:.2f} | {n_bytes / 1e6:.2f} | {hours:.0f} | {total:.2f} |")
    print("fMRIPrep and the trainings were not run: they need its image and GPUs.")


def tokens(templates: Path) -> None:
    """Bytes that the cache of tokens would take."""
    from typing import cast

    from bhx_model.config import FunctionConfig, StructureConfig, load_preset
    from bhx_model.data.augment import plan_series

    structure = cast(StructureConfig, load_preset("structure", "base").model)
    function = cast(FunctionConfig, load_preset("function", "base").model)
    n_rois = len(json.loads((templates / "atlas.json").read_text())["names"])
    n_structure = int(np.prod([n // structure.patch for n in (160, 192, 160)]))
    print("\ntokens of a pair, preset base, two bytes a number (none with `fusion.inputs: online`):")
    for name, (_, _, _, tr_s, frames) in COHORTS.items():
        n = n_rois * plan_series(tr_s, frames, function).n_patches
        print(f"  {name}: {2 * (n_structure * structure.width + n * function.width) / 1e6:.1f} MB")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--templates", type=Path, required=True, help="folder of `fetch_templates`")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the cohorts' sizes (%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        plans(Path(folder), args.fraction)
        costs(Path(folder), args.templates, args.fraction)
    tokens(args.templates)


if __name__ == "__main__":
    main()
