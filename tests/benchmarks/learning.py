"""Does the model learn: losses against the mean predictor, hub tokens against one modality, ROIs in another order.

    python tests/benchmarks/learning.py results demo-data --seeds 3 --jobs 2 --more 600      # after `make demo`

For every seed all stages are trained anew on the demo's cohorts (synthetic), with the tiny preset or what `--set`
changes of it (a JSON object for each stage), and the fusion again with the other decoder, and with the other
`modality_attention`. Losses are those of subjects who were held out; the mean predictor predicts the mean token (of a
patch, for T1).

Probes read frozen tokens of the subjects of `patients`, whose endpoints are planted in both modalities, and of
`--more` subjects who are drawn in the same way. Each modality may be read with as many numbers as the hub tokens: 64
of a mean token, or 1,024 of 16 tokens, the hub tokens one by one against the means of 16 runs of neighbouring tokens.
Numbers are standardised, for ridge regression whose penalty is chosen within the subjects it is fitted on; 5 folds, 5
times.

In these subjects either modality holds all of an endpoint, and a T1 that is read closely determines everything. So a third
endpoint is of pairs of subjects of one scanner and diagnosis: the T1 of the first, the series of the second, and the
sum of both scores, of which either modality holds one half. Intervals are 95 % of a bootstrap over subjects and seeds
together.

No part of the test suite.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from scipy import stats
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow"))

from bhx_model.config import STAGES, load_preset
from bhx_model.data import shards
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.training import stages
from bhx_model.training.encoders import Encoders
from bhx_model.training.trained import load_trained
from bhx_prep.brain_maps import gradients
from bhx_prep.demo import timeseries

ROOT = Path(__file__).resolve().parents[2]
PRETRAINING = ("pretraining", "derivatives", "rawbids")
#: Seed of the subjects who are drawn beside the demo's, whose seed is 0.
MORE_SEED = 1
#: Endpoints of subjects, and of pairs of subjects.
ENDPOINTS = {"diagnosis": "AUC", "cognition": "r"}
HALVES = "cognition, half in each"
#: Places of a modality, and hub tokens of the tiny preset.
PLACES = 16

FC = "functional connectivity, all pairs"
BOTH = "both, side by side"
HUB = "hub tokens"
OTHER_SERIES = "hub tokens, mismatched series"
OTHER_T1 = "hub tokens, mismatched T1"
OTHER_DECODER = "hub tokens trained with the other decoder"
OTHER_ATTENTION = "hub tokens trained with the other attention"
SHUFFLED = "hub tokens, ROIs shuffled in the test subjects"
ALWAYS_SHUFFLED = "hub tokens, ROIs shuffled in all subjects"
#: Sixteen tokens beside each other instead of the mean of all.
APART = ", 16 tokens"
#: Differences that are printed with their interval.
AGAINST = (
    "structure",
    "function",
    BOTH,
    OTHER_SERIES,
    OTHER_T1,
    OTHER_DECODER,
    OTHER_ATTENTION,
    SHUFFLED,
    ALWAYS_SHUFFLED,
)

Features = dict[str, np.ndarray]


@dataclass(frozen=True)
class Work:
    """What all seeds share."""

    results: Path
    subjects: tuple[Path, ...]
    """Indices of the subjects whom probes read."""
    changes: Mapping[str, Any]
    target: Mapping[str, np.ndarray]
    partner: np.ndarray
    """(n,) whose series goes with each T1, in the third endpoint."""


@dataclass(frozen=True)
class Found:
    """What one seed gives."""

    losses: dict[str, float]
    predicted: dict[str, dict[str, np.ndarray]]
    """Endpoint, then features, to the predictions for subjects who were not fitted."""


def run(*words: object) -> None:
    """Run a Python module, quietly."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/workflow", "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        sys.exit(f"{words[0]}: {(done.stdout + done.stderr)[-2000:]}")


def draw_subjects(place: Path, n: int) -> tuple[Path, Path]:
    """Draw subjects as those of `patients` and take them to shards: the index, and the participants."""
    timeseries.fill_patients(place / "patients", MORE_SEED, n)
    config = {
        "results": str(place / "results"),
        "features": yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["features"],
        "cohorts": {"patients": {"input": "timeseries", "root": str(place / "patients"), "synthetic": True}},
        "experiments": {"none": {"cohorts": ["patients"]}},
        "endpoints": {},
    }
    (place / "config.yaml").write_text(json.dumps(config))
    index = place / "results/patients/shards/index.json"
    rest = ["--snakefile", ROOT / "workflow/Snakefile", "--configfile", place / "config.yaml"]
    run("snakemake", *rest, "--directory", place, "--cores", 1, index)
    return index, place / "patients/participants.tsv"


def train(work: Work, place: Path, seed: int) -> None:
    """Train all stages, and the fusion with the other decoder, into folders of `place` named after them."""
    experiment = work.results / "experiments/demo"
    packed = [work.results / cohort / "shards/index.json" for cohort in PRETRAINING]
    shared = ["--preset", "tiny", "--seed", seed, "--shards", *packed, "--run-root", place / "runs"]
    shared += ["--split", experiment / "pretrain.json", "--rois", experiment / "rois.npz"]

    def one(stage: str, out: str, own: Mapping[str, Any], *words: object) -> None:
        given = [
            "--stage",
            stage,
            "--set",
            json.dumps(work.changes.get(stage, {}) | own),
            "--out",
            place / out,
        ]
        run("bhx_model.train", *given, *shared, *words)

    one("structure", "structure", {})
    one("function", "function", {})
    for cohort, index in zip(PRETRAINING, packed, strict=True):
        encoders = ["--structure", place / "structure", "--function", place / "function"]
        rois = ["--rois", experiment / "rois.npz"]
        run(
            "bhx_model.training.tokens",
            *encoders,
            "--shards",
            index,
            *rois,
            "--out",
            place / "tokens" / cohort,
        )
    tokens = ["--tokens", *(place / "tokens" / cohort / "index.json" for cohort in PRETRAINING)]
    one("fusion", "fusion", {}, *tokens)
    used = cast(Any, load_preset("fusion", "tiny").override(work.changes.get("fusion", {})).model)
    one("fusion", "decoder", {"model.decoder": "joint" if used.decoder == "cross" else "cross"}, *tokens)
    attention = "tokens" if used.modality_attention == "equal" else "equal"
    one("fusion", "attention", {"model.modality_attention": attention}, *tokens)


@torch.no_grad()
def function_losses(work: Work, place: Path, seed: int) -> dict[str, float]:
    """Loss of the held out subjects' series with the ROIs shuffled, as a multiple of that in their order."""
    experiment = work.results / "experiments/demo"
    trained = load_trained(place / "function", "function")
    model = cast(FunctionJEPA, trained.model).eval()
    sources = stages.Sources(
        shards=[work.results / cohort / "shards/index.json" for cohort in PRETRAINING],
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
            losses[place_of] += model(*arguments)[0].item()
    return {"function: loss with ROIs shuffled / in order": float(losses[1] / losses[0])}


@torch.no_grad()
def features(work: Work, place: Path, seed: int) -> tuple[Features, Features]:
    """What probes may read of each subject, and of each pair of subjects, (n, D) each."""
    encoders = Encoders.open(place / "structure", place / "function")
    fusion, decoder, attention = (load_fusion(place / name) for name in ("fusion", "decoder", "attention"))
    random = np.random.default_rng([seed, 2])
    everyone = []
    for pair in pairs(work.subjects):
        batch = encoders.load([pair])
        structure, function, _ = encoders.encode(batch)
        order = torch.from_numpy(random.permutation(encoders.function.n_rois))
        mixed = replace(batch, tensors={**batch.tensors, "series": batch.tensors["series"][:, order]})
        everyone.append((structure, function, encoders.encode(mixed)[1], batch.n_patches))
    rows: dict[str, list[np.ndarray]] = {}
    halves: dict[str, list[np.ndarray]] = {}

    def take(into: dict[str, list[np.ndarray]], kinds: Mapping[str, torch.Tensor]) -> None:
        for name, tokens in kinds.items():
            into.setdefault(name, []).append(tokens.mean(dim=1)[0].numpy())
            into.setdefault(name + APART, []).append(places(tokens, PLACES))

    def take_both(into: dict[str, list[np.ndarray]], structure: torch.Tensor, function: torch.Tensor) -> None:
        means = [tokens.mean(dim=1)[0].numpy() for tokens in (structure, function)]
        into.setdefault(BOTH, []).append(np.concatenate(means))
        few = [places(tokens, PLACES // 2) for tokens in (structure, function)]
        into.setdefault(BOTH + APART, []).append(np.concatenate(few))

    # the other subjects have as many patches, and labels that are drawn by chance
    others = shift_within(np.array([n for *_, n in everyone]), np.random.default_rng([seed, 3]))
    for number, (*own, n) in enumerate(everyone):
        structure, function, shuffled = (tokens.float() for tokens in own)
        their_structure, their_function = (tokens.float() for tokens in everyone[others[number]][:2])
        kinds = {
            "structure": structure,
            "function": function,
            HUB: fusion.encode(structure, function, n),
            OTHER_SERIES: fusion.encode(structure, their_function, n),
            OTHER_T1: fusion.encode(their_structure, function, n),
            OTHER_DECODER: decoder.encode(structure, function, n),
            OTHER_ATTENTION: attention.encode(structure, function, n),
            ALWAYS_SHUFFLED: fusion.encode(structure, shuffled, n),
        }
        take(rows, kinds)
        take_both(rows, structure, function)
        half = everyone[work.partner[number]][1].float()
        kinds = {
            "structure": structure,
            "function": half,
            HUB: fusion.encode(structure, half, n),
            OTHER_DECODER: decoder.encode(structure, half, n),
            OTHER_ATTENTION: attention.encode(structure, half, n),
        }
        take(halves, kinds)
        take_both(halves, structure, half)
    return {k: np.stack(v) for k, v in rows.items()}, {k: np.stack(v) for k, v in halves.items()}


def places(tokens: torch.Tensor, n: int) -> np.ndarray:
    """Means of `n` runs of neighbouring tokens, beside each other; of 16 hub tokens, themselves."""
    return torch.cat([run_.mean(dim=1) for run_ in tokens.tensor_split(n, dim=1)], dim=1)[0].numpy()


def shift_within(groups: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """For everyone somebody else of the same group, (n,): each is somebody's once."""
    other = np.arange(len(groups))
    for group in np.unique(groups):
        members = random.permutation(np.flatnonzero(groups == group))
        other[members] = np.roll(members, 1)
    return other


def load_fusion(folder: Path) -> FusionModel:
    """The trained fusion, for evaluation."""
    return cast(FusionModel, load_trained(folder, "fusion").model).eval()


def pairs(indices: tuple[Path, ...]) -> list[tuple[shards.Sample, shards.Sample]]:
    """BOLD runs with their T1s, cohort after cohort."""
    samples = [shards.open_index(index).samples for index in indices]
    return [pair for s in samples for pair in shards.pair(s["bold"], s["t1w"])[0]]


def connectivity(work: Work) -> np.ndarray:
    """Fisher-z connectivity of each subject, (n, pairs of ROIs)."""
    rows, n_rois = [], len(shards.open_index(work.subjects[0]).metadata["roi_names"])
    for run_, _ in pairs(work.subjects):
        series = shards.read_bold(run_, n_rois)
        rows.append(gradients.connectivity(series)[np.triu_indices(len(series), k=1)])
    return np.stack(rows).astype(np.float32)


def probe(x: np.ndarray, x_test: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Predictions for everyone from subjects who are not themselves: 5 folds, mean of 5 repeats; (n, targets)."""
    predicted = np.zeros(targets.shape)
    for repeat in range(5):
        for fit, test in KFold(5, shuffle=True, random_state=repeat).split(x):
            ridge = RidgeCV(np.logspace(0, 6, 13), alpha_per_target=True)
            model = make_pipeline(StandardScaler(), ridge).fit(x[fit], targets[fit])
            predicted[test] += model.predict(x_test[test]).reshape(-1, targets.shape[1]) / 5
    return predicted


def score(endpoint: str, target: np.ndarray, predicted: np.ndarray) -> float:
    """Area under the curve, or correlation."""
    if endpoint == "diagnosis":
        # by ranks: sklearn's takes ten times as long, and there are a thousand draws
        n = int(target.sum())
        above = stats.rankdata(predicted)[target == 1].sum() - n * (n + 1) / 2
        return float(above / n / (len(target) - n))
    return float(np.corrcoef(target, predicted)[0, 1])


def one_seed(work: Work, seed: int) -> Found:
    """Train and probe with one seed."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="learning-") as name:
        place = Path(name)
        train(work, place, seed)
        for stage in (*STAGES, "decoder", "attention"):
            loss = json.loads((place / stage / "run.json").read_text())["loss"]
            what = stage if stage in STAGES else f"fusion, other {stage}"
            losses[f"{what}: loss"] = loss["holdout"]
            losses[f"{what}: mean-predictor loss"] = loss["mean_predictor"]
            losses[f"{what}: loss / mean-predictor loss"] = loss["holdout"] / loss["mean_predictor"]
        losses |= function_losses(work, place, seed)
        found, halves = features(work, place, seed)
    predicted = {kind: probe(x, x, of(work, ENDPOINTS)) for kind, x in found.items()}
    predicted[SHUFFLED] = probe(found[HUB], found[ALWAYS_SHUFFLED], of(work, ENDPOINTS))
    predicted[SHUFFLED + APART] = probe(
        found[HUB + APART], found[ALWAYS_SHUFFLED + APART], of(work, ENDPOINTS)
    )
    by_endpoint = {e: {kind: p[:, i] for kind, p in predicted.items()} for i, e in enumerate(ENDPOINTS)}
    by_endpoint[HALVES] = {kind: probe(x, x, of(work, [HALVES]))[:, 0] for kind, x in halves.items()}
    print(f"seed {seed} done", file=sys.stderr, flush=True)
    return Found(losses, by_endpoint)


def of(work: Work, endpoints: Iterable[str]) -> np.ndarray:
    """Targets beside each other, (n, endpoints)."""
    return np.stack([work.target[endpoint] for endpoint in endpoints], axis=1)


def over_seeds(values: list[float]) -> str:
    """Mean and 95 % interval of Student's t over seeds."""
    mean = np.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def over_subjects(measure: Callable[[int, np.ndarray], float], n_seeds: int, n_subjects: int) -> str:
    """Mean over seeds of `measure` of everyone, and its 95 % interval when subjects and seeds are drawn again."""
    random = np.random.default_rng(0)
    mean = np.mean([measure(seed, np.arange(n_subjects)) for seed in range(n_seeds)])
    drawn = [
        np.mean([measure(s, subjects) for s in random.integers(n_seeds, size=n_seeds)])
        for subjects in random.integers(n_subjects, size=(1000, n_subjects))
    ]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def report(work: Work, found: list[Found], fc: Mapping[str, np.ndarray]) -> None:
    """Print the tables."""
    print("| loss of subjects of the holdout | mean [95 % of seeds] | each seed |\n| --- | --- | --- |")
    for what in found[0].losses:
        values = [f.losses[what] for f in found]
        print(f"| {what} | {over_seeds(values)} | {' '.join(f'{v:.3f}' for v in values)} |")
    columns = {**{e: f"{e}, {m}" for e, m in ENDPOINTS.items()}, HALVES: f"{HALVES}, r"}
    print("\n| probe | " + " | ".join(columns.values()) + " |\n" + "| --- " * (len(columns) + 1) + "|")

    def measure(endpoint: str, kind: str, against: str | None, seed: int, subjects: np.ndarray) -> float:
        target = work.target[endpoint][subjects]

        def of(name: str) -> float:
            predicted = fc[endpoint] if name == FC else found[seed].predicted[endpoint][name]
            return score(endpoint, target, predicted[subjects])

        return of(kind) - (of(against) if against else 0.0)

    known = {e: {*found[0].predicted[e], *([FC] if e in fc else [])} for e in columns}
    kinds = list(found[0].predicted["diagnosis"])
    rows: list[tuple[str, str | None]] = [(FC, None)]
    rows += [(kind, None) for size in (False, True) for kind in kinds if kind.endswith(APART) == size]
    rows += [(HUB + size, against + size) for size in ("", APART) for against in AGAINST]
    for kind, against in rows:
        cells = [
            over_subjects(functools.partial(measure, e, kind, against), len(found), len(work.target[e]))
            if {kind, against or kind} <= known[e]
            else ""
            for e in columns
        ]
        print(f"| {kind if against is None else f'{kind} - {against}'} | {' | '.join(cells)} |")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results of `make demo`")
    parser.add_argument("data", type=Path, help="demo-data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time, one thread each")
    parser.add_argument("--more", type=int, default=600, help="subjects to draw beside the demo's 40")
    parser.add_argument(
        "--set", default="{}", metavar="JSON", help='e.g. \'{"fusion": {"train.steps": 300}}\''
    )
    args = parser.parse_args()
    results, changes = args.results.resolve(), json.loads(args.set)
    with tempfile.TemporaryDirectory(prefix="learning-subjects-") as name:
        index, listed = draw_subjects(Path(name), args.more)
        subjects = (results / "patients/shards/index.json", index)
        columns = []
        for path, participants in zip(
            subjects, (args.data / "patients/participants.tsv", listed), strict=True
        ):
            with participants.open(encoding="utf-8") as file:
                by_name = {row["participant_id"][4:]: row for row in csv.DictReader(file, delimiter="\t")}
            columns += [by_name[bold.subject.split("/")[1]] for bold, _ in pairs((path,))]
        target = {
            "diagnosis": np.array([row["diagnosis"] == "patient" for row in columns], float),
            "cognition": np.array([float(row["cognition"]) for row in columns]),
        }
        sites = np.array([row["site"] for row in columns])
        # of one scanner and diagnosis, so that a pair differs from a subject in its score alone
        partner = shift_within(
            np.char.add(sites, [row["diagnosis"] for row in columns]), np.random.default_rng(0)
        )
        target[HALVES] = (target["cognition"] + target["cognition"][partner]) / 2**0.5
        work = Work(results, subjects, changes, target, partner)
        with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
            waiting = pool.map_async(functools.partial(one_seed, work), range(args.seeds), chunksize=1)
            pairs_of_rois = connectivity(work)
            predicted = probe(pairs_of_rois, pairs_of_rois, of(work, ENDPOINTS))
            fc = {e: predicted[:, i] for i, e in enumerate(ENDPOINTS)}
            found = waiting.get()
    print(f"{args.seeds} seeds, changes {changes}, {len(columns)} subjects for the probes; SYNTHETIC DATA\n")
    report(work, found, fc)


if __name__ == "__main__":
    main()
