"""Does the model learn: losses against trivial ones, hub tokens against one modality, right against shuffled ROI order.

    python tests/benchmarks/learning.py results demo-data --seeds 5        # after `make demo`; 2 minutes a seed

For every seed all stages are trained anew on the demo's cohorts (synthetic), with the tiny preset or what `--set` changes
of it. Losses are those of people who were held out; the trivial one predicts the mean token (of a patch, for T1). A
probe on the demo's `clinic`, whose endpoints are planted in both modalities, reads the mean token of one encoder or the
mean hub token: 64 numbers each, 5 folds, 10 times. Intervals are 95 % of Student's t over seeds: they tell of seeds and not
of people, who are the same 40 in all. No part of the test suite; `--set` takes a JSON object for each stage.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bhx_model import data, stages
from bhx_model.config import STAGES
from bhx_model.fusion import FusionModel
from bhx_model.jepa import FunctionJEPA

ROOT = Path(__file__).resolve().parents[2]
PRETRAINING = ("town", "ward", "people")
SHUFFLED = "hub tokens, test people's ROIs shuffled"
FEATURES = ("structure", "function", "both, side by side", "hub tokens", SHUFFLED)


def run(module: str, *words: object) -> None:
    """Run one command of the model, quietly."""
    done = subprocess.run(
        [sys.executable, "-m", f"bhx_model.{module}", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"bhx_model.{module}: {done.stderr[-2000:]}")


def train(results: Path, place: Path, seed: int, changes: Mapping[str, Any]) -> None:
    """Train all stages into folders of `place` named after them."""
    experiment = results / "experiments/demo"
    shards = [results / cohort / "shards/index.json" for cohort in PRETRAINING]
    shared = ["--preset", "tiny", "--seed", seed, "--shards", *shards]
    shared += ["--split", experiment / "pretrain.json", "--rois", experiment / "rois.npz"]
    tokens: list[object] = []
    for stage in STAGES:
        if stage == "fusion":
            for cohort, index in zip(PRETRAINING, shards, strict=True):
                encoders = ["--structure", place / "structure", "--function", place / "function"]
                out = place / "tokens" / cohort
                run("tokens", *encoders, "--shards", index, "--rois", experiment / "rois.npz", "--out", out)
            tokens = ["--tokens", *(place / "tokens" / cohort / "index.json" for cohort in PRETRAINING)]
        own = ["--stage", stage, "--set", json.dumps(changes.get(stage, {})), *tokens]
        run("train", *own, *shared, "--run-root", place / "runs", "--out", place / stage)


@torch.no_grad()
def shuffled_losses(results: Path, place: Path, seed: int) -> tuple[float, float]:
    """Loss of the held out people's series in their order, and with the ROIs shuffled."""
    experiment = results / "experiments/demo"
    trained = stages.load_trained(place / "function", "function")
    model = cast(FunctionJEPA, trained.model).eval()
    sources = stages.Sources(
        shards=[results / cohort / "shards/index.json" for cohort in PRETRAINING],
        split=experiment / "pretrain.json",
        rois=experiment / "rois.npz",
    )
    stage = stages.open_stage(trained.config, sources, seed)
    random = np.random.default_rng([seed, 1])
    losses = np.zeros(2)
    for (number,) in stage.holdout(1):
        batch = stage.load([number], 0, None)
        order = torch.from_numpy(random.permutation(model.n_rois))
        series = batch.tensors["series"]
        for place_of, tensor in enumerate((series, series[:, order])):
            replaced = replace(batch, tensors={**batch.tensors, "series": tensor})
            arguments, _ = stage.inputs(replaced)
            losses[place_of] += model(*arguments)[0].item() / stage.n_holdout
    return float(losses[0]), float(losses[1])


@torch.no_grad()
def features(results: Path, place: Path, seed: int) -> tuple[list[str], dict[str, np.ndarray]]:
    """Subjects of the cohort `clinic`, and what a probe may read of each, (n, D)."""
    encoders = stages.Encoders.open(place / "structure", place / "function")
    fusion = cast(FusionModel, stages.load_trained(place / "fusion", "fusion").model).eval()
    samples = data.open_index(results / "clinic/shards/index.json").samples
    random = np.random.default_rng([seed, 2])
    subjects: list[str] = []
    rows: dict[str, list[np.ndarray]] = {name: [] for name in FEATURES}
    for pair in data.pair(samples["bold"], samples["t1w"])[0]:
        batch = encoders.load([pair])
        order = torch.from_numpy(random.permutation(encoders.function.n_rois))
        subjects.append(pair[0].subject.split("/")[1])
        structure, function, _ = (t.float() for t in encoders.encode(batch))
        other = replace(batch, tensors={**batch.tensors, "series": batch.tensors["series"][:, order]})
        mixed = encoders.encode(other)[1].float()
        single = [t.mean(dim=1)[0].numpy() for t in (structure, function)]
        hubs = [
            fusion.encode(structure, t, batch.n_patches).mean(dim=1)[0].numpy() for t in (function, mixed)
        ]
        for name, row in zip(FEATURES, [*single, np.concatenate(single), *hubs], strict=True):
            rows[name].append(row)
    return subjects, {name: np.stack(listed) for name, listed in rows.items()}


def probe(x: np.ndarray, x_test: np.ndarray, target: np.ndarray, *, binary: bool) -> float:
    """Area under the curve, or correlation, of predictions for people who are not fitted; 5 folds, 10 times."""
    found = []
    for repeat in range(10):
        folds = (StratifiedKFold if binary else KFold)(5, shuffle=True, random_state=repeat)
        predicted = np.zeros(len(target))
        for fit, test in folds.split(x, target):
            last = LogisticRegression(C=0.01, max_iter=2000) if binary else RidgeCV(np.logspace(0, 4, 9))
            model = make_pipeline(StandardScaler(), last).fit(x[fit], target[fit])
            predicted[test] = (
                model.predict_proba(x_test[test])[:, 1] if binary else model.predict(x_test[test])
            )
        score = roc_auc_score(target, predicted) if binary else np.corrcoef(target, predicted)[0, 1]
        found.append(float(score))
    return float(np.mean(found))


def interval(values: list[float]) -> str:
    """Mean and 95 % interval over seeds."""
    mean = np.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results of `make demo`")
    parser.add_argument("data", type=Path, help="demo-data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--set", default="{}", metavar="JSON", help='e.g. \'{"fusion": {"train.steps": 300}}\''
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    results, changes = args.results.resolve(), json.loads(args.set)
    with (args.data / "clinic/participants.tsv").open(encoding="utf-8") as file:
        people = {row["participant_id"][4:]: row for row in csv.DictReader(file, delimiter="\t")}
    table: dict[str, list[float]] = {}
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory(prefix="learning-") as name:
            place = Path(name)
            train(results, place, seed, changes)
            for stage in STAGES:
                loss = json.loads((place / stage / "run.json").read_text())["loss"]
                table.setdefault(f"{stage}: loss", []).append(loss["holdout"])
                table.setdefault(f"{stage}: trivial loss", []).append(loss["trivial"])
                table.setdefault(f"{stage}: loss / trivial", []).append(loss["holdout"] / loss["trivial"])
            right, shuffled = shuffled_losses(results, place, seed)
            table.setdefault("function: loss with ROIs shuffled / in order", []).append(shuffled / right)
            subjects, found = features(results, place, seed)
        for endpoint, measure in (("diagnosis", "AUC"), ("cognition", "r")):
            binary = endpoint == "diagnosis"
            column = [people[s][endpoint] for s in subjects]
            target = np.array([v == "patient" if binary else float(v) for v in column], dtype=float)
            scores = {
                kind: probe(found["hub tokens" if kind == SHUFFLED else kind], x, target, binary=binary)
                for kind, x in found.items()
            }
            for kind, score in scores.items():
                table.setdefault(f"{endpoint} {measure}: {kind}", []).append(score)
            for kind in ("structure", "function", SHUFFLED):
                gain = scores["hub tokens"] - scores[kind]
                table.setdefault(f"{endpoint} {measure}: hub tokens - {kind}", []).append(gain)
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    print(f"{args.seeds} seeds, changes {changes}, {len(subjects)} people of clinic; synthetic data\n")
    print("| what | mean [95 % of seeds] | each seed |\n| --- | --- | --- |")
    for what, values in table.items():
        print(f"| {what} | {interval(values)} | {' '.join(f'{v:.3f}' for v in values)} |")


if __name__ == "__main__":
    main()
