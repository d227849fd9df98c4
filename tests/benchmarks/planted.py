"""Check on planted endpoints that the right method wins: effects in series, T1, both, neither, or permuted labels.

    python tests/benchmarks/planted.py --seeds 5                # 2 cores
    python tests/benchmarks/planted.py --seeds 5 FOLDER         # keeps what was drawn and computed, and goes on with it

People are drawn as the demo's patients (`planted_people.py`). The study is one of BHX's own: `snakemake tables` takes their
files to shards, trains preset `tiny` on other people, who have no labels, and predicts every endpoint by every method on as
many splits as there are seeds. What comes out is read from ``predictions.parquet``; intervals are 95 %, from people and
splits together, as in the tables.

What is expected is stated beside what was found, and the exit status is 1 if any of it fails:

- `function`: rows that read series are ahead of those that read the T1, which are at chance; `structure`: the reverse.
- `both`, whose halves are apart: the fusion is ahead of every row that reads one modality, and these are above chance.
- `none` and `permuted`: every row is at chance.

Rows are at chance if no AUC of the family differs from 1/2 after Holm's correction. How far from 1/2 an AUC would have had
to be to be seen is printed, too.

No part of the test suite.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from scipy import special

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow"))

import planted_people
from planted_people import CLASSES, ENDPOINTS, PEOPLE, UNLABELLED

from bhx_model.command_line import run_command, seed_number, whole_number
from bhx_model.errors import DataError
from bhx_model.evaluation.intervals import Interval, Run, difference, holm, interval, read_run
from bhx_model.evaluation.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = "planted"
SERIES = ("fc", "function_regions")
T1 = ("structure",)
FUSION = ("hub_tokens",)
#: The row of the fusion that `both` is decided by; it reads as many numbers as `function_regions`.
FUSED = "hub_tokens"
ROWS = (*SERIES, *T1, *FUSION)
CHANCE, METRIC = 0.5, "auroc"
#: A row is not at chance where the corrected p is below; there are four families of such rows.
ALPHA = 0.01

#: Endpoint and method -> a run per split.
Found = Mapping[tuple[str, str], Sequence[Run]]


@dataclass(frozen=True)
class Verdict:
    """Something that is expected, whether it holds, and by what."""

    expected: str
    holds: bool
    by: str


def write_config(place: Path, seeds: int) -> None:
    """Write the configuration of the study."""
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    endpoint = {
        "cohort": PEOPLE,
        "kind": "binary",
        "classes": list(CLASSES),
        "stratify": ["site"],
        "seeds": seeds,
    }
    config = {
        "results": "results",
        "features": shipped["features"],
        "cohorts": {
            name: {"input": "timeseries", "root": name, "synthetic": True} for name in (PEOPLE, UNLABELLED)
        },
        "experiments": {EXPERIMENT: {"cohorts": [UNLABELLED], "preset": "tiny"}},
        "endpoints": {name: {**endpoint, "column": name, "methods": list(ROWS)} for name in ENDPOINTS},
    }
    (place / "config.yaml").write_text(json.dumps(config, indent=1), encoding="utf-8")


def run_study(place: Path, cores: int) -> None:
    """Take the study in `place` to its tables."""
    words = ["--snakefile", ROOT / "workflow/Snakefile", "--cores", cores, "--quiet", "all", "--", "tables"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *map(str, words)],
        cwd=place,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NO_ET": "1"},
    )
    if done.returncode:
        msg = f"the study in {place} failed: {(done.stdout + done.stderr)[-2000:]}"
        raise DataError(msg)


def read(results: Path, seeds: int) -> dict[tuple[str, str], list[Run]]:
    """Test people of every endpoint, method and split."""

    def folder(endpoint: str, method: str) -> Path:
        of = results / "experiments" / EXPERIMENT if METHODS[method].needs_experiment else results
        return of / "endpoints" / endpoint

    return {
        (endpoint, method): [
            read_run(folder(endpoint, method) / f"{method}_seed-{seed}/predictions.parquet")
            for seed in range(seeds)
        ]
        for endpoint in ENDPOINTS
        for method in ROWS
    }


def standard_error(found: Interval) -> float:
    """What a 95 % interval says of it."""
    assert found.low is not None
    assert found.high is not None
    return (found.high - found.low) / 2 / float(special.ndtri(0.975))


def at_chance(found: Found, expected: str, rows: Iterable[tuple[str, str]]) -> Verdict:
    """Whether none of these AUC differs from 1/2, corrected for how many there are."""
    names, points, errors = [], [], []
    for endpoint, method in rows:
        one = interval(found[endpoint, method], METRIC)
        assert one.point is not None
        names.append(f"{method} on {endpoint}")
        points.append(one.point)
        errors.append(standard_error(one))
    p = holm([math.erfc(abs(x - CHANCE) / e / math.sqrt(2)) for x, e in zip(points, errors, strict=True)])
    least = min(range(len(p)), key=lambda i: (p[i], -abs(points[i] - CHANCE)))
    seen = CHANCE - float(special.ndtri(ALPHA / len(p) / 2)) * max(errors)
    corrected = p[least]
    assert corrected is not None
    by = (
        f"{len(names)} AUC, {min(points):.2f} to {max(points):.2f}; least corrected p {corrected:.2f} ({names[least]} "
        f"{points[least]:.2f}); any above {seen:.2f} would have been seen"
    )
    return Verdict(expected, corrected >= ALPHA, by)


def above_chance(found: Found, endpoint: str, methods: Iterable[str]) -> Verdict:
    """Whether the intervals of all of these methods are above 1/2."""
    of = {method: interval(found[endpoint, method], METRIC) for method in methods}
    return Verdict(
        f"{endpoint}: {', '.join(of)} above chance",
        all(one.low is not None and one.low > CHANCE for one in of.values()),
        "; ".join(f"{method} {cell(one)}" for method, one in of.items()),
    )


def ahead(found: Found, endpoint: str, methods: Iterable[str], others: Sequence[str]) -> Verdict:
    """Whether all of `methods` are ahead of all of `others`: the intervals of their differences are above 0."""
    methods = list(methods)
    of = {(a, b): difference(found[endpoint, a], found[endpoint, b], METRIC) for a in methods for b in others}
    return Verdict(
        f"{endpoint}: {', '.join(methods)} ahead of {', '.join(others)}",
        all(one.low is not None and one.low > 0 for one in of.values()),
        "; ".join(f"{a} - {b} {cell(one, sign='+')}" for (a, b), one in of.items()),
    )


def judge(found: Found) -> list[Verdict]:
    """Compare what is expected with what was found."""
    return [
        above_chance(found, "function", SERIES),
        ahead(found, "function", SERIES, T1),
        at_chance(found, "function: rows of the T1 at chance", [("function", m) for m in T1]),
        above_chance(found, "structure", T1),
        ahead(found, "structure", T1, SERIES),
        at_chance(found, "structure: rows of the series at chance", [("structure", m) for m in SERIES]),
        above_chance(found, "both", (*SERIES, *T1)),
        ahead(found, "both", [FUSED], (*SERIES, *T1)),
        at_chance(found, "none: every row at chance", [("none", m) for m in ROWS]),
        at_chance(found, "permuted: every row at chance", [("permuted", m) for m in ROWS]),
    ]


def cell(found: Interval, sign: str = "") -> str:
    """A mean with its interval."""
    return " ".join([
        "undefined" if found.point is None else f"{found.point:{sign}.3f}",
        "" if found.low is None else f"[{found.low:{sign}.3f}, {found.high:{sign}.3f}]",
    ])  # fmt: skip


def report(found: Found, verdicts: Sequence[Verdict]) -> None:
    """Print the table and the verdicts."""
    runs = found[ENDPOINTS[0], ROWS[0]]
    n = len(runs[0].train) + len(runs[0].people)
    print(
        f"SYNTHETIC people: {n} to train and test on, {len(runs[0].people)} tested in each of {len(runs)} splits. AUC, 95 %."
    )
    print(f"\n| row | reads | {' | '.join(ENDPOINTS)} |\n{'| --- ' * (2 + len(ENDPOINTS))}|")
    for method in ROWS:
        reads = "series" if method in SERIES else "T1" if method in T1 else "both"
        cells = [cell(interval(found[endpoint, method], METRIC)) for endpoint in ENDPOINTS]
        print(f"| {method} | {reads} | {' | '.join(cells)} |")
    print("\n| expected | holds | by |\n| --- | --- | --- |")
    for verdict in verdicts:
        print(f"| {verdict.expected} | {'yes' if verdict.holds else '**NO**'} | {verdict.by} |")


def run_benchmark(args: argparse.Namespace) -> int:
    """Draw, run, report; 1 where something expected fails."""
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        place = (args.folder or Path(name)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        planted_people.draw(place, args.seed, args.people, args.unlabelled, args.jobs)
        write_config(place, args.seeds)
        run_study(place, args.jobs)
        found = read(place / "results", args.seeds)
    verdicts = judge(found)
    report(found, verdicts)
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, nargs="?", help="where it is computed (a temporary folder)")
    add("--seeds", type=whole_number, default=5, help="splits (5)")
    add("--people", type=whole_number, default=400, help="people with labels (400)")
    add("--unlabelled", type=whole_number, default=80, help="people to pretrain on (80)")
    add("--seed", type=seed_number, default=0, help="of the people (0)")
    add("--jobs", type=whole_number, default=os.cpu_count() or 1, help="processes at a time (all cores)")
    args = parser.parse_args(argv)
    return run_command(lambda: run_benchmark(args))


if __name__ == "__main__":
    sys.exit(main())
