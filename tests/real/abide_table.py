"""Rows about real people: ABIDE-I, 835 people of 15 sites, series of the 200 ROIs of CC200; autism against control.

    tests/real/abide [FOLDER]                        the workflow's tables: connectivity, and what needs no brain
    tests/real/abide --trained brainnettf --seeds 3  also networks trained on the series, on the random splits: hours
    tests/real/abide --pretrain 3 [FOLDER]           and function encoders that BHX pretrains itself for 3 of the splits
    tests/real/abide --function --seeds 5 FOLDER     BHX's function encoder, trained, untrained, and connectivity

The first two run `snakemake tables` on abide.yaml: on random splits, and with every site left out in turn; and compare what
comes out with what is known of these people (`abide_study.py`). The exit status is 1 where something does not hold. A
duplicate, one person's series under a second id, is left out, and both ids are named.

With `--function` every seed tests a fifth of the people, five seeds in a row everybody once; of the others a fifth chooses
the penalty of a logistic regression. It pretrains the encoder without labels on the train people of each seed and on nobody
else (its shards, gradients and normaliser hold no other; the weights of others are refused), and reads frozen tokens:
`mean`, the mean over all; `regions`, over time and over 16 runs of neighbouring ROIs (in CC200 neighbours in the table,
not in the brain); `components`, over time and over ROIs with the weights of 16 components, a constant and gradients;
`covariance`, second moments of components of the tokens; `chosen`, of these the one with the least loss on the
validation people. `untrained` is the same encoder before the first step. A connectivity code enters the tokens by weights
that start at zero, so `untrained` has none of it; `untrained with its code let in at random` draws these weights: what is
ahead of that has been learned. Intervals are those of the tables, of people and splits together.

Skips where ../shared/data is absent, but for `--function` with a FOLDER in which it was laid out elsewhere. No part of
the test suite.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import logging
import multiprocessing
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import abide_function
import abide_study
import numpy as np
import real_study
import torch
from abide_people import DATA, People, divide, read_people
from abide_scores import Tested, cells, fit, table

from bhx_model.atomic_write import read_json, write_json
from bhx_model.command_line import json_object, run_command, whole_number
from bhx_model.config import PRESETS, EvaluationConfig
from bhx_model.data import shards
from bhx_model.evaluation import readouts
from bhx_model.evaluation.attentive import attentive_probe
from bhx_model.evaluation.labels import Labels
from bhx_model.evaluation.methods import NETWORKS
from bhx_prep.brain_maps import gradients

logger = logging.getLogger(__name__)

FC = "connectivity, all pairs"
FEW = "connectivity of the components"
#: Rows of `--function`; which weights, and how they are read.
ONLINE, RANDOM_CODE = "online", "untrained with its code let in at random"
WEIGHTS = ("untrained", RANDOM_CODE, "trained")
READ = (*abide_function.READOUTS, "chosen")


def connectivity(people: People) -> np.ndarray:
    """Fisher-z correlations of all pairs of ROIs: (n, pairs), NaN for an ROI without variation."""
    n_rois = len(shards.open_index(people.index).metadata["roi_names"])
    rows = [gradients.connectivity(shards.read_bold(run, n_rois)) for run in people.runs]
    return np.stack([z[np.triu_indices(n_rois, k=1)] for z in rows]).astype(np.float32)


def function_rows(people: People, seed: int, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Chance of autism by every readout of trained and untrained tokens, and what is known of the training.

    What the tokens of some weights give is kept in `folder`, so that others can be added.
    """
    torch.set_num_threads(1)
    labels = divide(people, seed)
    pretrained = abide_function.pretrain(people, labels, folder, args.preset, changes_of(args))
    components_RM = readouts.components_of(pretrained.trained)
    reduced = abide_function.connectivity_of_components(people, components_RM, pretrained.trained.n_rois)
    chance = {FEW: fit(reduced, labels)[0]}
    for weights in (*WEIGHTS, *([ONLINE] if args.online else [])):
        kept = folder / f"{weights}{' attentive' if args.attentive else ''}.json"
        if not kept.exists():
            write_json(kept, read_with_weights(people, labels, pretrained, weights, attend=args.attentive))
        chance |= {name: np.array(of_all) for name, of_all in read_json(kept, "remove it").items()}
    about = {
        "loss": pretrained.run["loss"],
        "counts": pretrained.run["counts"],
        "training_s": pretrained.run["seconds"],
        "moved": abide_function.distance_moved(pretrained),
    }
    return {"chance": chance, "about": about}


def read_with_weights(
    people: People, labels: Labels, pretrained: abide_function.Pretrained, weights: str, *, attend: bool
) -> dict[str, list[float]]:
    """Row -> chance of autism, (n,), of tokens of these weights."""
    model = pretrained.trained if weights in ("trained", ONLINE) else pretrained.untrained
    if weights == RANDOM_CODE:
        model = abide_function.with_code_at_random(model, labels.seed)
    features, over_time = abide_function.read_tokens(people, model, pretrained.rois, target=weights != ONLINE)
    found = {name: fit(of_all, labels) for name, of_all in features.items()}
    chance = {f"{weights}, {name}": of_all for name, (of_all, _) in found.items()}
    least = min(found, key=lambda name: found[name][1])
    logger.info("seed %d, %s: %s chosen", labels.seed, weights, least)
    chance[f"{weights}, chosen"] = found[least][0]
    if attend:
        scores, _ = attentive_probe(labels, over_time, model.config.heads, EvaluationConfig(), labels.seed)
        chance[f"{weights}, attentive"] = scores[:, 1]
    return {name: of_all.tolist() for name, of_all in chance.items()}


def one_seed(
    people: People, pairs: np.ndarray, args: argparse.Namespace, seed: int
) -> tuple[Tested, dict[str, Any]]:
    """All rows of a seed; encoders are kept in the folder, under a hash of the settings."""
    labels = divide(people, seed)
    settings = json.dumps({"preset": args.preset, **changes_of(args)}, sort_keys=True)
    place = args.folder / f"function-{hashlib.sha256(settings.encode()).hexdigest()[:8]}/seed-{seed}"
    found = function_rows(people, seed, place, args)
    chance, about = {FC: fit(pairs, labels)[0]} | found["chance"], found["about"]
    logger.info("seed %d: %s", seed, json.dumps(about))
    test, who = labels.of("test"), np.array(labels.people)
    tested = {name: of_all[test] for name, of_all in chance.items()}
    return Tested(people.dx[test], tested, who[test], who[labels.of("train")]), about


def report(
    people: People, tested: Sequence[Tested], about: Sequence[Mapping[str, Any]], args: argparse.Namespace
) -> None:
    """Print the tables."""
    sites = len(np.unique(people.site))
    print(f"ABIDE-I, CC200: {len(people)} people ({people.dx.sum()} autism) of {sites} sites; seeds {args.first} to "
          f"{args.first + args.seeds - 1}, {len(tested[0].target)} test people each")  # fmt: skip
    for label, why in people.left_out.items():
        print(f"left out: {label}, {why}")
    print(f"\n{table('row', *named(tested, [(name, None) for name in tested[0].chance]))}")
    read = [*READ, *(["attentive"] if args.attentive else [])]
    others = ["untrained", RANDOM_CODE, *([ONLINE] if args.online else [])]
    differences: list[tuple[str, str | None]] = [
        (f"trained, {name}", f"{other}, {name}") for other in others for name in read
    ]
    differences += [(f"trained, {name}", other) for other in (FC, FEW) for name in read]
    names, values = named(tested, differences)
    print(f"\n{table('difference', names, values)}\n")
    for (row, other), (_, low, high) in zip(differences, values[:, -1], strict=True):
        verdict = "ahead" if low > 0 else "behind" if high < 0 else "not told apart, the interval holds 0"
        print(f"AUC, {row} against {other}: {verdict}")
    print("\n| seed | train people | loss, first | loss, last | distance moved | training, s |")
    print("| --- " * 6 + "|")
    for seed, one in enumerate(about, args.first):
        loss, people_of = one["loss"], one["counts"]["train_subjects"]
        print(f"| {seed} | {people_of} | {loss['first']:.3f} | {loss['last']:.3f} | {one['moved']:.2f} | "
              f"{one['training_s']:.0f} |")  # fmt: skip
    print(f"\nchanges of preset {args.preset}: {json.dumps(changes_of(args))}")


def changes_of(args: argparse.Namespace) -> dict[str, Any]:
    """What is changed of the preset."""
    return abide_function.settings(args.preset, args.set)


def named(tested: Sequence[Tested], rows: Sequence[tuple[str, str | None]]) -> tuple[list[str], np.ndarray]:
    """Names and intervals of rows."""
    return [a if b is None else f"{a} - {b}" for a, b in rows], cells(tested, rows)


def run_table(args: argparse.Namespace) -> int:
    """Print the rows that were asked for; 1 where something that is known of them does not hold."""
    laid_out = args.function and args.folder and (args.folder / "results").exists()
    if not (DATA / "abide_cc200").exists() and not laid_out:
        print(f"skipped: no {DATA / 'abide_cc200'}")
        return 0
    with tempfile.TemporaryDirectory(prefix="abide-") as name:
        args.folder = real_study.fresh(args.folder or Path(name))
        if not args.function:
            place = real_study.fresh(args.folder / "tables")
            return abide_study.run(place, args.seeds, args.trained, args.pretrain)
        people = read_people(args.folder)
        pairs = connectivity(people)
        seeds = range(args.first, args.first + args.seeds)
        work = functools.partial(one_seed, people, pairs, args)
        if args.jobs == 1:
            found = [work(seed) for seed in seeds]
        else:
            with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
                found = pool.map(work, seeds, chunksize=1)
        report(people, [tested for tested, _ in found], [about for _, about in found], args)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="tests/real/abide", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "folder", type=Path, nargs="?", help="where series, shards and encoders are kept (a temporary folder)"
    )
    add("--function", action="store_true", help="rows of BHX's own function encoder")
    add(
        "--pretrain",
        type=int,
        default=0,
        metavar="N",
        help="also rows of encoders pretrained for the first N splits",
    )
    add(
        "--trained",
        nargs="+",
        choices=NETWORKS,
        default=(),
        help="also rows of networks that are trained on the series, on the random splits",
    )
    add("--attentive", action="store_true", help="also read its tokens, over time, by a learned query")
    add("--online", action="store_true", help="also rows of the trained encoder that is not the slow copy")
    add(
        "--preset",
        choices=PRESETS,
        default="tiny",
        help="of --function (tiny); others take a GPU, which is used where there is one",
    )
    add("--seeds", type=whole_number, default=5, help="how many (5)")
    add(
        "--first",
        type=whole_number,
        default=0,
        help="the first of them (0); settings were tried at 100 and above",
    )
    add("--jobs", type=whole_number, default=1, help="seeds at a time, one thread each (1)")
    add(
        "--set",
        type=json_object,
        default={},
        metavar="JSON",
        help="other settings, e.g. '{\"train.steps\": 600}'",
    )
    args = parser.parse_args(argv)
    return run_command(lambda: run_table(args), verbosity=0)


if __name__ == "__main__":
    sys.exit(main())
