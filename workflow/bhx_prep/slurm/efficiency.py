"""Compare resources that jobs used with those requested, by rule, and suggest new requests.

Read from Snakemake's benchmark files, which tell both where a profile says `benchmark-extended: true`.
"""

from __future__ import annotations

import ast
import csv
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Memory (MB) of the two Snakemake processes that a Slurm job holds beside its work.
SNAKEMAKE_MB = 400
#: Spare memory and time: subjects differ, and nodes do.
SPARE_MEMORY, SPARE_TIME = 1.25, 2.0
#: Rules that go on where an earlier job stopped: their last job's time says nothing of the whole.
RESUME = frozenset({"train_encoder", "train_fusion"})


@dataclass(frozen=True)
class Use:
    """The finished jobs of a rule: the most that any of them used, and the least that one had asked for.

    Memory in MB, time in minutes.
    """

    rule: str
    jobs: int
    memory: float
    memory_asked: float
    minutes: float
    minutes_asked: float

    @property
    def advice(self) -> dict[str, int]:
        """Resources that would have been enough for all, with some to spare."""
        memory = 100 * math.ceil((SPARE_MEMORY * self.memory + SNAKEMAKE_MB) / 100)
        advice = {"mem_mb": max(1000, memory)}
        if self.rule not in RESUME:
            advice["runtime"] = max(5, math.ceil(SPARE_TIME * self.minutes))
        return advice


def by_rule(results: Path) -> list[Use]:
    """Use of every rule that has finished jobs; benchmarks without requests are excluded.

    Parameters
    ----------
    results : Path
        Folder of all results.
    """
    rows: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    folder = results / "benchmarks"
    for file in sorted(folder.rglob("*.tsv")):
        for row in _rows(file):
            rows[file.relative_to(folder).parts[0].removesuffix(".tsv")].append(row)
    return [
        Use(
            rule,
            jobs=len(of_rule),
            memory=max(row[0] for row in of_rule),
            memory_asked=min(row[1] for row in of_rule),
            minutes=max(row[2] for row in of_rule),
            minutes_asked=min(row[3] for row in of_rule),
        )
        for rule, of_rule in rows.items()
    ]


def lines(uses: Iterable[Use]) -> Iterable[str]:
    """The table as text."""
    yield f"  {'rule':<20}{'jobs':>6}  {'memory, MB':<22}{'time, minutes':<22}enough"
    for use in uses:
        memory = f"{use.memory:,.0f} of {use.memory_asked:,.0f} ({use.memory / use.memory_asked:.0%})"
        minutes = f"{use.minutes:,.1f} of {use.minutes_asked:,.0f} ({use.minutes / use.minutes_asked:.0%})"
        advice = ", ".join(f"{name}={amount}" for name, amount in use.advice.items())
        yield f"  {use.rule:<20}{use.jobs:>6}  {memory:<22}{minutes:<22}{advice}"


def _rows(file: Path) -> Iterable[tuple[float, float, float, float]]:
    """Memory used and asked for (MB), time used and asked for (minutes) of a benchmark's jobs."""
    with file.open(encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text, delimiter="\t"):
            try:
                asked: dict[str, Any] = ast.literal_eval(row["resources"])
                yield (
                    float(row["max_rss"]),
                    float(asked["mem_mb"]),
                    float(row["s"]) / 60,
                    float(asked["runtime"]),
                )
            except (
                KeyError,
                TypeError,
                ValueError,
                SyntaxError,
            ):  # NA: shorter than a measurement; or not extended
                continue
