"""Coverage of 95 % intervals of scores: a simulation of whole studies, with and without an effect.

In every repeat n people are drawn from a population, split at random 6:2:2 many times (by class where there are two),
a ridge regression is fitted on the train people with the penalty that is best on the validation people, and an interval
is made of its scores on the test people. The truth is the mean performance of such models, each trained on other people,
on 20,000 people who take part in nothing.

    python tests/benchmarks/intervals.py --repeats 1000 --jobs 8

prints one line per population, number of people, number of splits and metric, and ends with status 1 if a coverage is not
between 93 and 97 %: a mark stands beside it. A coverage of 95 % has a standard error of 0.7 % with 1,000 repeats, and 1.5 %
with 200. The limit of correlations in `bhx_model/evaluation/intervals.py` was set while seed 0 was looked at: what other
seeds give is the evidence.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/builders")]

from interval_worlds import Coverage, World, coverage  # noqa: E402

from bhx_model.command_line import seed_number  # noqa: E402

WORLDS = {
    "classes, no effect": World("binary", 0.0, 5),
    "classes, d = 1.2": World("binary", 1.2, 5),
    "values, no effect": World("regression", 0.0, 5),
    "values, r = .5": World("regression", 0.5, 5),
    "classes, no effect, 50 features": World("binary", 0.0, 50),
    "values, r = .5, 50 features": World("regression", 0.5, 50),
}
LOWEST, HIGHEST = 0.93, 0.97


def _one(task: tuple[str, int, tuple[int, ...], int, int]) -> tuple[str, list[Coverage]]:
    name, n, n_splits, repeats, seed = task
    return name, coverage(WORLDS[name], n=n, n_splits=n_splits, repeats=repeats, seed=seed)


def main() -> int:
    """Print coverages; 1 if one is out of bounds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--people", type=int, nargs="+", default=[40, 200, 1000])
    parser.add_argument("--splits", type=int, nargs="+", default=[3, 20, 100])
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=seed_number, default=0, help="of the people that are drawn (0)")
    args = parser.parse_args()
    tasks = [
        (name, n, tuple(args.splits), args.repeats, args.seed)
        for n, name in itertools.product(args.people, args.worlds)
    ]
    print("population | people | splits | metric | truth | covered % | above % | below % | width")
    out = total = 0
    with multiprocessing.Pool(args.jobs) as pool:
        for name, rows in pool.imap(_one, tasks):
            for row in rows:
                inside = LOWEST <= row.covered <= HIGHEST
                total, out = total + 1, out + (not inside)
                below = 1 - row.covered - row.above
                print(
                    f"{name} | {row.n} | {row.n_splits} | {row.metric} | {row.truth:.3f} | {100 * row.covered:.1f} | "
                    f"{100 * row.above:.1f} | {100 * below:.1f} | {row.width:.3f}{'' if inside else ' | OUTSIDE'}",
                    flush=True,
                )
    print(f"{total - out} of {total} coverages are between {100 * LOWEST:.0f} and {100 * HIGHEST:.0f} %")
    return int(out > 0)


if __name__ == "__main__":
    sys.exit(main())
