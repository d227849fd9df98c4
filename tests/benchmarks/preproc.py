"""Accuracy of the embedded preprocessing on real heads and planted truth, each number beside its goal.

    python tests/benchmarks/preproc.py                               # all heads that can be had, and the demo's subjects
    python tests/benchmarks/preproc.py --heads my_head colin27       # folders of one's own, or names of --list
    python tests/benchmarks/preproc.py --list
    python tests/benchmarks/preproc.py --heads none --planted demo-data/rawbids

A folder of one's own holds `T1w.nii.gz` and, from somewhere else, `mask.nii.gz`. Which heads there are and whose masks
they have stands in `preproc_heads.py`; one that cannot be had is skipped with the reason. A head takes some 2 CPU minutes.

`Dice` is that of the brain mask with the given one. `Outside` is how much of the given brain lies more than 4 mm outside the
template's brain once normalised, `vertex` how far its top lies above (+) or below (-) the template's, and `upper grey` how
much of the grey matter of the upper 30 mm lies outside. Planted truth is the demo's cohort `rawbids`: made from the very
template that heads are normalised to, so its anatomical numbers are easier than any real head's. CPU seconds and the peak
memory (GB) are of the anatomical steps, for planted truth of the whole workflow with one run.

Motion, coregistration, slice delay and distortion against planted truth follow, by `preproc_bold.py` (`--bold none` leaves
them out; its part `size`, the memory of a long run, takes minutes and is run where it is named).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import preproc_heads

from bhx_prep import installation
from bhx_prep.atlas.sources import packages

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Column:
    """A number of the table.

    Attributes
    ----------
    key : str
        In a row.
    heading : str
    digits : int
    goal : str
        As it is printed.
    met : callable
        Whether a number reaches it.
    """

    key: str
    heading: str
    digits: int
    goal: str
    met: Callable[[float], bool]


COLUMNS = [
    Column("dice", "Dice", 3, ">= .96", lambda v: v >= 0.96),
    Column("outside_ml", "outside, ml", 1, "<= 10", lambda v: v <= 10),
    Column("vertex_mm", "vertex, mm", 0, "+-4", lambda v: abs(v) <= 4),
    Column("upper_grey_percent", "upper grey, %", 1, "<= 5", lambda v: v <= 5),
    Column("cpu_s", "CPU s", 0, "<= 300", lambda v: v <= 300),
    Column("peak_gb", "GB", 1, "<= 3", lambda v: v <= 3),
]

#: Parts of `preproc_bold.py` that are run unless others are named.
BOLD = ["motion", "coregistration", "slices", "distortion"]

Row = dict[str, Any]


class Crashed(RuntimeError):
    """A row could not be computed; the message says why."""


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 if a number misses its goal, or there is none."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heads", nargs="+", metavar="HEAD", help="folders, names of --list, or none")
    parser.add_argument("--planted", type=Path, default=Path("demo-data/rawbids"), help="(%(default)s)")
    parser.add_argument("--bold", nargs="+", default=BOLD, metavar="PART", help="%(default)s, size, or none")
    parser.add_argument("--work", type=Path, default=Path("results/benchmarks/preproc"), help="(%(default)s)")
    parser.add_argument("--resolution", type=float, default=1.0, help="of standard space, mm (%(default)s)")
    parser.add_argument("--list", action="store_true", help="say which heads there are, and end")
    a = parser.parse_args(argv)
    if a.list:
        print("\n".join(preproc_heads.HEADS))
        return 0
    work = a.work.absolute()
    templates = work / "templates"
    make_templates(templates)
    jobs = [partial(of_head, name, templates, a.resolution, work) for name in a.heads or preproc_heads.HEADS]
    root = a.planted.absolute()
    jobs += [partial(of_planted, subject, root, templates, work) for subject in planted_subjects(root)]
    rows: list[Row] = []
    crashed = 0
    for job in jobs:
        try:
            row = job()
        except Crashed as why:  # the others are worth their hour
            print(why, file=sys.stderr)
            crashed += 1
            continue
        if row is not None:
            rows.append(row)
            (work / "rows.json").write_text(json.dumps(rows, indent=1))
    print_table(rows)
    parts, ended = of_bold([part for part in a.bold if part != "none"], templates, work)
    print_parts(parts)
    missed = any(not column.met(row[column.key]) for row in rows for column in COLUMNS if column.key in row)
    if not rows and not parts:
        print("nothing was measured", file=sys.stderr)
        return 1
    return int(crashed > 0 or missed or not ended or not all(all(part["reached"].values()) for part in parts))


def make_templates(folder: Path) -> None:
    """Template and brain mask as the workflow gets them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "head_T1w.nii.gz").write_bytes(packages.head_file().read_bytes())
    packages.head_mask().to_filename(folder / "head_mask.nii.gz")


def of_head(name: str, templates: Path, resolution_mm: float, work: Path) -> Row | None:
    """Row of a head; None, with the reason on standard error, where it cannot be had."""
    if name == "none":
        return None
    try:
        if name in preproc_heads.HEADS:
            head = preproc_heads.make(name, work / "heads")
        else:
            head = preproc_heads.read_folder(Path(name).absolute())
    except preproc_heads.Absent as why:
        print(f"{name} is skipped: {why}", file=sys.stderr)
        return None
    made = anatomy(
        head.t1w,
        head.mask,
        templates,
        "--resolution",
        str(resolution_mm),
        "--work",
        str(work / "made" / head.name),
    )
    steps = made.pop("cpu_s")
    return {
        "name": head.name,
        "origin": head.origin,
        "mask_origin": head.mask_origin,
        **made,
        "cpu_s": sum(steps.values()),
        "steps_cpu_s": steps,
    }


def planted_subjects(root: Path) -> list[str]:
    """The demo's subjects with a known brain; none, with the reason, where the demo was not made."""
    truth = _truth(root)
    if not truth.is_dir():
        print(f"planted truth is skipped: no {truth} (bhx synth, or --planted)", file=sys.stderr)
        return []
    return sorted(path.name.removeprefix("sub-") for path in root.glob("sub-*") if path.is_dir())


def _truth(root: Path) -> Path:
    return root / "sourcedata" / "truth"


def of_planted(subject: str, root: Path, templates: Path, work: Path) -> Row:
    """Row of one of the demo's subjects, by the whole workflow."""
    out = work / "planted"
    out.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "bhx_prep.cli",
        "preproc",
        "run",
        "--bids",
        str(root),
        "--subject",
        subject,
    ]
    command += ["--out", str(out), "--backend", "embedded", "--threads", "1", "--templates", str(templates)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    if done.returncode:
        raise Crashed(f"planted sub-{subject}: bhx preproc run ended with {done.returncode}, see above")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (anat,) = (out / f"sub-{subject}").glob("**/anat")
    (t1w,) = (root / f"sub-{subject}").glob("**/*_T1w.nii.gz")
    (mask,) = _truth(root).glob(f"sub-{subject}*_desc-brain_mask.nii.gz")
    made = anatomy(t1w, mask, templates, "--derivatives", str(anat), "--work", str(work))
    return {
        "name": f"planted sub-{subject}",
        "origin": "the template, deformed, with bias field and noise, 1.5 mm; BOLD made from it",
        "mask_origin": "planted",
        **{key: value for key, value in made.items() if value is not None},
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_gb": after.ru_maxrss / 1e6,
    }


def of_bold(parts: list[str], templates: Path, work: Path) -> tuple[list[Row], bool]:
    """What `preproc_bold.py` prints, a part each, and whether it came to its end."""
    if not parts:
        return [], True
    command = [
        str(installation.ants_python(ROOT)),
        str(HERE / "preproc_bold.py"),
        "--templates",
        str(templates),
    ]
    command += ["--work", str(work / "bold"), *parts]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment())
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"part"')]
    return found, len(found) == len(parts)


def anatomy(t1w: Path, mask: Path, templates: Path, *words: str) -> Row:
    """What `preproc_anatomy.py` prints, from the environment of ANTs."""
    head = json.dumps({"t1w": str(t1w), "mask": str(mask)})
    command = [str(installation.ants_python(ROOT)), str(HERE / "preproc_anatomy.py"), "--head", head]
    command += ["--templates", str(templates), *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
    if done.returncode:
        raise Crashed(f"{t1w}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    """Of a process of its own: this code, one thread."""
    one = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "NO_ET"), "1"
    )
    return {**os.environ, **one, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "workflow")])}


def print_table(rows: list[Row]) -> None:
    """Numbers as a Markdown table, below it what each row is."""
    print("| head | " + " | ".join(column.heading for column in COLUMNS) + " |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    print("| goal | " + " | ".join(column.goal for column in COLUMNS) + " |")
    for row in rows:
        print(f"| {row['name']} | " + " | ".join(cell(row, column) for column in COLUMNS) + " |")
    print(
        "\nA number in **bold** misses its goal. A head is a scan as taken unless it says what was done to it.\n"
    )
    for row in rows:
        print(f"- {row['name']}: {row['origin']}; brain mask: {row['mask_origin']}")


def print_parts(parts: list[Row]) -> None:
    """Numbers of BOLD as a Markdown table."""
    if not parts:
        return
    print("\n| part | number | value | goal |\n| --- | --- | --- | --- |")
    for part in parts:
        for name, goal in part["goals"].items():
            value = f"{part[name]:g}" if part["reached"][name] else f"**{part[name]:g}**"
            print(f"| {part['part']} | {name} | {value} | <= {goal:g} |")


def cell(row: Row, column: Column) -> str:
    """A number; in bold where it misses its goal, empty where the row has none."""
    if column.key not in row:
        return ""
    text = f"{row[column.key]:.{column.digits}f}"
    return text if column.met(row[column.key]) else f"**{text}**"


if __name__ == "__main__":
    sys.exit(main())
