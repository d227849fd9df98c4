"""Compare trained with untrained weights and with connectivity, and report the loss on an interpretable scale.

    python tests/benchmarks/learning.py results demo-data --seeds 5 --jobs 2      # after `make demo`

For every seed all stages are trained anew, with the tiny preset or what `--set` changes of it (a JSON object for each
stage): structure and fusion on the demo's cohorts (synthetic), the function stage also on `--people` more who are drawn
as those of `pretraining`, without T1. Probes read frozen tokens of the subjects of `patients`, whose endpoints are planted
in both modalities, and of `--more` who are drawn in the same way.

Controls: *untrained* is the same model of the same seed before its first step. Over untrained function tokens, a fusion
is trained as the other; of "all untrained" hub tokens the fusion is untrained too. *Trained encoder* is that of the
function stage which is not the moving average. Connectivity is read by the same model, all pairs or as many principal
components, of the subjects fitted on, as tokens have numbers; with more numbers than such subjects it is that of all pairs.

Readouts: the mean token; 16 tokens, which are hub tokens one by one, or means of 16 runs of neighbouring tokens; the
covariance, of component series of function tokens over time and channels, or of hub tokens over channels; with
`--attentive` a learned query over tokens (of function tokens, their means over time), once instead of 5 times.
Numbers are standardised, for ridge regression whose penalty is chosen within the subjects it is fitted on; 5 folds, 5
times.

In these subjects either modality holds all of an endpoint, and a T1 that is read closely determines everything. So a
third endpoint is of pairs of subjects of one scanner and diagnosis: the T1 of the first, the series of the second, and the
sum of both scores, of which either modality holds one half.

Where ROIs are shuffled, series change places and the position code stays. The scale of the loss: `learning_loss.py`.

No part of the test suite.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import functools
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow"))

import learning_features as features
import learning_loss
from learning_features import (
    ALL_PAIRS,
    ATTENTIVE,
    FC,
    FUNCTION,
    FUNCTION_0,
    HUB,
    HUB_0,
    HUB_FUNCTION_0,
    ONLINE,
    STRUCTURE,
    STRUCTURE_0,
    Kind,
)
from learning_report import (
    COGNITION,
    DIAGNOSIS,
    HALVES,
    SHUFFLED,
    Found,
    estimates,
    from_json,
    principal,
    print_goals,
    print_losses,
    print_scores,
    to_json,
)

from bhx_model.atomic_write import write_json
from bhx_model.config import STAGES, load_preset
from bhx_model.data import shards
from bhx_model.data.split import read_split
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.training import stages
from bhx_model.training.encoders import Encoders
from bhx_model.training.trained import load_trained
from bhx_prep.demo import folder, head, timeseries
from bhx_prep.demo.chance import generator
from bhx_prep.demo.standard import draw_t1, write_t1

ROOT = Path(__file__).resolve().parents[2]
PRETRAINING = ("pretraining", "derivatives", "rawbids")
#: Cohorts that are drawn: subjects with endpoints, and subjects without T1 for the function stage.
PATIENTS, UNLABELLED = "patients", "unlabelled"
#: Seed of the subjects who are drawn beside the demo's, whose seed is 0.
MORE_SEED = 1
#: Unlabelled subjects who are held out.
N_HELD_OUT = 60


@dataclass(frozen=True)
class Work:
    """What all seeds share."""

    results: Path
    place: Path
    """Folder for what is found."""
    probed: tuple[Path, ...]
    """Indices of the subjects whom probes read."""
    unlabelled: Path
    split: Path
    """Of the demo's cohorts and the unlabelled subjects whom the function stage is trained on."""
    changes: Mapping[str, Any]
    target: Mapping[str, np.ndarray]
    partner: np.ndarray
    """(n,) whose series goes with each T1, in the third endpoint."""
    attentive: bool

    @property
    def rois(self) -> Path:
        """Per-ROI metadata of the demo."""
        return self.results / "experiments/demo/subjects/rois.npz"

    @property
    def packed(self) -> list[Path]:
        """Indices of the demo's pretraining cohorts."""
        return [self.results / cohort / "shards/index.json" for cohort in PRETRAINING]

    def sources(self, stage: str, tokens: list[Path] | None = None) -> stages.Sources:
        """Files that a stage's training reads."""
        unlabelled = [self.unlabelled] if stage == "function" else []
        return stages.Sources(
            shards=[*self.packed, *unlabelled], split=self.split, rois=self.rois, tokens=tokens or []
        )


def run(*words: object) -> None:
    """Run a Python module, quietly."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/workflow", "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:  # no exit: a pool waits forever for a process that is gone
        msg = f"{words[0]}: {(done.stdout + done.stderr)[-2000:]}"
        raise RuntimeError(msg)


def draw_subject(root: Path, stream: str, with_t1: bool, subject: timeseries.SeriesSubject) -> None:
    """Draw a subject as the demo does."""
    timeseries.write_series(root, subject, "rest", timeseries.draw_series(stream, MORE_SEED, subject))
    if with_t1:
        grid = head.standard_grid(2.0)
        random = generator(MORE_SEED, stream, subject.label, "t1w")
        drawn = draw_t1(random, grid, timeseries.subject_structure(subject))
        write_t1(root, subject.label, grid, *drawn)


def draw_cohort(
    root: Path, stream: str, subjects: list[timeseries.SeriesSubject], with_t1: bool, jobs: int
) -> None:
    """Draw a cohort's subjects, several at a time."""
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        pool.map(functools.partial(draw_subject, root, stream, with_t1), subjects, chunksize=4)
    columns = {
        "site": [s.scanner.site for s in subjects],
        "diagnosis": ["patient" if s.patient else "control" for s in subjects],
        "cognition": np.array([s.score for s in subjects]),
    }
    random = generator(MORE_SEED, stream, "participants")
    folder.write_participants(root, random, [s.label for s in subjects], columns)
    folder.describe(root, root.name, "Drawn as the demo's.", derivative=True, version="0")


def draw(place: Path, n_probed: int, n_unlabelled: int, jobs: int) -> None:
    """Draw subjects and take them to shards, those with endpoints and those without."""
    patients = timeseries.patient_subjects(MORE_SEED, n_probed)
    draw_cohort(place / PATIENTS, timeseries.PATIENTS_STREAM, patients, True, jobs)
    unlabelled = timeseries.pretraining_subjects(n_unlabelled)
    draw_cohort(place / UNLABELLED, timeseries.PRETRAINING_STREAM, unlabelled, False, jobs)
    config = {
        "results": str(place / "results"),
        "features": yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["features"],
        "cohorts": {
            name: {"input": "timeseries", "root": str(place / name), "synthetic": True}
            for name in (PATIENTS, UNLABELLED)
        },
        "experiments": {"none": {"cohorts": [PATIENTS]}},
        "endpoints": {},
    }
    (place / "config.yaml").write_text(json.dumps(config))
    first, second = (place / f"results/{name}/shards/index.json" for name in (PATIENTS, UNLABELLED))
    rest = ["--snakefile", ROOT / "workflow/Snakefile", "--configfile", place / "config.yaml"]
    run("snakemake", *rest, "--directory", place, "--cores", jobs, first, second)


def write_split(demo: Path, unlabelled: Path, out: Path) -> None:
    """Write the demo's split with the unlabelled subjects added, of whom the last `N_HELD_OUT` are held out."""
    subjects = sorted({sample.subject for sample in shards.open_index(unlabelled).samples["bold"]})
    split = read_split(demo)
    parts = {part: [s for s, other in split.items() if other == part] for part in ("train", "holdout")}
    parts["train"] += subjects[:-N_HELD_OUT]
    parts["holdout"] += subjects[-N_HELD_OUT:]
    out.write_text(json.dumps(parts))


def train(work: Work, place: Path, seed: int) -> None:
    """Train all stages, and the fusion over an untrained function encoder too, into folders of `place`."""

    def one(stage: str, out: str, *words: object) -> None:
        sources = work.sources(stage)
        given = ["--stage", stage, "--preset", "tiny", "--set", json.dumps(work.changes.get(stage, {}))]
        given += ["--seed", seed, "--shards", *sources.shards, "--split", work.split, "--rois", work.rois]
        run("bhx_model.train", *given, "--run-root", place / "runs", "--out", place / out, *words)

    def fuse(function: str, out: str) -> None:
        caches = []
        for cohort, index in zip(PRETRAINING, work.packed, strict=True):
            cache = place / f"tokens-{out}" / cohort
            encoders = ["--structure", place / "structure", "--function", place / function]
            run(
                "bhx_model.training.tokens", *encoders, "--shards", index, "--rois", work.rois, "--out", cache
            )
            caches.append(cache / "index.json")
        one("fusion", out, "--tokens", *caches)

    for stage in ("structure", "function"):
        one(stage, stage)
        save_untrained(work, place, seed, stage)
    fuse("function", "fusion")
    fuse("function-untrained", "fusion-function-untrained")
    save_untrained(work, place, seed, "fusion")


def save_untrained(work: Work, place: Path, seed: int, stage: str) -> None:
    """Write what a stage was before its first step beside it."""
    caches = [place / "tokens-fusion" / cohort / "index.json" for cohort in PRETRAINING]
    config = load_trained(place / stage, stage).config
    opened = stages.open_stage(config, work.sources(stage, caches if stage == "fusion" else []), seed)
    features.save_untrained(opened, place / stage, place / f"{stage}-untrained")


@torch.no_grad()
def shuffled_losses(work: Work, place: Path, seed: int) -> dict[str, float]:
    """JEPA loss of the held out subjects' series with the ROIs shuffled, as a multiple of that in their order."""
    trained = load_trained(place / "function", "function")
    stage = stages.open_stage(trained.config, work.sources("function"), seed)
    random = np.random.default_rng([seed, 1])
    losses = np.zeros(2)
    for (number,) in stage.holdout(1):
        batch = stage.load([number], 0, None)
        series = batch.tensors["series"]
        order = torch.from_numpy(random.permutation(series.shape[1]))
        for place_of, tensor in enumerate((series, series[:, order])):
            replaced = replace(batch, tensors={**batch.tensors, "series": tensor})
            arguments, _ = stage.inputs(replaced)
            _, stats = trained.model(*arguments)
            losses[place_of] += stats["loss"].item()
    return {SHUFFLED: losses[1] / losses[0]}


def loss_scale(work: Work, model: FunctionJEPA) -> learning_loss.LossScale:
    """The loss of the unlabelled subjects held out on the scale of `learning_loss`, fitted on those trained on."""
    runs, split = shards.open_index(work.unlabelled).samples["bold"], read_split(work.split)
    rois = learning_loss.RoiMetadata.load(work.rois)
    chosen = ([run for run in runs if split[run.subject] == part] for part in ("train", "holdout"))
    fit, held_out = (learning_loss.Runs.read(part, rois, model.config) for part in chosen)
    return learning_loss.loss_scale(model, fit, held_out)


def losses(place: Path) -> dict[str, float]:
    """Losses of subjects held out, as the trainings found them."""
    found: dict[str, float] = {}
    for stage in (*STAGES, "fusion-function-untrained"):
        loss = json.loads((place / stage / "run.json").read_text())["loss"]
        found[f"{stage}: loss"] = loss["holdout"]
        found[f"{stage}: loss / mean-predictor loss"] = loss["holdout"] / loss["mean_predictor"]
        if loss.get("connectivity_mean_predictor"):
            ratio = loss["connectivity"] / loss["connectivity_mean_predictor"]
            found[f"{stage}: connectivity loss / mean-predictor loss"] = ratio
    return found


def one_seed(work: Work, seed: int) -> Found:
    """Train and probe with one seed, or read what was kept of it."""
    kept = work.place / f"seed-{seed}.json"
    if kept.exists():
        return from_json(kept.read_text(encoding="utf-8"))
    found = measure(work, seed)
    write_json(kept, to_json(found))
    print(f"seed {seed} done", file=sys.stderr, flush=True)
    return found


def measure(work: Work, seed: int) -> Found:
    """Train and probe with one seed."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    with tempfile.TemporaryDirectory(prefix="learning-") as name:
        place = Path(name)
        train(work, place, seed)
        print(f"seed {seed} trained", file=sys.stderr, flush=True)
        trained = Encoders.open(place / "structure", place / "function")
        untrained = Encoders.open(place / "structure-untrained", place / "function-untrained")
        target = load_trained(place / "function", "function").run["target"]
        fusions = {
            HUB: features.load_fusion(place / "fusion"),
            HUB_FUNCTION_0: features.load_fusion(place / "fusion-function-untrained"),
            HUB_0: features.load_fusion(place / "fusion-untrained"),
        }
        found = losses(place) | shuffled_losses(work, place, seed)
    scale = loss_scale(work, trained.function)
    subjects = features.pairs(work.probed)
    tokens = features.encode(subjects, trained, untrained)
    described = {
        "function": {
            "trained encoder, distance from its start / length of the start": target["encoder_moved"],
            "target encoder, distance from its start / length of the start": target["moved"],
            "share of its start that the schedule leaves in the target": target["share_of_start"],
        }
    }
    n_rois = trained.function.n_rois
    described |= {
        f"tokens of {name}": features.describe(tokens[name], subjects, trained, n_rois)
        for name in (FUNCTION, FUNCTION_0, ONLINE)
    }
    predicted, numbers = probe(work, tokens, fusions, trained.function, seed)
    return Found(found, scale, described, predicted, numbers)


def probe(
    work: Work,
    tokens: Mapping[str, features.Tokens],
    fusions: Mapping[str, FusionModel],
    function: FunctionJEPA,
    seed: int,
) -> tuple[dict[str, dict[Kind, np.ndarray]], dict[Kind, int]]:
    """Predictions of all endpoints from all that is read, and how many numbers that is."""
    own = np.arange(len(work.partner))
    read: dict[Kind, np.ndarray] = {}
    for name, one in tokens.items():
        of_series = name in (FUNCTION, FUNCTION_0, ONLINE)
        read |= (
            features.read_function(name, one, function) if of_series else features.read_structure(name, one)
        )
    read |= features.side_by_side(tokens[STRUCTURE], tokens[FUNCTION], own)
    halves = {
        kind: x[work.partner] if kind[0] in (FUNCTION, FUNCTION_0, ONLINE) else x
        for kind, x in read.items()
        if kind[0] in tokens
    }
    halves |= features.side_by_side(tokens[STRUCTURE], tokens[FUNCTION], work.partner)
    encoders = {
        HUB: (STRUCTURE, FUNCTION),
        HUB_FUNCTION_0: (STRUCTURE, FUNCTION_0),
        HUB_0: (STRUCTURE_0, FUNCTION_0),
    }
    targets = np.stack([work.target[e] for e in (DIAGNOSIS, COGNITION)], axis=1)
    both: dict[Kind, np.ndarray] = {}
    numbers: dict[Kind, int] = {}
    attended = {name: tokens[name] for name in (FUNCTION, FUNCTION_0)} if work.attentive else {}
    for name, one in attended.items():
        by_roi = [t.float().unflatten(0, (function.n_rois, -1)).mean(dim=1) for t in one.of]
        both[name, ATTENTIVE] = features.probe_attentively(torch.stack(by_roi).numpy(), *targets.T, seed)
        numbers[name, ATTENTIVE] = by_roi[0].numel()
    for name, (structure, series) in encoders.items():
        hub = features.encode_hub(fusions[name], tokens[structure], tokens[series], own)
        read |= features.read_hub(name, hub)
        of_pairs = features.encode_hub(fusions[name], tokens[structure], tokens[series], work.partner)
        halves |= features.read_hub(name, of_pairs)
        if work.attentive:
            both[name, ATTENTIVE] = features.probe_attentively(torch.cat(hub).numpy(), *targets.T, seed)
            numbers[name, ATTENTIVE] = hub[0].numel()
    both |= {kind: features.probe(x, targets) for kind, x in read.items()}
    numbers |= {kind: x.shape[1] for kind, x in read.items()}
    predicted = {e: {kind: p[:, i] for kind, p in both.items()} for i, e in enumerate((DIAGNOSIS, COGNITION))}
    predicted[HALVES] = {
        kind: features.probe(x, work.target[HALVES][:, None])[:, 0] for kind, x in halves.items()
    }
    return predicted, numbers


def probe_connectivity(work: Work) -> tuple[dict[str, dict[Kind, np.ndarray]], dict[Kind, int]]:
    """Predictions from connectivity, of all pairs and of as many principal components as tokens have numbers."""
    x = features.connectivity(features.pairs(work.probed), work.probed[0])
    targets = np.stack([work.target[e] for e in (DIAGNOSIS, COGNITION)], axis=1)
    width, hub = (
        cast(Any, load_preset(stage, "tiny").override(work.changes.get(stage, {})).model)
        for stage in ("function", "fusion")
    )
    n_hub = hub.hub_tokens * (hub.hub_tokens + 1) // 2
    fitted = len(next(iter(features.folds(len(x))))[0])
    predicted = {(FC, ALL_PAIRS): features.probe(x, targets)}
    numbers = {(FC, ALL_PAIRS): x.shape[1]}
    for n in sorted({width.width, hub.width, n_hub}):
        if n < fitted:
            predicted[FC, principal(n)] = features.probe(x, targets, n)
            numbers[FC, principal(n)] = n
    by_endpoint = {
        e: {kind: p[:, i] for kind, p in predicted.items()} for i, e in enumerate((DIAGNOSIS, COGNITION))
    }
    return by_endpoint, numbers


def read_targets(
    probed: tuple[Path, ...], participants: tuple[Path, ...]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Endpoints of the subjects whom probes read, and whose series goes with each T1 in the third one."""
    rows = []
    for index, path in zip(probed, participants, strict=True):
        with path.open(encoding="utf-8") as file:
            by_name = {row["participant_id"][4:]: row for row in csv.DictReader(file, delimiter="\t")}
        rows += [by_name[bold.subject.split("/")[1]] for bold, _ in features.pairs((index,))]
    target = {
        DIAGNOSIS: np.array([row["diagnosis"] == "patient" for row in rows], float),
        COGNITION: np.array([float(row["cognition"]) for row in rows]),
    }
    # of one scanner and diagnosis, so that a pair differs from a subject in its score alone
    groups = np.array([row["site"] + row["diagnosis"] for row in rows])
    partner, random = np.arange(len(rows)), np.random.default_rng(0)
    for group in np.unique(groups):
        members = random.permutation(np.flatnonzero(groups == group))
        partner[members] = np.roll(members, 1)
    target[HALVES] = (target[COGNITION] + target[COGNITION][partner]) / 2**0.5
    return target, partner


def print_head(args: argparse.Namespace, work: Work) -> None:
    """Say what was measured, of whom, and on what."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in ("bhx", "torch", "numpy", "scikit-learn")}
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    steps = {s: load_preset(s, "tiny").override(work.changes.get(s, {})).train.steps for s in STAGES}
    n_trained = [part for part in read_split(work.split).values()].count("train")
    print("SYNTHETIC DATA: nothing here says anything about the paper's numbers.\n")
    print(f"    python tests/benchmarks/learning.py {shlex.join(sys.argv[1:])}\n")
    print(
        f"{datetime.date.today()}, {cpu[0].split(':')[1].strip() if cpu else platform.machine()}, "
        f"{len(os.sched_getaffinity(0))} cores, no GPU; commit {commit}, Python {platform.python_version()}, "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}. Seeds: {args.seeds}; preset tiny, "
        f"changes {dict(work.changes)}, steps {steps}. {len(work.partner)} subjects for the probes, "
        f"{n_trained} subjects to train the function stage on, {args.people} of whom without T1; "
        f"{N_HELD_OUT} without T1 held out, beside those of the demo.\n"
    )


def prepare(args: argparse.Namespace, place: Path) -> Work:
    """Draw subjects into `place`, unless they are there, and divide them."""
    results, changes = args.results.resolve(), json.loads(args.set)
    place.mkdir(parents=True, exist_ok=True)
    about, made_of = {"more": args.more, "people": args.people, "set": changes}, place / "made_of.json"
    if not made_of.exists():
        draw(place, args.more, args.people + N_HELD_OUT, args.jobs)
        print("subjects drawn", file=sys.stderr, flush=True)
        write_json(made_of, about)
    elif json.loads(made_of.read_text(encoding="utf-8")) != about:
        sys.exit(f"{place} was made with other options ({made_of.read_text()}): name another folder")
    index, unlabelled = (place / f"results/{name}/shards/index.json" for name in (PATIENTS, UNLABELLED))
    probed = (results / PATIENTS / "shards/index.json", index)
    participants = tuple(root / PATIENTS / "participants.tsv" for root in (args.data, place))
    target, partner = read_targets(probed, participants)
    split = place / "split.json"
    write_split(results / "experiments/demo/subjects/pretrain.json", unlabelled, split)
    return Work(results, place, probed, unlabelled, split, changes, target, partner, args.attentive)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results of `make demo`")
    parser.add_argument("data", type=Path, help="demo-data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time, one thread each")
    parser.add_argument("--more", type=int, default=520, help="subjects to draw beside the 120 of patients")
    parser.add_argument(
        "--people", type=int, default=300, help="subjects without T1 to draw for the function stage"
    )
    parser.add_argument(
        "--keep", type=Path, help="folder for what is drawn and found: a stopped command goes on from there"
    )
    parser.add_argument("--attentive", action="store_true", help="also train attentive probes, which is slow")
    parser.add_argument(
        "--set", default="{}", metavar="JSON", help='e.g. \'{"fusion": {"train.steps": 300}}\''
    )
    args = parser.parse_args()
    with nullcontext(args.keep) if args.keep else tempfile.TemporaryDirectory(prefix="learning-") as name:
        work = prepare(args, Path(name).resolve())
        with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
            waiting = pool.map_async(functools.partial(one_seed, work), range(args.seeds), chunksize=1)
            fc, fc_numbers = probe_connectivity(work)
            print("connectivity read", file=sys.stderr, flush=True)
            found = waiting.get()
        print_head(args, work)
        target = work.target
    known = estimates(target, found, fc)
    print_losses(found)
    print_scores(found, known, fc_numbers)
    print_goals(found, known)


if __name__ == "__main__":
    main()
