"""Measure the trainings on a GPU: one command for a bare machine, with a time limit.

    python tests/benchmarks/gpu --wheels wheels --out gpu-results       # on a machine with a GPU: 8 minutes at most
    python tests/benchmarks/gpu --device cpu --preset tiny              # to see that it runs and what it prints

It needs Python, PyTorch and NumPy; other packages are installed from a folder of wheels (docs/explanation/gpu.md explains
how to fill it) into a temporary folder. The tests that compare a GPU with a CPU run first, then training steps of every
stage, as this code computes them, as it did before, and as the published code does, at 11 and 18 time patches; then
trainings with reading, embedding, fine-tuning and memory-bound operations. Each part has a time limit, and parts that did
not finish are listed. `--learning MINUTES` adds trainings of preset `small` on synthetic subjects.

stdout: the report, in Markdown; ``gpu.md`` and ``gpu.json`` in `--out` hold the same. No part of the test suite.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.metadata
import importlib.util
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PATHS = [str(path) for path in (HERE, HERE.parent, ROOT, ROOT / "workflow")]
sys.path[:0] = [path for path in PATHS if path not in sys.path]

from gpu_supervise import WORK, Part, Work, read_rows, supervise  # noqa: E402

#: Part that has a time of its own.
LEARNING = "learning"
#: Seconds kept for the report.
REPORT_S = 12.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    if WORK in os.environ:
        import gpu_work

        return gpu_work.main(os.environ[WORK])
    started = time.time()
    args = _parse(argv)
    with tempfile.TemporaryDirectory(prefix="bhx-gpu-") as name:
        place = Path(name)
        if args.wheels:
            install(args.wheels, place / "packages")
            sys.path.insert(0, str(place / "packages"))
        absent = [name for name in ("torch", "numpy", "yaml", "numcodecs", "safetensors") if not _found(name)]
        if absent:
            print(
                f"{', '.join(absent)} cannot be imported: give --wheels a folder with them", file=sys.stderr
            )
            return 1
        return measure(args, place, started)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda")
    presets = sorted(path.stem for path in (ROOT / "bhx_model" / "presets").glob("*.yaml"))
    add(
        "--preset",
        choices=presets,
        default="base",
        help="sizes of the models; tiny has tiny inputs too (base)",
    )
    add(
        "--minutes",
        type=float,
        default=8.0,
        help="time limit of everything but --learning (8)",
    )
    add(
        "--learning",
        type=float,
        default=0.0,
        metavar="MINUTES",
        help="also train on synthetic subjects, at most 6",
    )
    add(
        "--wheels",
        type=Path,
        help="folder of wheels: missing packages are installed from it for this run",
    )
    add("--out", type=Path, default=Path("gpu-results"), help="folder of gpu.md and gpu.json (gpu-results)")
    add("--only", nargs="+", default=["*"], metavar="PATTERN", help="parts, e.g. machine 'step of fusion*'")
    add("--skip", nargs="+", default=[], metavar="PATTERN", help="parts to skip")
    args = parser.parse_args(argv)
    if not 0 <= args.learning <= 6:
        parser.error(f"--learning is {args.learning:g}: choose at most 6 minutes")
    if not 0 < args.minutes < math.inf:
        parser.error(f"--minutes is {args.minutes:g}: choose more than 0")
    return args


def _found(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def environment() -> dict[str, str]:
    """Environment of the processes that measure: they import what this one does."""
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys([*sys.path[: len(PATHS) + 1], *given]))}


def install(wheels: Path, target: Path) -> None:
    """Install wheels of missing packages; packages of the machine, such as PyTorch, are kept."""
    files = sorted(wheels.glob("*.whl"))
    if not files:
        sys.exit(f"{wheels} holds no wheels: fill it with pip download, see docs/explanation/gpu.md")
    wanted = [file for file in files if not _installed(file.name.split("-")[0])]
    if not wanted:
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", f"--target={target}", *map(str, wanted)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"pip cannot install the wheels of {wheels}: {done.stderr.strip()[-500:]}")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def measure(args: argparse.Namespace, place: Path, started: float) -> int:
    """Run the parts and report; 1 if nothing was measured, or the tests on the GPU did not pass."""
    import gpu_parts

    chosen = [part for part in gpu_parts.parts(args.device, 60 * args.learning) if _matches(part, args)]
    until = started + 60 * args.minutes - REPORT_S
    rows, counts_file = place / "rows.jsonl", place / "counts.jsonl"
    work = Work(args.device, args.preset, str(place), str(rows), until, 60 * args.learning, [])
    surroundings = environment() | {"NO_ET": "1"}
    if args.device == "cpu":
        surroundings |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    counts = gpu_parts.counts(chosen)
    counting = _start_counting(work, counts, counts_file, surroundings) if counts else None

    def report_so_far() -> str:  # whoever ends this command early finds what there is
        counted = [row for row in read_rows(counts_file) if row["kind"] == "count"]
        return report(args, [*read_rows(rows), *counted])

    try:
        script = HERE / "__main__.py"
        supervise([p for p in chosen if p.name != LEARNING], work, script, surroundings, report_so_far)
        if args.learning:
            work.until = time.time() + 60 * args.learning
            supervise([p for p in chosen if p.name == LEARNING], work, script, surroundings, report_so_far)
        if counting is not None:
            counting.wait(max(until - time.time(), 0.1))
    except subprocess.TimeoutExpired:
        pass
    finally:
        if counting is not None and counting.poll() is None:
            counting.kill()
            counting.wait()
    listed = read_rows(rows)
    print(report_so_far())
    print(f"{args.out / 'gpu.md'}, {args.out / 'gpu.json'}: {time.time() - started:.0f} s", file=sys.stderr)
    failed = any(not row["passed"] for row in listed if row["kind"] == "check")
    measured = any(row["kind"] != "part" for row in listed)
    return 0 if measured and not failed else 1


def report(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> str:
    """Write ``gpu.md`` and ``gpu.json`` of the rows, and return the former."""
    import gpu_report

    from bhx_model.config import load_preset

    found = gpu_report.with_counts(rows)
    stages = {stage: load_preset(stage, args.preset).train for stage in gpu_report.GOALS}
    presets = {stage: {"steps": t.steps, "batch_size": t.batch_size} for stage, t in stages.items()}
    schedules = gpu_report.schedules(presets, found)
    command = shlex.join(["python", "tests/benchmarks/gpu", *sys.argv[1:]])
    text = gpu_report.markdown(found, schedules, command, args.preset)
    gpu_report.write(args.out, found, schedules, text)
    return text


def _matches(part: Part, args: argparse.Namespace) -> bool:
    def among(patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(part.name, pattern) for pattern in patterns)

    return among(args.only) and not among(args.skip)


def _start_counting(
    work: Work, parts: Sequence[Part], rows: Path, surroundings: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Count the operations of steps on the CPU while the GPU is measured, into `rows`."""
    listed = [(part.name, part.limit_s) for part in parts]
    counts = Work(**{**vars(work), "device": "cpu", "rows": str(rows), "parts": listed})
    file = rows.with_suffix(".json")
    counts.write(file)
    return subprocess.Popen(
        ["nice", sys.executable, str(HERE / "__main__.py")],
        env=surroundings | {WORK: str(file), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    sys.exit(main())
