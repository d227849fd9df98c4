"""ABIDE-I through the workflow: rows that need no training, on random splits and with every site left out in turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import real_study
import yaml
from abide_function import SETTINGS
from real_study import Check, percent

from bhx_model.atomic_write import read_json
from bhx_model.evaluation import intervals

COHORT = "abide"
#: Readouts of function tokens, with the control of each.
FUNCTION = [
    "function_regions",
    "function_regions_untrained",
    "function_covariance",
    "function_covariance_untrained",
]
#: Endpoints of abide.yaml.
RANDOM, SITES = "dx", "dxsites"
#: What independent code found of more people of ABIDE-I (1,035; scikit-learn, 10-fold), in shares: mean FD, site.
MOTION, SITE = 0.57, 0.542
#: They hold the same series, as published.
DUPLICATE = {"0050279", "0050286"}
#: Where a linear model of connectivity is expected. Numbers far above are a leak, far below a fault.
CONNECTIVITY = (0.64, 0.74)


def run(folder: Path, seeds: int, methods: Sequence[str] = (), pretrained: int = 0) -> int:
    """Run the study in `folder`, print its tables and what is expected of them.

    Parameters
    ----------
    folder : Path
    seeds : int
        Random splits.
    methods : sequence of str
        Methods on the random splits beside those of abide.yaml.
    pretrained : int
        Splits, the first ones, without whose test people a function encoder is pretrained, one for each.

    Returns
    -------
    int
        1 where something that is expected does not hold.
    """
    config = Path(__file__).with_name("abide.yaml")
    real_study.lay_out("abide_cc200", folder / COHORT)
    shipped = yaml.safe_load(config.read_text(encoding="utf-8"))
    endpoints = of_endpoints(shipped["endpoints"], seeds, methods)
    if pretrained:
        endpoints[RANDOM]["methods"] += FUNCTION
    changes = {"endpoints": endpoints, "experiments": experiments_without(pretrained)}
    real_study.write_config(config, folder, changes)
    real_study.snakemake(folder, "tables")
    split = read_json(folder / f"results/endpoints/{RANDOM}/seed-0.json", "make it again")
    print("".join(f"left out: sub-{one['subject']} {one['reason']}\n" for one in split["excluded"]))
    real_study.print_tables(folder, list(endpoints))
    if pretrained:
        print_pretrained(folder, pretrained)
    return real_study.print_checks(checks(folder, split["same_scan"]))


def experiments_without(splits: int) -> dict[str, Any]:
    """An experiment for each of the first splits, pretrained on everybody but its test people, without labels."""
    return {
        f"without{split}": {
            "cohorts": [COHORT],
            "preset": "tiny",
            "stages": ["function"],
            "holdout": 0.0,
            "seed": split,
            "exclude_test_of": {RANDOM: [split]},
            "overrides": {"function": SETTINGS},
        }
        for split in range(splits)
    }


def print_pretrained(folder: Path, splits: int) -> None:
    """Print rows of function tokens over all their splits, each of its own encoder, and what they are ahead of `fc`."""
    fc = real_study.runs_of(folder, RANDOM, "fc")[:splits]
    print(
        f"Function tokens over {splits} splits, each of an encoder that saw none of its test people; fc on the same:\n"
    )
    print("| row | accuracy | AUC | AUC, against fc |\n| --- | --- | --- | --- |")
    for name in ("fc", *FUNCTION):
        runs = fc if name == "fc" else real_study.runs_of(folder, RANDOM, name, "without*")
        cells = [percent(intervals.interval(runs, metric)) for metric in ("accuracy", "auroc")]
        against = "" if name == "fc" else percent(intervals.difference(runs, fc, "auroc"))
        print(f"| {name} | {' | '.join(cells)} | {against} |")
    print()


def of_endpoints(shipped: dict[str, Any], seeds: int, methods: Sequence[str]) -> dict[str, Any]:
    """The shipped endpoints, with so many random splits and with more methods on these."""
    random = shipped[RANDOM]
    return shipped | {RANDOM: random | {"methods": [*random["methods"], *methods], "seeds": seeds}}


def checks(folder: Path, twice: Sequence[Sequence[str]]) -> list[Check]:
    """Compare the tables with what is known of these people."""
    fc, permuted, motion, site = (
        real_study.score(folder, RANDOM, method, "accuracy")
        for method in ("fc", "permuted", "motion", "site")
    )
    left_out = real_study.score(folder, SITES, "fc", "accuracy")
    low, high = CONNECTIVITY
    return [
        Check(
            f"accuracy of fc between {low:.0%} and {high:.0%}",
            fc.point is not None and low <= fc.point <= high,
            percent(fc),
        ),
        Check("interval of permuted holds 50 %", real_study.holds(permuted, 0.5), percent(permuted)),
        Check(f"interval of motion holds {MOTION:.1%}", real_study.holds(motion, MOTION), percent(motion)),
        Check(f"interval of site holds {SITE:.1%}", real_study.holds(site, SITE), percent(site)),
        Check(
            "fc above the majority where a site is left out",
            left_out.low is not None and left_out.low > majority(folder),
            f"{percent(left_out)}; majority {majority(folder):.1%}",
        ),
        Check(
            "both ids of the duplicate are named",
            DUPLICATE in [set(group) for group in twice],
            "; ".join(" and ".join(group) for group in twice) or "none found",
        ),
    ]


def majority(folder: Path) -> float:
    """Share of the larger class among the people who were tested on."""
    truth = np.concatenate([run.truth for run in real_study.runs_of(folder, SITES, "fc")])
    share = float(np.mean(truth == 1))
    return max(share, 1 - share)
