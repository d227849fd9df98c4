"""Geometric harmonics of one fsLR-32k hemisphere: ours, compared with LaPy's solver.

    python tests/benchmarks/harmonics.py --modes 200

The surface is the S1200 midthickness that the demo uses, without the medial wall. Every measurement is a process of
its own without its imports; rounds are interleaved, ratios are of medians of CPU seconds. LaPy needs scikit-sparse
for its Cholesky option; where that is not installed it is not measured. No part of the test suite.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np


def surface(templates: Path) -> tuple[np.ndarray, np.ndarray]:
    """Left cortex of the templates."""
    from bhx_prep.brain_maps import surfaces

    with np.load(templates / "cortex.npz", allow_pickle=False) as file:
        cortex = file["left"]
    vertices, triangles = surfaces.read_surface(templates / "surface_left.surf.gii")
    vertices, triangles, _ = surfaces.cut(vertices, triangles, cortex)
    return vertices, triangles


def ours(vertices: np.ndarray, triangles: np.ndarray, k: int):
    from bhx_prep.brain_maps import eigenmodes

    yield
    yield eigenmodes.modes(vertices, triangles, k)[0]


def lapy(vertices: np.ndarray, triangles: np.ndarray, k: int, *, cholesky: bool = False):
    from lapy import Solver, TriaMesh

    yield
    yield Solver(TriaMesh(vertices, triangles), use_cholmod=cholesky).eigs(k=k)[0]


def lapy_cholesky(vertices: np.ndarray, triangles: np.ndarray, k: int):
    import sksparse.cholmod  # noqa: F401

    yield from lapy(vertices, triangles, k, cholesky=True)


CASES = {"ours": ours, "LaPy": lapy, "LaPy, Cholesky": lapy_cholesky}


def one(case: str, templates: Path, k: int) -> None:
    """Run one measurement and print its numbers."""
    steps = CASES[case](*surface(templates), k)
    next(steps)
    before = resource.getrusage(resource.RUSAGE_SELF)
    values = next(steps)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu": cpu, "mb": after.ru_maxrss / 1024, "values": np.asarray(values).tolist()}))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--templates", type=Path, default=Path("results/templates"))
    parser.add_argument("--modes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one, args.templates, args.modes)
        return
    found: dict[str, list[dict]] = {}
    for _ in range(args.rounds):
        for case in CASES:
            command = [sys.executable, __file__, "--one", case, "--templates", str(args.templates)]
            done = subprocess.run(
                [*command, "--modes", str(args.modes)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                if "sksparse" not in done.stderr:
                    sys.exit(done.stderr)
                continue
            found.setdefault(case, []).append(json.loads(done.stdout.splitlines()[-1]))
    seconds = {case: statistics.median(m["cpu"] for m in listed) for case, listed in found.items()}
    for case, listed in found.items():
        print(f"{case:16s} {seconds[case]:6.2f} s CPU  {max(m['mb'] for m in listed):6.0f} MB peak")
    for case in set(CASES) - set(found):
        print(f"{case:16s} not measured: scikit-sparse is not installed")
    a, b = (np.array(found[case][0]["values"])[1:] for case in ("ours", "LaPy"))
    print(f"largest relative difference of eigenvalues from LaPy's: {np.abs(a / b - 1).max():.1e}")
    print(f"{seconds['LaPy'] / seconds['ours']:.2f} x LaPy's default speed; goal 1.3 x")


if __name__ == "__main__":
    main()
